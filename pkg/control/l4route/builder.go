package l4route

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/caller"
	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// Destinations is what DestinationRules say at one waypoint. Nil is that every
// subset is there.
type Destinations interface {
	HasSubset(s *model.Service, subset string) bool
}

// Builder translates the routes of one model. It is not safe for concurrent use.
type Builder struct {
	m *model.Model
	// tls and tcp are the rules of each service in their order.
	tls, tcp map[*model.Service][]*rule
	notes    map[status.Object][]string // what of a VirtualService is not in effect
	inEffect map[status.Object]bool     // VirtualServices that have tcp or tls rules
	routes   []*route
	callers  caller.Callers
	pods     bool // rules depend on pods
}

// DependsOnPods tells whether other pods may make other routes.
func (b *Builder) DependsOnPods() bool { return b.pods }

// rule is one way for connections.
type rule struct {
	// names are server names, exact or "*.suffix"; none is every connection.
	names []string
	// port is the only one of the service, or zero for all.
	port     uint32
	backends []backend
	say      owner
	// callers must all match the caller's identity, sources have its address if there
	// are any.
	callers []*matcherv3.StringMatcher
	sources []netip.Prefix
	// consumer: it is of another namespace, and for callers there alone.
	consumer bool
}

// restricted tells whether a rule is not for every caller.
func (r *rule) restricted() bool { return len(r.callers)+len(r.sources) > 0 }

// owner is told what becomes of its rule.
type owner interface {
	// missing: a destination is not there.
	missing(reason, message string)
	// hidden: the rule gets no connections of a port.
	hidden(message string)
	String() string
}

// New reads the routes of a model.
func New(m *model.Model) *Builder {
	b := &Builder{m: m, callers: caller.Callers{Objects: m.Objects, Domains: append([]string{m.TrustDomain}, m.TrustDomainAliases...)}, tls: map[*model.Service][]*rule{}, tcp: map[*model.Service][]*rule{}, notes: map[status.Object][]string{}, inEffect: map[status.Object]bool{}}
	for _, r := range oldest(m.Objects.TLSRoutes) {
		b.tlsRoute(r)
	}
	for _, r := range oldest(m.Objects.TCPRoutes) {
		b.tcpRoute(r)
	}
	for _, exact := range []bool{true, false} {
		for _, v := range oldest(m.Objects.VirtualServices) {
			b.virtualService(v, exact)
		}
	}
	for _, all := range []map[*model.Service][]*rule{b.tls, b.tcp} {
		for _, rules := range all {
			slices.SortStableFunc(rules, func(x, y *rule) int { return rank(x) - rank(y) })
		}
	}
	return b
}

// rank puts consumers' rules first.
func rank(r *rule) int {
	if r.consumer {
		return 0
	}
	return 1
}

// oldest orders objects by age, then by namespace and name.
func oldest[T metav1.Object](objects []T) []T {
	return slices.SortedStableFunc(slices.Values(objects), func(a, b T) int {
		at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
		return cmp.Or(at.Compare(bt.Time), cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
}

// carriesTLS tells whether a port's connections begin with a TLS hello.
func carriesTLS(p *model.Port) bool { return p.Protocol == model.TLS || p.Protocol == model.HTTPS }

// Streams are the routes of a port whose connections are not read as requests.
// There is always one: without rules, to the service itself.
func (b *Builder) Streams(d Destinations, s *model.Service, p *model.Port) envoy.Streams {
	t := &table{b: b, d: d, s: s, p: p, backends: map[envoy.Backend]bool{}}
	if carriesTLS(p) {
		t.byName(b.tls[s])
	}
	t.rest(b.tcp[s])
	slices.SortStableFunc(t.out.Routes, func(a, b envoy.Stream) int { return specific(a) - specific(b) })
	for backend := range t.backends {
		t.out.Backends = append(t.out.Backends, backend)
	}
	slices.SortFunc(t.out.Backends, func(a, b envoy.Backend) int {
		return cmp.Or(cmp.Compare(a.Service.Namespace, b.Service.Namespace), cmp.Compare(a.Service.Hostname, b.Service.Hostname), cmp.Compare(a.Port, b.Port))
	})
	return t.out
}

// specific orders streams: exact names, wildcards from the longest, those of some
// callers, all.
func specific(s envoy.Stream) int {
	switch {
	case len(s.ServerNames) == 0 && len(s.Callers)+len(s.Sources) == 0:
		return 1000
	case len(s.ServerNames) == 0:
		return 999
	case strings.HasPrefix(s.ServerNames[0], "*"):
		return 500 - len(s.ServerNames[0])
	}
	return 0
}

// table is the routes of one port in the making.
type table struct {
	b        *Builder
	d        Destinations
	s        *model.Service
	p        *model.Port
	out      envoy.Streams
	backends map[envoy.Backend]bool
	// closed: what no rule takes is closed, since there are rules for every caller.
	closed bool
}

func (t *table) stream(r *rule, names ...string) {
	t.out.Routes = append(t.out.Routes, envoy.Stream{ServerNames: names, Callers: r.callers, Sources: r.sources, Clusters: t.clusters(r)})
}

// byName adds the rules on server names, one stream per name. A name is the first
// rule's that is for every caller, and before it those are asked that are for some.
func (t *table) byName(rules []*rule) {
	claimed := map[string]*rule{}
	for _, r := range rules {
		if !t.applies(r) {
			continue
		}
		names := r.names
		if len(names) == 0 {
			names = []string{""}
		}
		for _, name := range names {
			if before := claimed[name]; before != nil {
				if before != r {
					r.say.hidden(nameOr(name) + " of port " + portText(t.p.Number) + " is decided by " + before.say.String())
				}
				continue
			}
			t.closed = t.closed || !r.consumer
			if !r.restricted() {
				claimed[name] = r
			}
			if name == "" {
				t.stream(r)
			} else {
				t.stream(r, name)
			}
		}
	}
}

func nameOr(name string) string {
	if name == "" {
		return "every server name"
	}
	return "the server name " + name
}

// rest adds the rules for connections that no name takes, and where these are not for
// every caller, or there are none at all, the service itself.
func (t *table) rest(rules []*rule) {
	every := slices.ContainsFunc(t.out.Routes, func(s envoy.Stream) bool { return len(s.ServerNames)+len(s.Callers)+len(s.Sources) == 0 })
	var used *rule
	for _, r := range rules {
		switch _, kubernetes := r.say.(*parent); {
		case carriesTLS(t.p) && !kubernetes: // tcp rules of a VirtualService are not for TLS
		case !t.applies(r):
		case every:
			r.say.hidden("a tls route takes every connection of port " + portText(t.p.Number))
		case used != nil:
			r.say.hidden("port " + portText(t.p.Number) + " is decided by " + used.say.String())
		default:
			if !r.restricted() {
				used = r
			}
			t.stream(r)
		}
	}
	if used == nil && !every && !t.closed {
		t.stream(&rule{backends: []backend{{service: t.s, port: t.p.Number, weight: 1}}})
	}
}

func (t *table) applies(r *rule) bool { return r.port == 0 || r.port == t.p.Number }
