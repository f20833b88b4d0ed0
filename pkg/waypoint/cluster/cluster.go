package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// maxDestinations bounds the hosts of a cluster whose hosts come with requests.
const maxDestinations = 10_000

// Cluster is a name's hosts and what is kept of them.
type Cluster struct {
	manager  *Manager
	name     string
	seed     uint64
	snap     atomic.Pointer[snapshot]
	warm     atomic.Bool
	breakers [2]breaker
	stats    clusterStats

	// mu guards below, and who may store snap.
	mu sync.Mutex
	// groups are the hosts as they were assigned, by priority and locality.
	groups        [][]group
	overprovision uint32
	hosts         map[string]*Host
	byDestination map[string]*Host
	forwards      map[string]resolved
	ejected       int
	sweeping      *time.Timer // of outlier detection, or nil
	slow          *time.Timer // ends the slow start, or nil
	resolver      *resolver   // of DNS clusters, or nil
	gone          bool
	spec          *spec
}

// group is the hosts of one locality of one priority.
type group struct {
	name   Locality
	weight uint32
	hosts  []*Host
}

// Name is the cluster's.
func (c *Cluster) Name() string { return c.name }

// Metadata is the cluster's filter metadata, or nil.
func (c *Cluster) Metadata() streaminfo.Metadata { return c.snap.Load().spec.metadata }

// Hosts are all hosts; the list must not be changed.
func (c *Cluster) Hosts() []*Host {
	s := c.snap.Load()
	if !s.spec.byDestination() {
		return s.hosts
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.destinationsLocked()
}

// poolsOf is a host's connections under the cluster's present link.
func (c *Cluster) poolsOf(h *Host) *pools {
	l := c.snap.Load().spec.link
	for {
		set := h.pools.Load()
		if set != nil && (set.link == l || h.removed.Load()) {
			return set
		}
		fresh := newPools(h, l)
		if h.removed.Load() {
			fresh.drain()
		}
		if h.pools.CompareAndSwap(set, fresh) {
			if set != nil {
				set.drain()
			}
			if h.removed.Load() {
				fresh.drain()
			}
			return fresh
		}
	}
}

// updateLocked takes a new spec; hosts stay if they come from the same place.
func (c *Cluster) updateLocked(s *spec) error {
	old := c.spec
	if old != nil && old.link.key == s.link.key {
		s.link = old.link // connections stay
	}
	if old != nil && old.discovery != s.discovery {
		c.setGroupsLocked(nil, 140, s)
		c.forgetDestinationsLocked()
		c.warm.Store(false)
	}
	if c.resolver != nil {
		if s.discovery == old.discovery && c.resolver.same(s) {
			c.resolver.spec = s
		} else {
			c.resolver.stop()
			c.resolver = nil
		}
	}
	c.spec = s
	c.outlierChangedLocked(old, s)
	switch {
	case s.discovery == static:
		groups, err := c.groupsLocked(s.load)
		if err != nil {
			return err
		}
		c.setGroupsLocked(groups, overprovisioning(s.load), s)
		c.warm.Store(true)
	case s.byDestination():
		c.setGroupsLocked(nil, 140, s)
		c.warm.Store(true)
	default:
		c.rebuildLocked()
	}
	if (s.discovery == strictDNS || s.discovery == logicalDNS) && c.resolver == nil {
		c.resolver = c.resolve(s)
	}
	for _, h := range c.hosts {
		c.relinkLocked(h)
	}
	for _, h := range c.byDestination {
		c.relinkLocked(h)
	}
	return nil
}

// relinkLocked drains the connections of a host that are not made as they now
// should be.
func (c *Cluster) relinkLocked(h *Host) {
	if set := h.pools.Load(); set != nil && (set.link != c.spec.link || !set.socket.equal(c.spec.link.sockets.of(h))) {
		if h.pools.CompareAndSwap(set, newPools(h, c.spec.link)) {
			set.drain()
		}
	}
}

// assignLocked takes the endpoints of an EDS cluster.
func (c *Cluster) assignLocked(load *endpointv3.ClusterLoadAssignment) error {
	groups, err := c.groupsLocked(load)
	c.setGroupsLocked(groups, overprovisioning(load), c.spec)
	for _, h := range c.hosts {
		c.relinkLocked(h)
	}
	c.warm.Store(true)
	return err
}

func overprovisioning(load *endpointv3.ClusterLoadAssignment) uint32 {
	return number(load.GetPolicy().GetOverprovisioningFactor(), 140)
}

// setGroupsLocked makes groups the cluster's hosts; who is not in them any more is
// removed and drains.
func (c *Cluster) setGroupsLocked(groups [][]group, overprovision uint32, s *spec) {
	kept := map[string]*Host{}
	for _, p := range groups {
		for _, g := range p {
			for _, h := range g.hosts {
				kept[h.Address] = h
			}
		}
	}
	changed := false
	for address, h := range c.hosts {
		if kept[address] != h {
			c.removeLocked(h)
			changed = true
		}
	}
	for address, h := range kept {
		changed = changed || c.hosts[address] != h
	}
	if changed {
		c.stats.membershipChange.Add(1)
	}
	c.hosts, c.groups, c.overprovision = kept, groups, overprovision
	c.storeLocked(s)
}

func (c *Cluster) removeLocked(h *Host) {
	h.removed.Store(true)
	if h.ejected.Load() {
		c.ejected--
	}
	if set := h.pools.Load(); set != nil {
		set.drain()
	}
}

// rebuildLocked makes a new snapshot of what is known: after a change of health.
func (c *Cluster) rebuildLocked() { c.storeLocked(c.spec) }

func (c *Cluster) storeLocked(s *spec) {
	now := time.Now()
	snap := build(s, c.groups, c.overprovision, c.snap.Load(), now, c.seed)
	c.snap.Store(snap)
	if c.slow != nil {
		c.slow.Stop()
		c.slow = nil
	}
	if left := snap.slowUntil.Sub(now); left > 0 && !c.gone {
		c.slow = time.AfterFunc(left, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if !c.gone {
				c.rebuildLocked()
			}
		})
	}
}

// closeLocked ends all that the cluster has under way.
func (c *Cluster) closeLocked() {
	c.gone = true
	if c.resolver != nil {
		c.resolver.stop()
	}
	for _, t := range []*time.Timer{c.slow, c.sweeping} {
		if t != nil {
			t.Stop()
		}
	}
	for _, h := range c.hosts {
		c.removeLocked(h)
	}
	c.forgetDestinationsLocked()
}

func (c *Cluster) forgetDestinationsLocked() {
	for _, h := range c.byDestination {
		c.removeLocked(h)
	}
	c.byDestination = nil
}

func (c *Cluster) destinationsLocked() []*Host {
	out := make([]*Host, 0, len(c.byDestination))
	for _, h := range c.byDestination {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b *Host) int { return compare(a.Address, b.Address) })
	return out
}

// destination is the host that a request brings along.
func (c *Cluster) destination(s *snapshot, o Choice) (*Host, error) {
	if s.spec.discovery == forward {
		return c.forwarded(s, o)
	}
	if !o.Destination.IsValid() {
		c.stats.rqNoHost.Add(1)
		return nil, fmt.Errorf("%w: cluster %s needs the client's destination", ErrNoHost, c.name)
	}
	to := o.Destination
	if s.spec.portOverride != 0 && s.spec.discovery == originalDst {
		to = netip.AddrPortFrom(to.Addr(), s.spec.portOverride)
	}
	return c.hostFor(s, to, "")
}

// hostFor finds or makes the host of an address.
func (c *Cluster) hostFor(s *snapshot, to netip.AddrPort, name string) (*Host, error) {
	address := to.String()
	listener := ""
	if s.spec.discovery == internalOnly {
		listener = internalName(s.spec.load)
		address = "envoy://" + listener + "/" + address
	}
	// A name has hosts of its own: their connections are made for it.
	key := name + "|" + address
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.byDestination[key]
	if h == nil {
		if len(c.byDestination) >= maxDestinations && !c.evictLocked() {
			return nil, fmt.Errorf("%w: cluster %s has %d destinations", ErrNoHost, c.name, maxDestinations)
		}
		h = newHost(c, address)
		h.Dial, h.Hostname = to, name
		if listener != "" {
			var err error
			if h.tunnel, err = c.manager.tunnelFor(listener, to, nil); err != nil {
				return nil, err
			}
		}
		if c.byDestination == nil {
			c.byDestination = map[string]*Host{}
		}
		c.byDestination[key] = h
	}
	h.used.Store(time.Now().UnixNano())
	return h, nil
}

// evictLocked makes room for another destination: whoever names many must not keep
// others from theirs. Of some that nobody uses the one goes that was not asked for the
// longest.
func (c *Cluster) evictLocked() bool {
	const sample = 64
	oldest, seen := "", 0
	for key, h := range c.byDestination {
		if h.active.Load() == 0 && h.pending.Load() == 0 && (oldest == "" || h.used.Load() < c.byDestination[oldest].used.Load()) {
			oldest = key
		}
		if seen++; seen >= sample && oldest != "" {
			break
		}
	}
	if oldest == "" {
		return false
	}
	c.removeLocked(c.byDestination[oldest])
	delete(c.byDestination, oldest)
	return true
}

// sweepDestinations forgets hosts that nobody asked for lately.
func (c *Cluster) sweepDestinations(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, h := range c.byDestination {
		if h.active.Load() == 0 && h.stats.cxActive.Load() == 0 && now.UnixNano()-h.used.Load() > int64(max(c.spec.cleanup, time.Minute)) {
			c.removeLocked(h)
			delete(c.byDestination, key)
		}
	}
}
