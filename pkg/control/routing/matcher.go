package routing

import (
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	networkingapi "istio.io/api/networking/v1alpha3"
)

func exactMatcher(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func prefixMatcher(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s}}
}

func regexMatcher(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(s)}}
}

func regex(s string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: s} }

// stringMatcher is one of Istio's; nil stands for "is there".
func stringMatcher(m *networkingapi.StringMatch) *matcherv3.StringMatcher {
	switch v := m.GetMatchType().(type) {
	case *networkingapi.StringMatch_Exact:
		return exactMatcher(v.Exact)
	case *networkingapi.StringMatch_Prefix:
		return prefixMatcher(v.Prefix)
	case *networkingapi.StringMatch_Regex:
		return regexMatcher(v.Regex)
	}
	return nil
}

// anyValue tells whether a match holds for every value: istio's "is there".
func anyValue(m *networkingapi.StringMatch) bool {
	return m.GetMatchType() == nil || m.GetRegex() == "*"
}

// headerMatcher matches a header that must be there, or not be as said: withoutHeaders
// holds for a header that is missing, unless it is asked to be missing.
func headerMatcher(name string, m *networkingapi.StringMatch, without bool) *routev3.HeaderMatcher {
	out := &routev3.HeaderMatcher{Name: name, InvertMatch: without}
	if anyValue(m) {
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
		return out
	}
	out.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: stringMatcher(m)}
	out.TreatMissingHeaderAsEmpty = without
	return out
}

// envoyMatch is a match but for the caller. It is nil where nothing can match.
func envoyMatch(c condition) *routev3.RouteMatch {
	out := &routev3.RouteMatch{PathSpecifier: matchAll.PathSpecifier}
	if c.empty() {
		return out
	}
	out.CaseSensitive = yes
	for _, uri := range c.uris {
		switch v := uri.GetMatchType().(type) {
		case *networkingapi.StringMatch_Exact:
			out.PathSpecifier = &routev3.RouteMatch_Path{Path: v.Exact}
		case *networkingapi.StringMatch_Prefix:
			out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: v.Prefix}
		case *networkingapi.StringMatch_Regex:
			out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex(v.Regex)}
		}
	}
	if c.ignoreCase {
		out.CaseSensitive = no
		if r, ok := out.PathSpecifier.(*routev3.RouteMatch_SafeRegex); ok {
			out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex("(?i)" + r.SafeRegex.Regex)}
		}
	}
	for _, set := range c.headers {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			out.Headers = append(out.Headers, headerMatcher(name, set[name], false))
		}
	}
	for _, set := range c.withoutHeaders {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			out.Headers = append(out.Headers, headerMatcher(name, set[name], true))
		}
	}
	for _, pseudo := range []struct {
		name    string
		matches []*networkingapi.StringMatch
	}{{":method", c.methods}, {":authority", c.authorities}, {":scheme", c.schemes}} {
		for _, m := range pseudo.matches {
			if !anyValue(m) {
				out.Headers = append(out.Headers, headerMatcher(pseudo.name, m, false))
			}
		}
	}
	for _, set := range c.queries {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			out.QueryParameters = append(out.QueryParameters, queryMatcher(name, set[name]))
		}
	}
	return out
}

func queryMatcher(name string, m *networkingapi.StringMatch) *routev3.QueryParameterMatcher {
	if anyValue(m) {
		return &routev3.QueryParameterMatcher{Name: name, QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}}
	}
	return &routev3.QueryParameterMatcher{Name: name, QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: stringMatcher(m)}}
}

// millionths is a share.
func millionths(n uint32) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: n, Denominator: typev3.FractionalPercent_MILLION}
}
