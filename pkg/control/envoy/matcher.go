package envoy

import (
	"fmt"
	"net/netip"
	"strconv"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	inputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type (
	onMatch   = xdsmatcherv3.Matcher_OnMatch
	chainTree = xdsmatcherv3.Matcher
)

// byAddress chooses the chain of main_internal: by the address called, then by
// the port. An address is one service's, or a workload's own. What no address
// matches is closed.
type byAddress struct {
	g       *generator
	order   []netip.Prefix
	ports   map[netip.Prefix]map[uint32]*onMatch
	entries []*xdsmatcherv3.IPMatcher_IPRangeMatcher
}

// service leads a port of a service's addresses to a chain. Where two services
// have one address, the first counts for each port.
func (b *byAddress) service(addresses []netip.Prefix, port uint32, to *onMatch) {
	for _, a := range addresses {
		if b.ports[a] == nil {
			b.ports[a] = map[uint32]*onMatch{}
			b.order = append(b.order, a)
		}
		if b.ports[a][port] == nil {
			b.ports[a][port] = to
		}
	}
}

// workloads leads all ports of addresses to chains for requests and the rest,
// except for addresses that a service has.
func (b *byAddress) workloads(addresses []netip.Addr, http, tcp string) {
	var ranges []*xdscorev3.CidrRange
	for _, a := range addresses {
		p := netip.PrefixFrom(a, a.BitLen())
		if b.ports[p] == nil {
			ranges = append(ranges, cidr(p))
		}
	}
	if len(ranges) > 0 {
		b.entries = append(b.entries, &xdsmatcherv3.IPMatcher_IPRangeMatcher{Ranges: ranges, OnMatch: b.g.sniffed(http, b.g.chain(tcp))})
	}
}

func (b *byAddress) matcher() *chainTree {
	var entries []*xdsmatcherv3.IPMatcher_IPRangeMatcher
	for _, a := range b.order {
		byPort := map[string]*onMatch{}
		for port, to := range b.ports[a] {
			byPort[strconv.FormatUint(uint64(port), 10)] = to
		}
		entries = append(entries, &xdsmatcherv3.IPMatcher_IPRangeMatcher{
			Ranges:  []*xdscorev3.CidrRange{cidr(a)},
			OnMatch: b.g.tree("port", &inputsv3.DestinationPortInput{}, byPort, nil),
		})
	}
	entries = append(entries, b.entries...)
	return &chainTree{MatcherType: &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: &xdsmatcherv3.Matcher_MatcherTree{
		Input: b.g.input("ip", &inputsv3.DestinationIPInput{}),
		TreeType: &xdsmatcherv3.Matcher_MatcherTree_CustomMatch{CustomMatch: &xdscorev3.TypedExtensionConfig{
			Name: "ip", TypedConfig: b.g.pack(&xdsmatcherv3.IPMatcher{RangeMatchers: entries})}},
	}}}
}

func cidr(p netip.Prefix) *xdscorev3.CidrRange {
	return &xdscorev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))}
}

func (g *generator) input(name string, config proto.Message) *xdscorev3.TypedExtensionConfig {
	return &xdscorev3.TypedExtensionConfig{Name: name, TypedConfig: g.once("input "+name, func() proto.Message { return config })}
}

// tree looks an input up in a map.
func (g *generator) tree(name string, input proto.Message, values map[string]*onMatch, otherwise *onMatch) *onMatch {
	return nested(&chainTree{OnNoMatch: otherwise, MatcherType: &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: &xdsmatcherv3.Matcher_MatcherTree{
		Input:    g.input(name, input),
		TreeType: &xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap{ExactMatchMap: &xdsmatcherv3.Matcher_MatcherTree_MatchMap{Map: values}},
	}}})
}

func nested(m *chainTree) *onMatch {
	return &onMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Matcher{Matcher: m}}
}

// chain is the choice of a filter chain.
func (g *generator) chain(name string) *onMatch {
	return &onMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{Action: &xdscorev3.TypedExtensionConfig{
		Name: name, TypedConfig: g.pack(wrapperspb.String(name))}}}
}

// sniffed chooses by what the first bytes are.
func (g *generator) sniffed(http string, otherwise *onMatch) *onMatch {
	return g.tree("application-protocol", &inputsv3.ApplicationProtocolInput{},
		map[string]*onMatch{"'h2c'": g.chain(http), "'http/1.1'": g.chain(http)}, otherwise)
}

// chainPart names a further chain of a port.
func chainPart(name string, n int) string { return fmt.Sprintf("%s|%d", name, n) }
