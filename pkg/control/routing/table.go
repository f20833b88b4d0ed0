package routing

import (
	"fmt"
	"strconv"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// maxDirectResponseBody is what a direct response may hold, in bytes; Envoy's own
// default is 4 KiB.
const maxDirectResponseBody = 1 << 20

// table is the routes of one service port as they are collected.
type table struct {
	b            *Builder
	destinations Destinations
	service      *model.Service
	port         *model.Port
	routes       []*routev3.Route
	backends     map[Backend]bool
	// producer: there are routes for every caller, so that what none of them
	// matches is 404.
	producer bool
	// closed: a route before matches every request.
	closed bool
	notes  notes
	// traced routes name the operation that their spans show.
	traced bool
	// before is what was made of the rules in a state before, now what is in this one.
	before, now *memo
}

func (t *table) config() *routev3.RouteConfiguration {
	domains := []string{"*"}
	if wildcard(t.service.Hostname) {
		// Its hosts are looked up as they are called, so no others may be.
		domains = []string{t.service.Hostname}
	}
	return &routev3.RouteConfiguration{
		Name: envoy.ClusterName(envoy.HTTP, t.service.Hostname, t.port.Number, ""),
		VirtualHosts: []*routev3.VirtualHost{{
			Name: fmt.Sprintf("inbound|http|%d", t.port.Number), Domains: domains, Routes: t.routes,
		}},
		ValidateClusters:               wrapperspb.Bool(false),
		MaxDirectResponseBodySizeBytes: wrapperspb.UInt32(maxDirectResponseBody),
	}
}

func (t *table) add(r *routev3.Route) { t.routes = append(t.routes, r) }

var matchAll = &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}

// defaultRoute leads to the service itself.
func (t *table) defaultRoute() *routev3.Route {
	r := &rule{owner: &owner{title: t.service.Hostname}, name: "default", action: plainAction(t.b.defaultRetry()),
		destinations: []destination{{host: t.service.Hostname, service: t.service, port: t.port.Number, weight: 1}}}
	return t.route(r, match{envoy: matchAll}, t.forward(r))
}

// use adds the routes of a rule, as far as they are meant for the port; it tells
// whether there are any.
func (t *table) use(r *rule) (used bool) {
	for i, m := range r.matches {
		if m.port != 0 && m.port != t.port.Number || t.closed {
			continue
		}
		used = true
		t.useMatch(r, i, func(m match) match { return m })
	}
	return used
}

// routesOf are the routes of one match of a rule.
func (t *table) routesOf(r *rule, m match, action *forwarding) (out []*routev3.Route) {
	if len(r.parts) > 0 {
		return t.partRoutes(r, m, action)
	}
	if action.newcomers == nil {
		return []*routev3.Route{t.route(r, m, action)}
	}
	for _, known := range r.affinity.known(m.envoy) {
		out = append(out, t.route(r, match{envoy: known, name: m.name, stats: m.stats}, action))
	}
	newcomer := *action
	newcomer.route = action.newcomers
	route := t.route(r, m, &newcomer)
	route.ResponseHeadersToAdd = append(route.ResponseHeadersToAdd[:len(route.ResponseHeadersToAdd):len(route.ResponseHeadersToAdd)], r.affinity.setCookie())
	return append(out, route)
}

// route is one route of a rule.
func (t *table) route(r *rule, m match, f *forwarding) *routev3.Route {
	h := r.headers
	out := &routev3.Route{
		Name: r.name, Match: m.envoy, Metadata: r.owner.metadata, TypedPerFilterConfig: r.filters}
	if t.traced {
		out.Decorator = &routev3.Decorator{Operation: t.operation(r, m.envoy, f)}
	}
	if m.name != "" && r.name != "" {
		out.Name = r.name + "." + m.name
	}
	out.StatPrefix = m.stats
	switch {
	case r.redirect != nil:
		out.Action = &routev3.Route_Redirect{Redirect: r.redirect.at(t.port.Number)}
	case f.route != nil:
		out.Action, h = &routev3.Route_Route{Route: f.route}, f.headers
	default:
		out.Action = &routev3.Route_DirectResponse{DirectResponse: f.direct}
	}
	out.RequestHeadersToAdd, out.RequestHeadersToRemove = h.requestAdd, h.requestRemove
	out.ResponseHeadersToAdd, out.ResponseHeadersToRemove = h.responseAdd, h.responseRemove
	return out
}

// operation names a route's spans, as istiod does: the destination, or where
// there are several the object, the port and the path.
func (t *table) operation(r *rule, m *routev3.RouteMatch, f *forwarding) string {
	path := "/*"
	switch p := m.PathSpecifier.(type) {
	case *routev3.RouteMatch_Prefix:
		path = p.Prefix + "*"
	case *routev3.RouteMatch_Path:
		path = p.Path
	case *routev3.RouteMatch_SafeRegex:
		path = p.SafeRegex.Regex
	}
	host, port := r.owner.title, t.port.Number
	if f.single != nil {
		host, port = f.single.host, f.single.port
	}
	return host + ":" + strconv.FormatUint(uint64(port), 10) + path
}
