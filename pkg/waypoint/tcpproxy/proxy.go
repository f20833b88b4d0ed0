// Package tcpproxy carries a connection to a cluster, byte by byte: Envoy's
// tcp_proxy. Package chain makes and calls it.
package tcpproxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/guard"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/live"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/router"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

const defaultIdle = time.Hour

// Dependencies of a proxy.
type Dependencies struct {
	Clusters  router.Clusters   // must be non-nil
	Authorize router.Authorizer // or nil
	// Workload labels who has an address, for the record; or nil: what the endpoints
	// themselves say is taken.
	Workload  func(netip.Addr) *streaminfo.Workload
	Recorders []hcm.Recorder
	Guard     *guard.Guard // or nil
	Live      *live.Set    // or nil
}

type weighted struct {
	name  string
	until uint64 // of the sum of weights up to and with this one
}

// Proxy carries the connections of one filter chain.
type Proxy struct {
	d        Dependencies
	clusters []weighted
	idle     time.Duration
	longest  time.Duration
	attempts int
}

// Compile makes a proxy. An error names the field.
func Compile(c *tcpv3.TcpProxy, d Dependencies) (*Proxy, error) {
	p := &Proxy{d: d, idle: defaultIdle, longest: c.GetMaxDownstreamConnectionDuration().AsDuration(), attempts: 1}
	if c.GetIdleTimeout() != nil {
		p.idle = c.GetIdleTimeout().AsDuration()
	}
	if n := c.GetMaxConnectAttempts(); n != nil {
		p.attempts = int(n.GetValue())
	}
	switch {
	case c.GetTunnelingConfig() != nil:
		return nil, errors.New("tunneling_config is not supported here")
	case c.GetCluster() != "":
		p.clusters = []weighted{{c.GetCluster(), 1}}
	case len(c.GetWeightedClusters().GetClusters()) > 0:
		var sum uint64
		for _, w := range c.GetWeightedClusters().GetClusters() {
			if w.GetWeight() == 0 {
				continue
			}
			sum += uint64(w.GetWeight())
			p.clusters = append(p.clusters, weighted{w.GetName(), sum})
		}
	default:
		return nil, errors.New("cluster_specifier is missing")
	}
	return p, nil
}

func (p *Proxy) draw(v uint64) string {
	if len(p.clusters) == 0 {
		return ""
	}
	v %= p.clusters[len(p.clusters)-1].until
	for _, w := range p.clusters {
		if v < w.until {
			return w.name
		}
	}
	return ""
}

// Opener is a recorder that is told of a connection also when it is established. The
// record of its end is of the same info.
type Opener interface {
	hcm.Recorder
	Opened(info *streaminfo.Info)
}

// Refused records a connection that a network filter refused, and why.
func (p *Proxy) Refused(c *streaminfo.Connection, why string) {
	info := streaminfo.Info{Connection: c, Start: time.Now(), Termination: why}
	if len(p.clusters) == 1 {
		info.Cluster = p.clusters[0].name
		if cl := p.d.Clusters.Get(info.Cluster); cl != nil {
			info.ClusterMetadata = cl.Metadata()
		}
	}
	for _, r := range p.d.Recorders {
		r.Record(&info)
	}
}

// Serve carries a connection until both sides have ended. Failures are aborts: an end
// in order would be a lie.
func (p *Proxy) Serve(conn codec.Conn, c *streaminfo.Connection) error {
	info := streaminfo.Info{Connection: c, Start: time.Now(), Seed: rand.Uint64(), Traffic: &streaminfo.Traffic{}} //nolint:gosec // draws endpoints, guards nothing
	err := p.carry(conn, &info)
	info.BytesSent, info.BytesReceived = info.Traffic.Sent.Load(), info.Traffic.Received.Load()
	info.Duration = time.Since(info.Start)
	if err != nil {
		conn.Abort()
	}
	for _, r := range p.d.Recorders {
		r.Record(&info)
	}
	return err
}

func (p *Proxy) carry(conn codec.Conn, info *streaminfo.Info) error {
	name := p.draw(info.Seed)
	cl := p.d.Clusters.Get(name)
	if cl == nil {
		info.Flags |= streaminfo.NoClusterFound
		return fmt.Errorf("no cluster %q", name)
	}
	info.Cluster = name
	info.ClusterMetadata = cl.Metadata()
	up, err := p.connect(cl, info)
	if err != nil {
		return err
	}
	if p.d.Authorize != nil {
		destination := info.UpstreamRemote
		remove, err := p.d.Live.Add(func() error { return p.d.Authorize(info.Connection, destination, false) }, conn.Abort)
		if err != nil {
			up.Abort()
			return p.denied(info, err)
		}
		defer remove()
	}
	for _, r := range p.d.Recorders {
		if o, ok := r.(Opener); ok {
			o.Opened(info)
		}
	}
	return p.relay(conn, up, info)
}

func (p *Proxy) denied(info *streaminfo.Info, err error) error {
	info.Termination = "rbac_access_denied_matched_policy[" + err.Error() + "]"
	return err
}

func (p *Proxy) connect(cl *cluster.Cluster, info *streaminfo.Info) (codec.Conn, error) {
	var tried []*cluster.Host
	for attempt := 1; ; attempt++ {
		info.Attempts = attempt
		host, err := cl.Choose(cluster.Choice{Random: info.Seed, Tried: tried, Attempt: attempt - 1, Destination: info.Local, Authority: info.ForwardTo})
		if err != nil {
			info.Flags |= streaminfo.NoHealthyUpstream
			return nil, err
		}
		info.UpstreamHost, info.UpstreamRemote, info.HostMetadata, info.Destination = host.Address, host.Dial, host.Metadata(), p.workload(host)
		if p.d.Authorize != nil {
			if err := p.d.Authorize(info.Connection, host.Dial, host.InMesh()); err != nil {
				return nil, p.denied(info, err)
			}
		}
		up, connected, err := cl.OpenTCP(host, cluster.OpenOptions{Source: info.Remote, Destination: info.Local, ServerName: info.ServerName})
		if err == nil {
			host.Report(cluster.ConnectedTCP, 0)
			info.UpstreamLocal, info.UpstreamURISAN = connected.Local, connected.PeerURISAN
			return up, nil
		}
		if errors.Is(err, cluster.ErrOverflow) {
			info.Flags |= streaminfo.UpstreamOverflow
			return nil, err
		}
		host.Report(cluster.ConnectFailed, 0)
		if attempt >= p.attempts {
			info.Flags |= streaminfo.UpstreamConnectionFailure | streaminfo.UpstreamRetryLimitExceeded
			info.TransportFailure = err.Error()
			return nil, err
		}
		tried = append(tried, host)
	}
}

func (p *Proxy) workload(h *cluster.Host) *streaminfo.Workload {
	if p.d.Workload != nil {
		if w := p.d.Workload(h.Dial.Addr()); w != nil {
			return w
		}
	}
	return h.Workload()
}
