package routing

import (
	"fmt"
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// million is the denominator of a part's share.
const million = 1_000_000

// part is a rule for a share of the requests. A route's weighted clusters tell no more
// apart than headers and the host, so that a backend with other filters gets routes of
// its own: matches with a fraction of the requests. Envoy holds one random number of a
// request against all of them, so the fractions of those before are in each.
type part struct {
	*rule
	// until is the share of it and of the parts before, in millionths.
	until uint32
}

// backendFilter is a filter of one backend that weighted clusters have no field for.
type backendFilter struct {
	path   string
	filter gatewayv1.HTTPRouteFilter
}

// backend adds a backend of the rule. What its filters do beyond headers is left for
// split, when the rule is whole.
func (f *filters) backend(d backendRef, filters []gatewayv1.HTTPRouteFilter) {
	for i, in := range filters {
		path := fmt.Sprintf("%s.filters[%d]", d.path, i)
		switch {
		case in.RequestHeaderModifier != nil:
			d.headers = d.headers.with(f.headers(path+".requestHeaderModifier", in.RequestHeaderModifier, true))
		case in.ResponseHeaderModifier != nil:
			d.headers = d.headers.with(f.headers(path+".responseHeaderModifier", in.ResponseHeaderModifier, false))
		case in.URLRewrite != nil && in.URLRewrite.Path == nil && in.URLRewrite.Hostname != nil:
			d.headers.host = string(*in.URLRewrite.Hostname)
		default:
			d.own = append(d.own, backendFilter{path, in})
		}
	}
	f.rule.refs = append(f.rule.refs, d)
}

// split ends a rule: where backends have filters of their own, each becomes a part.
func (f *filters) split() {
	g := f.rule
	i := slices.IndexFunc(g.refs, func(r backendRef) bool { return len(r.own) > 0 })
	switch {
	case i < 0 || g.action == nil:
		return
	case len(g.refs) == 1: // as good as filters of the rule
		for _, own := range g.refs[0].own {
			f.add(own.path, own.filter)
		}
		return
	case g.affinity != nil:
		f.route.refuse("%s.type: of several backends one alone cannot have a filter of type %s where sessionPersistence chooses between them: put it into the rule, or give the backend a rule of its own",
			g.refs[i].own[0].path, g.refs[i].own[0].filter.Type)
		return
	}
	for _, ref := range g.refs {
		if ref.weight > 0 {
			g.pieces = append(g.pieces, f.piece(ref))
		}
	}
}

// piece is the rule for one of its backends.
func (f *filters) piece(ref backendRef) *gatewayRule {
	out := *f.rule
	out.refs, out.pieces, out.unserved = []backendRef{ref}, nil, 0
	out.copies, out.filters = slices.Clone(out.copies), maps.Clone(out.filters)
	out.action = copyAction(out.action)
	own := &filters{route: f.route, rule: &out, matches: f.matches}
	for _, one := range ref.own {
		own.add(one.path, one.filter)
	}
	f.rule.unserved += out.unserved
	return &out
}

// setParts gives the rule the parts that its pieces, which are bound, have become.
func (g *gatewayRule) setParts() {
	g.parts = nil
	var total, sum uint64
	for _, p := range g.pieces {
		total += uint64(p.refs[0].weight)
	}
	for _, p := range g.pieces {
		sum += uint64(p.refs[0].weight)
		g.parts = append(g.parts, part{&p.rule, uint32((sum*million + total/2) / total)})
	}
}

// of is a match for a share of the requests; the last part takes all that are left.
func (p part) of(m match) match {
	if p.until < million {
		m.envoy = copyMatch(m.envoy)
		m.envoy.RuntimeFraction = fraction(p.until)
	}
	return m
}

// partRoutes are the routes of one match of a rule that has parts.
func (t *table) partRoutes(r *rule, m match, action *forwarding) (out []*routev3.Route) {
	for i, p := range r.parts {
		out = append(out, t.routesOf(p.rule, p.of(m), action.parts[i])...)
	}
	return out
}
