package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"hash/maphash"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// sweepPeriod is how often idle connections are looked at.
const sweepPeriod = time.Second

// Options are those of a [Manager].
type Options struct {
	// Dial connects a socket. It must be non-nil.
	Dial func(ctx context.Context, to netip.AddrPort) (codec.Conn, error)
	// Tunnel opens a stream of an HBONE tunnel and waits for its answer. An answer
	// other than 200 is an error with a Status() int or hbone's StatusError. nil: there
	// are no tunnels.
	Tunnel func(ctx context.Context, to Tunnel) (codec.Conn, *tls.ConnectionState, error)
	// Codec are the options of connections; clusters override HTTP2's windows.
	Codec codec.Options
	// Secrets are certificates and roots by the names that SDS uses; or nil.
	Secrets Secrets
	// Expected are the SPIFFE ids that may answer for a destination, as the control
	// plane knows it; none is not known. Or nil.
	Expected func(netip.AddrPort) []string
	// TrustDomain is the mesh's.
	TrustDomain string
	// Resolve looks a name up; nil is the system's resolver.
	Resolve func(ctx context.Context, name string, family Family) (Addresses, error)
	Logger  *slog.Logger // must be non-nil
}

// Secrets are what SDS names stand for. They are asked at each handshake, so that a
// new certificate is used from the next connection on.
type Secrets interface {
	Certificate(name string) (*tls.Certificate, error)
	Roots(name string) (*x509.CertPool, error)
}

// shardCount splits the names, so that a change copies few of them.
const shardCount = 64

// Manager has the clusters. One goroutine at a time changes it; any may read.
type Manager struct {
	o      Options
	hash   maphash.Seed
	shards [shardCount]atomic.Pointer[map[string]*Cluster]
	// connected are the pools that have connections.
	connected sync.Map
	stop      chan struct{}
	stopped   chan struct{}

	// mu guards below.
	mu       sync.Mutex
	clusters map[string]*entry
	loads    map[string]*endpointv3.ClusterLoadAssignment
	// uses are the EDS clusters by service name.
	uses   map[string]map[string]bool
	closed bool
}

// entry is a cluster with the bytes it was made of.
type entry struct {
	cluster *Cluster
	proto   *clusterv3.Cluster
}

// NewManager returns a manager without clusters; Close it.
func NewManager(o Options) (*Manager, error) {
	if o.Dial == nil || o.Logger == nil {
		return nil, errors.New("cluster: Dial and Logger must be set")
	}
	m := &Manager{o: o, hash: maphash.MakeSeed(), stop: make(chan struct{}), stopped: make(chan struct{}),
		clusters: map[string]*entry{}, loads: map[string]*endpointv3.ClusterLoadAssignment{}, uses: map[string]map[string]bool{}}
	go m.sweep()
	return m, nil
}

// Get is the cluster of a name, or nil: there is none, or it still waits for its
// first endpoints.
func (m *Manager) Get(name string) *Cluster {
	names := m.shards[maphash.String(m.hash, name)%shardCount].Load()
	if names == nil {
		return nil
	}
	c := (*names)[name]
	if c == nil || !c.warm.Load() {
		return nil
	}
	return c
}

// Await is Get, but waits for the first endpoints of a cluster that there is, no longer
// than timeout.
func (m *Manager) Await(name string, timeout time.Duration) *Cluster {
	if c := m.Get(name); c != nil || !m.has(name) {
		return c
	}
	late := time.NewTimer(timeout)
	defer late.Stop()
	look := time.NewTicker(awaitPeriod)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if c := m.Get(name); c != nil || !m.has(name) {
				return c
			}
		case <-late.C:
			return m.Get(name)
		}
	}
}

// awaitPeriod is how often Await looks. It waits as a rule for the next message of the
// control plane.
const awaitPeriod = 5 * time.Millisecond

func (m *Manager) has(name string) bool {
	names := m.shards[maphash.String(m.hash, name)%shardCount].Load()
	return names != nil && (*names)[name] != nil
}

// Names are those of all clusters, those that wait included, sorted.
func (m *Manager) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.clusters))
}

// SetCluster adds or changes a cluster. What has not changed is left alone. After an
// error, which names the cluster and the field, the cluster is as it was before.
func (m *Manager) SetCluster(p *clusterv3.Cluster) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.New("cluster: the manager is closed")
	}
	old := m.clusters[p.GetName()]
	if old != nil && proto.Equal(old.proto, p) {
		return nil
	}
	s, err := compile(p)
	if err != nil {
		return err
	}
	if err := m.checkLoad(s, s.load); err != nil {
		return err
	}
	for _, field := range ignored(p) {
		m.warn(s.name, field)
	}
	e := &entry{proto: proto.Clone(p).(*clusterv3.Cluster)}
	if old != nil {
		e.cluster = old.cluster
	} else {
		e.cluster = &Cluster{manager: m, name: s.name, overprovision: 140, seed: rand.Uint64()} //nolint:gosec // balance
	}
	c := e.cluster
	c.mu.Lock()
	was := ""
	if c.spec != nil {
		was = c.spec.edsName
	}
	err = c.updateLocked(s)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if was != s.edsName {
		m.unuse(was, s.name)
	}
	m.clusters[s.name] = e
	if s.discovery == eds {
		if m.uses[s.edsName] == nil {
			m.uses[s.edsName] = map[string]bool{}
		}
		m.uses[s.edsName][s.name] = true
		if load := m.loads[s.edsName]; load != nil {
			c.mu.Lock()
			err = c.assignLocked(load)
			c.mu.Unlock()
		}
	}
	m.publish(s.name, c)
	return err
}

// SetEndpoints is the assignment of an EDS service name; an empty one takes all
// hosts away. Endpoints that cannot be used are left out and named by the error; the
// others are in effect.
func (m *Manager) SetEndpoints(load *endpointv3.ClusterLoadAssignment) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := load.GetClusterName()
	if name == "" {
		return errors.New("endpoints: cluster_name is missing")
	}
	if old := m.loads[name]; old != nil && proto.Equal(old, load) {
		return nil
	}
	load = proto.Clone(load).(*endpointv3.ClusterLoadAssignment)
	m.loads[name] = load
	var errs []error
	for user := range m.uses[name] {
		c := m.clusters[user].cluster
		c.mu.Lock()
		errs = append(errs, c.assignLocked(load))
		c.mu.Unlock()
	}
	return errors.Join(errs...)
}

// RemoveEndpoints forgets the assignment of an EDS service name; clusters that use
// it keep their hosts, as Envoy's do, until they are removed.
func (m *Manager) RemoveEndpoints(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.loads, name)
}

// Remove takes a cluster away. Its connections end with their exchanges.
func (m *Manager) Remove(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.clusters[name]
	if e == nil {
		return
	}
	delete(m.clusters, name)
	m.unuse(e.cluster.spec.edsName, name)
	m.publish(name, nil)
	e.cluster.mu.Lock()
	e.cluster.closeLocked()
	e.cluster.mu.Unlock()
}

// unuse forgets that a cluster takes a service name's endpoints.
func (m *Manager) unuse(service, cluster string) {
	delete(m.uses[service], cluster)
	if len(m.uses[service]) == 0 {
		delete(m.uses, service)
	}
}

func (m *Manager) publish(name string, c *Cluster) {
	shard := &m.shards[maphash.String(m.hash, name)%shardCount]
	old := shard.Load()
	if old != nil && (*old)[name] == c {
		return
	}
	names := map[string]*Cluster{}
	if old != nil {
		maps.Copy(names, *old)
	}
	if c == nil {
		delete(names, name)
	} else {
		names[name] = c
	}
	shard.Store(&names)
}

// Close takes all clusters away. Exchanges under way go on; their connections end
// with them.
func (m *Manager) Close() {
	for _, name := range m.Names() {
		m.Remove(name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		close(m.stop)
		<-m.stopped
	}
}

// sweep closes idle connections until the manager is closed.
func (m *Manager) sweep() {
	defer close(m.stopped)
	tick := time.NewTicker(sweepPeriod)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-m.stop:
			return
		case now := <-tick.C:
			m.connected.Range(func(p, _ any) bool {
				p.(*pool).sweep(now)
				return true
			})
			if n%10 == 0 {
				m.sweepDestinations(now)
			}
		}
	}
}

func (m *Manager) sweepDestinations(now time.Time) {
	for i := range m.shards {
		names := m.shards[i].Load()
		if names == nil {
			continue
		}
		for _, c := range *names {
			if c.snap.Load().spec.byDestination() {
				c.sweepDestinations(now)
			}
		}
	}
}

func compare(a, b string) int { return strings.Compare(a, b) }

// warn logs what was ignored.
func (m *Manager) warn(cluster, what string) {
	m.o.Logger.Warn("part of a cluster is ignored", "cluster", cluster, "part", what)
}
