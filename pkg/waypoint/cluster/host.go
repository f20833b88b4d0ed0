package cluster

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// Host is one endpoint of a cluster. It is one object for as long as its address is
// in the cluster; what can change is behind methods.
type Host struct {
	// Address is as Envoy writes it: "10.0.0.1:80" or "envoy://connect_originate/10.0.0.1:80".
	Address string
	// Dial is the socket address to connect to: with a tunnel, the address that
	// its CONNECT names.
	Dial netip.AddrPort
	// Hostname is the name a DNS host was resolved from, or that EDS gives; or "".
	Hostname string

	cluster *Cluster
	tunnel  tunnelTo // zero: none

	facts     atomic.Pointer[facts]
	unhealthy atomic.Bool // EDS says so
	ejected   atomic.Bool // outlier detection says so
	removed   atomic.Bool

	active  atomic.Int64 // requests
	pending atomic.Int64 // requests that wait for a connection
	stats   hostStats
	health  monitor
	pools   atomic.Pointer[pools]
	// passed is when the host became healthy first, in nanoseconds of the cluster's
	// clock; it begins the slow start.
	passed atomic.Int64
	// used is when the host was last asked for, for those that come with a destination.
	used atomic.Int64
}

// facts are what an update may change of a host.
type facts struct {
	weight   uint32
	priority int
	locality Locality
	metadata streaminfo.Metadata
	workload *streaminfo.Workload // as the metadata says, or nil
	hashKey  string               // of envoy.lb's hash_key, or ""
}

// Locality is where a host is.
type Locality struct{ Region, Zone, SubZone string }

// Metadata is the host's filter metadata, or nil.
func (h *Host) Metadata() streaminfo.Metadata { return h.facts.Load().metadata }

// InMesh tells whether the host is reached through a tunnel.
func (h *Host) InMesh() bool { return h.tunnel.listener != "" }

// Workload is who the host's metadata says it is, or nil.
func (h *Host) Workload() *streaminfo.Workload { return h.facts.Load().workload }

// Locality is where the host is.
func (h *Host) Locality() Locality { return h.facts.Load().locality }

// Weight is the host's load balancing weight.
func (h *Host) Weight() uint32 { return h.facts.Load().weight }

// Priority is that of the host's locality; 0 is the highest.
func (h *Host) Priority() int { return h.facts.Load().priority }

// Cluster is the host's.
func (h *Host) Cluster() *Cluster { return h.cluster }

// Active is the number of requests under way.
func (h *Host) Active() int64 { return h.active.Load() }

// Healthy reports whether balancers take the host outside a panic.
func (h *Host) Healthy() bool { return !h.unhealthy.Load() && !h.ejected.Load() }

// load is what LEAST_REQUEST compares: as in Envoy, with those that wait.
func (h *Host) load() int64 { return h.active.Load() + h.pending.Load() }

func newHost(c *Cluster, address string) *Host {
	h := &Host{Address: address, cluster: c}
	h.facts.Store(&facts{weight: 1})
	return h
}

// markPassed notes when the host was healthy first.
func (h *Host) markPassed(now time.Time) {
	if h.Healthy() {
		h.passed.CompareAndSwap(0, now.UnixNano())
	}
}

// connecting counts a connection from its beginning, as Envoy does.
func (h *Host) connecting() {
	h.cluster.stats.cxTotal.Add(1)
	h.cluster.stats.cxActive.Add(1)
	h.stats.cxTotal.Add(1)
	h.stats.cxActive.Add(1)
}

// disconnected counts its end.
func (h *Host) disconnected() {
	h.cluster.stats.cxActive.Add(-1)
	h.cluster.stats.cxDestroy.Add(1)
	h.stats.cxActive.Add(-1)
}
