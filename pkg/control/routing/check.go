package routing

import (
	"fmt"
	"maps"
	"regexp/syntax"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networkingapi "istio.io/api/networking/v1alpha3"
)

// checkPatterns fails the object for a regular expression that is none: sent, it
// would make the waypoint refuse the routes of everyone.
func (p *preparer) checkPatterns(path string, h *networkingapi.HTTPRoute) {
	one := func(at string, m *networkingapi.StringMatch) {
		if text := m.GetRegex(); text != "" && text != "*" {
			if err := p.b.pattern(text); err != nil {
				p.fail(at+".regex", "%v", err)
			}
		}
	}
	set := func(at string, all map[string]*networkingapi.StringMatch) {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			one(fmt.Sprintf("%s[%s]", at, name), all[name])
		}
	}
	for i, m := range h.GetMatch() {
		at := fmt.Sprintf("%s.match[%d]", path, i)
		one(at+".uri", m.GetUri())
		one(at+".scheme", m.GetScheme())
		one(at+".method", m.GetMethod())
		one(at+".authority", m.GetAuthority())
		set(at+".headers", m.GetHeaders())
		set(at+".withoutHeaders", m.GetWithoutHeaders())
		set(at+".queryParams", m.GetQueryParams())
	}
	for i, o := range h.GetCorsPolicy().GetAllowOrigins() {
		one(fmt.Sprintf("%s.corsPolicy.allowOrigins[%d]", path, i), o)
	}
	if r := h.GetRewrite().GetUriRegexRewrite(); r != nil {
		if err := p.b.pattern(r.GetMatch()); err != nil {
			p.fail(path+".rewrite.uriRegexRewrite.match", "%v", err)
		} else if err := substitution(r.GetMatch(), r.GetRewrite()); err != nil {
			p.fail(path+".rewrite.uriRegexRewrite.rewrite", "%v", err)
		}
	}
}

// substitution checks that what takes the place of a match refers to groups that
// are there: otherwise nothing would be replaced, without a word.
func substitution(pattern, with string) error {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return err
	}
	for i := 0; i < len(with); i++ {
		if with[i] != '\\' {
			continue
		}
		i++
		switch {
		case i == len(with):
			return fmt.Errorf(`%q ends in a backslash: write \\ for one`, with)
		case with[i] == '\\':
		case with[i] < '0' || with[i] > '9':
			return fmt.Errorf(`%q: a backslash stands before the number of a group, or another backslash`, with)
		case int(with[i]-'0') > parsed.MaxCap():
			return fmt.Errorf(`%q refers to group %c, but %q has %d`, with, with[i], pattern, parsed.MaxCap())
		}
	}
	return nil
}

// validate holds a rule against the constraints of Envoy's own types.
func (r *rule) validate(destinations []destination) error {
	for _, m := range r.matches {
		if err := m.envoy.ValidateAll(); err != nil {
			return err
		}
	}
	out := &routev3.Route{Match: matchAll, TypedPerFilterConfig: r.filters,
		RequestHeadersToAdd: r.headers.requestAdd, ResponseHeadersToAdd: r.headers.responseAdd,
		RequestHeadersToRemove: r.headers.requestRemove, ResponseHeadersToRemove: r.headers.responseRemove}
	switch {
	case r.redirect != nil:
		out.Action = &routev3.Route_Redirect{Redirect: r.redirect.action}
	case r.direct != nil:
		out.Action = &routev3.Route_DirectResponse{DirectResponse: r.direct}
	default:
		a := copyAction(r.action)
		if r.headers.host != "" {
			a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: r.headers.host}
		}
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: unknownService}
		if len(destinations) > 1 {
			a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted(destinations, false)}
		}
		out.Action = &routev3.Route_Route{Route: a}
	}
	return out.Validate()
}
