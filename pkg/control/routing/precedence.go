package routing

import (
	"cmp"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// rank is the precedence of a match by the Gateway API; a greater one is tried
// first. It leaves open where regular expressions stand: here before prefixes, or
// one could never win from a "/".
type rank struct {
	path    int // exact 2, regular expression 1, prefix 0
	length  int // of the path, or of the service's name
	second  int // 1 with a method, or the length of the gRPC method's name
	headers int
	queries int
}

const (
	rankPrefix = iota
	rankRegex
	rankExact
)

func (r rank) compare(o rank) int {
	return cmp.Or(cmp.Compare(o.path, r.path), cmp.Compare(o.length, r.length), cmp.Compare(o.second, r.second),
		cmp.Compare(o.headers, r.headers), cmp.Compare(o.queries, r.queries))
}

// entry is one match of one rule of one route.
type entry struct {
	route *gatewayRoute
	rule  *gatewayRule
	match match
	rank  rank
}

// gatewayRoutes adds the routes of HTTPRoutes and GRPCRoutes of the service.
func (t *table) gatewayRoutes() {
	const consumerGRPC, consumerHTTP, producerGRPC, producerHTTP = 0, 1, 2, 3
	var phases [4][]entry
	for _, a := range t.attachments() {
		phase := producerHTTP
		if a.route.kind == kindGRPCRoute {
			phase = producerGRPC
		}
		if a.route.object.GetNamespace() != t.service.Namespace {
			phase -= producerGRPC
		}
		for _, r := range a.route.rules {
			for i, m := range r.matches {
				phases[phase] = append(phases[phase], entry{a.route, r, m, r.ranks[i]})
			}
		}
	}
	// Where both kinds are there, a GRPCRoute must not take other requests.
	mixed := len(phases[consumerGRPC])+len(phases[producerGRPC]) > 0 && len(phases[consumerHTTP])+len(phases[producerHTTP]) > 0
	for phase, entries := range phases {
		slices.SortStableFunc(entries, func(a, b entry) int { return a.rank.compare(b.rank) })
		actions := map[*gatewayRule]*forwarding{}
		for _, e := range entries {
			if t.closed {
				return
			}
			action := actions[e.rule]
			if action == nil {
				action = t.forward(&e.rule.rule)
				actions[e.rule] = action
			}
			m := e.match
			if consumer := phase <= consumerHTTP; consumer || mixed {
				m.envoy = copyMatch(m.envoy)
				if consumer {
					m.envoy.FilterState = append(m.envoy.FilterState, t.b.fromNamespace(e.route.object.GetNamespace()))
				}
				if mixed && (phase == consumerGRPC || phase == producerGRPC) {
					m.envoy.Grpc = &routev3.RouteMatch_GrpcRouteMatchOptions{}
				}
			}
			t.producer = t.producer || phase >= producerGRPC
			t.useMatch(&e.rule.rule, m, action)
		}
	}
}

// attachments are the routes of this port, the oldest first, each once.
func (t *table) attachments() []attachment {
	var out []attachment
	seen := map[*gatewayRoute]bool{}
	for _, a := range t.b.attached[t.service] {
		if (a.port == 0 || a.port == t.port.Number) && !seen[a.route] {
			seen[a.route] = true
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, func(x, y attachment) int {
		a, b := x.route.object.GetCreationTimestamp(), y.route.object.GetCreationTimestamp()
		return cmp.Or(a.Compare(b.Time), cmp.Compare(x.route.object.GetNamespace(), y.route.object.GetNamespace()), cmp.Compare(x.route.object.GetName(), y.route.object.GetName()))
	})
	return out
}
