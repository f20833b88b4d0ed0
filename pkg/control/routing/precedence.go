package routing

import (
	"cmp"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
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
	// match is its number in the rule, order that among all entries.
	match, order int
}

func (e entry) compare(o entry) int {
	return cmp.Or(e.rule.ranks[e.match].compare(o.rule.ranks[o.match]), cmp.Compare(e.order, o.order))
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
			if !r.used() {
				continue
			}
			for i := range r.matches {
				phases[phase] = append(phases[phase], entry{a.route, r, i, len(phases[phase])})
			}
		}
	}
	// Where both kinds are there, a GRPCRoute must not take other requests.
	mixed := len(phases[consumerGRPC])+len(phases[producerGRPC]) > 0 && len(phases[consumerHTTP])+len(phases[producerHTTP]) > 0
	if t.now.mixed = mixed; t.before.mixed != mixed {
		t.before = &memo{}
	}
	for phase, entries := range phases {
		slices.SortFunc(entries, entry.compare)
		for _, e := range entries {
			if t.closed {
				return
			}
			t.producer = t.producer || phase >= producerGRPC && !e.route.invalid()
			t.useMatch(&e.rule.rule, e.match, func(m match) match {
				consumer := phase <= consumerHTTP
				if !consumer && !mixed {
					return m
				}
				m.envoy = copyMatch(m.envoy)
				if consumer {
					m.envoy.FilterState = append(m.envoy.FilterState, t.b.fromNamespace(e.route.object.GetNamespace()))
				}
				if mixed && (phase == consumerGRPC || phase == producerGRPC) {
					m.envoy.Grpc = &routev3.RouteMatch_GrpcRouteMatchOptions{}
				}
				return m
			})
		}
	}
}

// attachments are the routes of this port, the oldest first, each once.
func (t *table) attachments() []attachment {
	all := t.b.attached[t.service]
	out, seen := make([]attachment, 0, len(all)), make(map[*gatewayRoute]bool, len(all))
	for _, a := range all {
		if (a.port == 0 || a.port == t.port.Number) && !seen[a.route] {
			seen[a.route] = true
			out = append(out, a)
		}
	}
	return out
}

// attachTo puts an attachment after those at a service that are not younger.
func (b *Builder) attachTo(s *model.Service, a attachment) {
	all := b.attached[s]
	at, _ := slices.BinarySearchFunc(all, a, func(x, a attachment) int {
		return cmp.Or(compareAge(x.route.object, a.route.object), -1)
	})
	b.attached[s] = slices.Insert(all, at, a)
}
