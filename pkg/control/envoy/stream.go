package envoy

import (
	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	inputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	ipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/ip/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// restricted tells whether a stream does not match every connection.
func (s *Stream) restricted() bool { return len(s.ServerNames)+len(s.Callers)+len(s.Sources) > 0 }

// chainOf is the chain of a restricted stream.
type chainOf struct {
	stream *Stream
	chain  string
}

type predicate = xdsmatcherv3.Matcher_MatcherList_Predicate

// byCondition chooses by the name in a TLS client hello, who calls, and from where: the
// first stream of which all hold.
func (g *generator) byCondition(chains []chainOf, otherwise *onMatch) *onMatch {
	list := &xdsmatcherv3.Matcher_MatcherList{}
	for _, c := range chains {
		var all []*predicate
		if len(c.stream.ServerNames) > 0 {
			all = append(all, g.serverName(c.stream.ServerNames))
		}
		for _, m := range c.stream.Callers {
			all = append(all, single(g.input("caller", &inputsv3.FilterStateInput{Key: statePeerPrincipal}), callerMatch(m)))
		}
		if len(c.stream.Sources) > 0 {
			all = append(all, g.source(c.stream))
		}
		one := all[0]
		if len(all) > 1 {
			one = &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_AndMatcher{AndMatcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList{Predicate: all}}}
		}
		list.Matchers = append(list.Matchers, &xdsmatcherv3.Matcher_MatcherList_FieldMatcher{Predicate: one, OnMatch: g.chain(c.chain)})
	}
	return nested(&chainTree{OnNoMatch: otherwise, MatcherType: &xdsmatcherv3.Matcher_MatcherList_{MatcherList: list}})
}

func single(input *xdscorev3.TypedExtensionConfig, match *xdsmatcherv3.StringMatcher) *predicate {
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: input, Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: match}}}}
}

// serverName holds for any of exact names and suffixes.
func (g *generator) serverName(names []string) *predicate {
	var any []*predicate
	for _, name := range names {
		match := &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_Exact{Exact: name}}
		if name[0] == '*' {
			match.MatchPattern = &xdsmatcherv3.StringMatcher_Suffix{Suffix: name[1:]}
		}
		any = append(any, single(g.input("server-name", &inputsv3.ServerNameInput{}), match))
	}
	if len(any) == 1 {
		return any[0]
	}
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_OrMatcher{OrMatcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList{Predicate: any}}}
}

// source holds for callers' addresses.
func (g *generator) source(s *Stream) *predicate {
	list := &ipv3.Ip{StatPrefix: "source"}
	for _, p := range s.Sources {
		list.CidrRanges = append(list.CidrRanges, &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))})
	}
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: g.input("source", &inputsv3.SourceIPInput{}),
			Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_CustomMatch{CustomMatch: &xdscorev3.TypedExtensionConfig{
				Name: "envoy.matching.matchers.ip", TypedConfig: g.pack(proto.Message(list))}}}}}
}

// callerMatch is Envoy's matcher as xDS writes it.
func callerMatch(m *matcherv3.StringMatcher) *xdsmatcherv3.StringMatcher {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_Exact{Exact: p.Exact}}
	case *matcherv3.StringMatcher_Prefix:
		return &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_Prefix{Prefix: p.Prefix}}
	}
	return &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_SafeRegex{SafeRegex: &xdsmatcherv3.RegexMatcher{
		Regex: m.GetSafeRegex().GetRegex(), EngineType: &xdsmatcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &xdsmatcherv3.RegexMatcher_GoogleRE2{}}}}}
}
