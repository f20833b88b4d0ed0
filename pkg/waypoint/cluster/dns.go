package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	commondnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Family is which addresses of a name are wanted.
type Family uint8

// The families, as Envoy's DnsLookupFamily.
const (
	// PreferV6 is IPv6, or IPv4 if there is none: Envoy's AUTO.
	PreferV6 Family = iota
	OnlyV4
	OnlyV6
	PreferV4
	AllFamilies
)

// Addresses are a name's. TTL is the records' smallest, or 0: not known.
type Addresses struct {
	Addrs []netip.Addr
	TTL   time.Duration
}

// Envoy's defaults, and bounds of ours.
const (
	defaultRefresh = 5 * time.Second
	leastRefresh   = time.Second
	lookupTimeout  = 5 * time.Second
)

// resolution is how a DNS cluster resolves.
type resolution struct {
	family                   Family
	refresh, least           time.Duration
	failure, longest, jitter time.Duration // failure refresh: base, most
	respectTTL               bool
}

func resolutionOf(c *clusterv3.Cluster) (resolution, error) {
	r, err := familyOf(commondnsv3.DnsLookupFamily(c.GetDnsLookupFamily()) + 1) // the common enum has UNSPECIFIED first
	r.refresh = duration(c.GetDnsRefreshRate(), defaultRefresh)                 //nolint:staticcheck // istiod sends it
	r.jitter = c.GetDnsJitter().AsDuration()                                    //nolint:staticcheck // as above
	r.respectTTL = c.GetRespectDnsTtl()                                         //nolint:staticcheck // as above
	r.failing(c.GetDnsFailureRefreshRate())                                     //nolint:staticcheck // as above
	return r, err
}

// refreshRate is of both generations of the API.
type refreshRate interface {
	GetBaseInterval() *durationpb.Duration
	GetMaxInterval() *durationpb.Duration
}

func (r *resolution) failing(rate refreshRate) {
	r.failure = duration(rate.GetBaseInterval(), r.refresh)
	r.longest = duration(rate.GetMaxInterval(), 10*r.failure)
}

func familyOf[T ~int32](f T) (r resolution, err error) {
	r.refresh = defaultRefresh
	switch commondnsv3.DnsLookupFamily(f) {
	case commondnsv3.DnsLookupFamily_UNSPECIFIED, commondnsv3.DnsLookupFamily_AUTO:
		r.family = PreferV6
	case commondnsv3.DnsLookupFamily_V4_ONLY:
		r.family = OnlyV4
	case commondnsv3.DnsLookupFamily_V6_ONLY:
		r.family = OnlyV6
	case commondnsv3.DnsLookupFamily_V4_PREFERRED:
		r.family = PreferV4
	case commondnsv3.DnsLookupFamily_ALL:
		r.family = AllFamilies
	default:
		return r, fmt.Errorf("%d is not a lookup family", f)
	}
	return r, nil
}

// customDNS is the cluster type envoy.cluster.dns.
func (s *spec) customDNS(c *clusterv3.Cluster, m proto.Message) (err error) {
	d, ok := m.(*dnsv3.DnsCluster)
	if !ok {
		return fmt.Errorf("%s is not supported", m.ProtoReflect().Descriptor().FullName())
	}
	s.discovery = strictDNS
	if d.GetAllAddressesInSingleEndpoint() {
		if s.discovery = logicalDNS; endpoints(c.GetLoadAssignment()) != 1 {
			return errors.New("all_addresses_in_single_endpoint needs exactly one endpoint")
		}
	}
	s.dns, err = familyOf(d.GetDnsLookupFamily())
	s.dns.refresh = duration(d.GetDnsRefreshRate(), defaultRefresh)
	s.dns.least = d.GetDnsMinRefreshRate().AsDuration()
	s.dns.jitter = d.GetDnsJitter().AsDuration()
	s.dns.respectTTL = d.GetRespectDnsTtl()
	s.dns.failing(d.GetDnsFailureRefreshRate())
	return err
}

// resolver keeps a DNS cluster's hosts up to date.
type resolver struct {
	cluster *Cluster
	spec    *spec // the cluster's mu guards it
	cancel  context.CancelFunc
	known   map[string][]netip.Addr
}

// resolve starts the cluster's resolver.
func (c *Cluster) resolve(s *spec) *resolver {
	ctx, cancel := context.WithCancel(context.Background())
	r := &resolver{cluster: c, spec: s, cancel: cancel, known: map[string][]netip.Addr{}}
	go r.run(ctx)
	return r
}

func (r *resolver) same(s *spec) bool { return r.spec.dns == s.dns && proto.Equal(r.spec.load, s.load) }

func (r *resolver) stop() { r.cancel() }

// run resolves until the cluster stops it.
func (r *resolver) run(ctx context.Context) {
	failures := 0
	for {
		ttl, err := r.once(ctx)
		d := r.spec0().dns
		next := d.refresh
		switch {
		case err != nil:
			if failures = min(failures+1, 16); d.failure > 0 {
				next = min(d.failure<<(failures-1), max(d.longest, d.failure))
			}
		case d.respectTTL && ttl > 0:
			failures, next = 0, ttl
		default:
			failures = 0
		}
		next = max(next, d.least, leastRefresh)
		if d.jitter > 0 {
			next += rand.N(d.jitter) //nolint:gosec // spread
		}
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func (r *resolver) spec0() *spec {
	r.cluster.mu.Lock()
	defer r.cluster.mu.Unlock()
	return r.spec
}

// once resolves all names. A name that cannot be resolved keeps its addresses.
func (r *resolver) once(ctx context.Context) (ttl time.Duration, err error) {
	c, s := r.cluster, r.spec0()
	for _, l := range s.load.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			name := e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()
			if _, fixed := netip.ParseAddr(name); fixed == nil {
				continue
			}
			c.stats.dnsAttempt.Add(1)
			found, lookup := c.manager.lookup(ctx, name, s.dns.family)
			if lookup != nil {
				c.stats.dnsFailure.Add(1)
				err = errors.Join(err, lookup)
				continue
			}
			c.stats.dnsSuccess.Add(1)
			if found.TTL > 0 && (ttl == 0 || found.TTL < ttl) {
				ttl = found.TTL
			}
			r.known[name] = found.Addrs
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil || c.gone {
		return ttl, err
	}
	groups, bad := c.groupsLocked(r.assignment(r.spec))
	if bad != nil {
		c.manager.warn(c.name, bad.Error())
	}
	c.setGroupsLocked(groups, overprovisioning(r.spec.load), c.spec)
	c.warm.Store(true)
	return ttl, err
}

// assignment is the cluster's with addresses in the place of names.
func (r *resolver) assignment(s *spec) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: s.name}
	for _, l := range s.load.GetEndpoints() {
		to := proto.Clone(l).(*endpointv3.LocalityLbEndpoints)
		to.LbEndpoints = nil
		for _, e := range l.GetLbEndpoints() {
			if e.GetEndpoint().GetAddress().GetSocketAddress() == nil {
				continue // it names nobody
			}
			name := e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()
			addrs := r.known[name]
			if a, err := netip.ParseAddr(name); err == nil {
				addrs = []netip.Addr{a}
			}
			if s.discovery == logicalDNS && len(addrs) > 1 {
				addrs = addrs[:1] // new connections go to the first
			}
			for _, a := range addrs {
				one := proto.Clone(e).(*endpointv3.LbEndpoint)
				one.GetEndpoint().GetAddress().GetSocketAddress().Address = a.String()
				if one.GetEndpoint().GetHostname() == "" {
					one.GetEndpoint().Hostname = name
				}
				to.LbEndpoints = append(to.LbEndpoints, one)
			}
		}
		out.Endpoints = append(out.Endpoints, to)
	}
	return out
}

// lookup asks the resolver, within a time.
func (m *Manager) lookup(ctx context.Context, name string, f Family) (Addresses, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	resolve := m.o.Resolve
	if resolve == nil {
		resolve = system
	}
	found, err := resolve(ctx, name, f)
	if err == nil && len(found.Addrs) == 0 {
		err = fmt.Errorf("%s has no address", name)
	}
	return found, err
}

// system asks the operating system's resolver; TTLs are not known.
func system(ctx context.Context, name string, f Family) (Addresses, error) {
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return Addresses{}, err
	}
	return Addresses{Addrs: f.of(all)}, nil
}

// of is what a family wants of a name's addresses, sorted.
func (f Family) of(all []netip.Addr) []netip.Addr {
	var v4, v6 []netip.Addr
	for _, a := range all {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	slices.SortFunc(v4, netip.Addr.Compare)
	slices.SortFunc(v6, netip.Addr.Compare)
	switch {
	case f == OnlyV4, f == PreferV4 && len(v4) > 0:
		return v4
	case f == OnlyV6, f == PreferV6 && len(v6) > 0:
		return v6
	case f == AllFamilies:
		return append(v6, v4...)
	case f == PreferV6:
		return v4
	}
	return v6
}

// forwarded is the host of a dynamic forward proxy: what the request's authority
// names.
func (c *Cluster) forwarded(s *snapshot, o Choice) (*Host, error) {
	host, port := o.Authority, "80"
	if s.spec.link.sockets.first.secure != nil {
		port = "443"
	}
	if h, p, err := net.SplitHostPort(o.Authority); err == nil {
		host, port = h, p
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if host == "" || err != nil {
		return nil, fmt.Errorf("%w: %q is not a host to forward to", ErrNoHost, o.Authority)
	}
	host = strings.Clone(host) // it is kept, and stands in a connection's buffer
	addr, err := c.forwardTo(host, s.spec.dns)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoHost, err)
	}
	return c.hostFor(s, netip.AddrPortFrom(addr, uint16(n)), host)
}

// resolved is what a name of a dynamic forward proxy was resolved to.
type resolved struct {
	addr  netip.Addr
	until time.Time
}

// forwardTo resolves a name, once per refresh; where that fails, the old address is
// taken.
func (c *Cluster) forwardTo(name string, r resolution) (netip.Addr, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr, nil
	}
	c.mu.Lock()
	known, ok := c.forwards[name]
	c.mu.Unlock()
	now := time.Now()
	if ok && now.Before(known.until) {
		return known.addr, nil
	}
	c.stats.dnsAttempt.Add(1)
	found, err := c.manager.lookup(context.Background(), name, r.family)
	if err != nil {
		c.stats.dnsFailure.Add(1)
		if !ok {
			return netip.Addr{}, err
		}
		found.Addrs = []netip.Addr{known.addr}
	} else {
		c.stats.dnsSuccess.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.forwards) >= maxDestinations {
		clear(c.forwards)
	}
	if c.forwards == nil {
		c.forwards = map[string]resolved{}
	}
	c.forwards[name] = resolved{found.Addrs[0], now.Add(max(r.refresh, leastRefresh))}
	return found.Addrs[0], nil
}
