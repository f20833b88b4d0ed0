package envoy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// mainInternal is the listener behind the tunnels: a filter chain per service
// port, and those for workloads' own addresses.
func (g *generator) mainInternal() {
	l := &listenerv3.Listener{
		Name: mainInternal, TrafficDirection: corev3.TrafficDirection_INBOUND,
		ListenerSpecifier: &listenerv3.Listener_InternalListener{InternalListener: &listenerv3.Listener_InternalListenerConfig{}},
	}
	tree := &byAddress{g: g, ports: map[netip.Prefix]map[uint32]*onMatch{}}
	seen := portUse{ports: map[uint32]model.Protocol{}, http: map[uint32]bool{}, tls: map[uint32]bool{}}
	for _, s := range g.w.Services {
		for _, p := range s.Ports {
			if s.Headless() || !g.carries(s, &p) {
				continue
			}
			chains, to := g.servicePort(s, &p)
			l.FilterChains = append(l.FilterChains, chains...)
			tree.service(s.Addresses, p.Number, to)
			seen.add(&p)
		}
	}
	l.FilterChains = append(l.FilterChains, g.direct(tree)...)
	l.FilterChainMatcher = tree.matcher()
	l.ListenerFilters = g.inspectors(seen)
	if !g.o.IstioExtensions {
		l.ListenerFiltersTimeout = durationpb.New(g.m.DetectionTimeout())
		l.ContinueOnListenerFiltersTimeout = true
	}
	g.listener(l)
}

// portUse is which ports need their first bytes looked at.
type portUse struct {
	ports     map[uint32]model.Protocol
	http, tls map[uint32]bool
}

func (u portUse) add(p *model.Port) {
	u.ports[p.Number] = p.Protocol
	u.http[p.Number] = u.http[p.Number] || p.Protocol == model.Unsupported
	u.tls[p.Number] = u.tls[p.Number] || namesServer(p)
}

func (g *generator) inspectors(u portUse) []*listenerv3.ListenerFilter {
	var noHTTP, noTLS []uint32
	for _, port := range slices.Sorted(maps.Keys(u.ports)) {
		if !u.http[port] && len(g.w.Workloads) == 0 {
			noHTTP = append(noHTTP, port)
		}
		if !u.tls[port] {
			noTLS = append(noTLS, port)
		}
	}
	inspector := func(name string, config proto.Message, not []uint32) *listenerv3.ListenerFilter {
		return &listenerv3.ListenerFilter{Name: name, FilterDisabled: onPorts(not), ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: g.pack(config)}}
	}
	out := []*listenerv3.ListenerFilter{g.originalDst(), inspector("envoy.filters.listener.http_inspector", &httpinspectorv3.HttpInspector{}, noHTTP)}
	if len(noTLS) < len(u.ports) {
		out = append(out, inspector("envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{InitialReadBufferSize: u32(512)}, noTLS))
	}
	return out
}

func onPorts(ports []uint32) *listenerv3.ListenerFilterChainMatchPredicate {
	var rules []*listenerv3.ListenerFilterChainMatchPredicate
	for _, p := range ports {
		rules = append(rules, &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
			DestinationPortRange: &typev3.Int32Range{Start: int32(p), End: int32(p) + 1}}})
	}
	switch len(rules) {
	case 0:
		return nil
	case 1:
		return rules[0]
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
		OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: rules}}}
}

// direct are the chains for workloads' own addresses: one pair, or one for each
// identity that may answer, so that it is checked.
func (g *generator) direct(tree *byAddress) []*listenerv3.FilterChain {
	if g.o.IstioExtensions {
		tree.workloads(addressesOf(g.w.Workloads), "direct-http", "direct-tcp")
		return []*listenerv3.FilterChain{g.directChain(TCP, "direct-tcp", encap), g.directChain(HTTP, "direct-http", encap)}
	}
	groups := map[string][]*model.Endpoint{}
	for _, e := range g.w.Workloads {
		if !e.Address.IsValid() {
			continue // one that is known by name has no address to be called at
		}
		suffix := ""
		if e.Tunnel {
			suffix = "|" + e.Namespace + "|" + account(e)
		}
		groups[suffix] = append(groups[suffix], e)
	}
	var chains []*listenerv3.FilterChain
	for _, suffix := range slices.Sorted(maps.Keys(groups)) {
		members := groups[suffix]
		slices.SortFunc(members, func(a, b *model.Endpoint) int { return cmp.Compare(a.Name, b.Name) })
		cluster := encap + suffix
		if suffix == "" {
			cluster = g.plainCluster()
		} else {
			g.cluster(g.internalCluster(cluster, connectOriginate, g.identityMetadata(members[0])))
		}
		tree.workloads(addressesOf(members), "direct-http"+suffix, "direct-tcp"+suffix)
		chains = append(chains, g.directChain(TCP, "direct-tcp"+suffix, cluster), g.directChain(HTTP, "direct-http"+suffix, cluster))
	}
	return chains
}

func addressesOf(workloads []*model.Endpoint) []netip.Addr {
	var out []netip.Addr
	for _, e := range workloads {
		if e.Address.IsValid() {
			out = append(append(out, e.Address), e.MoreAddresses...)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
