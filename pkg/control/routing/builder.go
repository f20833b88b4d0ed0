package routing

import (
	"cmp"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/caller"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// PrincipalKey is the filter state object that holds the caller's SPIFFE ID. It
// must be hashable.
const PrincipalKey = caller.StateKey

// Destinations is what DestinationRules say at one waypoint. Nil is no rules.
type Destinations interface {
	// HashPolicies are those of a destination's consistent hash.
	HashPolicies(s *model.Service, port uint32, subset string) []*routev3.RouteAction_HashPolicy
	// HasSubset tells whether a rule defines a subset.
	HasSubset(s *model.Service, subset string) bool
}

// Backend is one cluster that routes lead to.
type Backend struct {
	Service *model.Service
	Port    uint32
	Subset  string
	// Hashed: the route asks for session persistence, so that the cluster is to
	// balance by the route's hash (maglev or ring hash) unless a rule says else.
	Hashed bool
}

// Builder translates the routes of one model. It is not safe for concurrent use.
type Builder struct {
	model *model.Model
	// hosts are services by host name, kubernetes by namespace and name, entries by
	// the ServiceEntry they come from.
	hosts      map[string][]*model.Service
	kubernetes map[model.Key]*model.Service
	entries    map[model.Key][]*model.Service

	// virtuals are in the order of their use. Of all, impure are not pure.
	virtuals map[*model.Service][]candidate
	impure   int
	// delegated are those that others delegate to, with the first that does.
	delegated map[model.Key]string
	attached  map[*model.Service][]attachment
	// kept and routes are translations by their objects.
	kept   map[*networkingv1.VirtualService]*virtual
	routes map[metav1.Object]*gatewayRoute
	// statuses are what is to be said of objects, but for notes.
	statuses map[status.Object]*status.Status
	// notes are what HTTP found at each port that it was last called for.
	notes map[portKey]notes
	// memos are what HTTP made at each port, for each kind of client.
	memos    map[portKey][]*memo
	patterns map[string]error
	// domains are the names of the mesh's trust domain.
	domains       []string
	standardRetry *routev3.RetryPolicy

	// version counts the states; changes are the services whose routes changed with
	// each since the oldest that is known.
	version, oldest uint64
	changes         []change
}

// New indexes a model. What previous, which may be nil, has translated of
// objects that are still the same is used again: where little else has changed but
// some routes, it is previous itself that is returned, as of the new model.
func New(m *model.Model, previous *Builder) *Builder {
	if previous != nil && previous.update(m) {
		return previous
	}
	b := &Builder{
		model: m, hosts: map[string][]*model.Service{}, kubernetes: map[model.Key]*model.Service{}, entries: map[model.Key][]*model.Service{},
		virtuals: map[*model.Service][]candidate{}, attached: map[*model.Service][]attachment{},
		kept: map[*networkingv1.VirtualService]*virtual{}, routes: map[metav1.Object]*gatewayRoute{}, statuses: map[status.Object]*status.Status{}, notes: map[portKey]notes{}, memos: map[portKey][]*memo{}, patterns: map[string]error{},
		domains: append([]string{m.TrustDomain}, m.TrustDomainAliases...),
	}
	for _, s := range m.Services {
		b.hosts[s.Hostname] = append(b.hosts[s.Hostname], s)
		switch {
		case s.Kube != nil:
			b.kubernetes[model.Key{Namespace: s.Namespace, Name: s.Name}] = s
		case s.Entry != nil:
			key := model.Key{Namespace: s.Entry.Namespace, Name: s.Entry.Name}
			b.entries[key] = append(b.entries[key], s)
		}
	}
	if previous != nil {
		b.version = previous.version + 1
		b.oldest = b.version
		if previous.settings() != b.settings() {
			previous = nil
		}
	}
	b.indexVirtualServices(previous)
	for _, o := range m.Objects.HTTPRoutes {
		b.httpRoute(o, previous)
	}
	for _, o := range m.Objects.GRPCRoutes {
		b.grpcRoute(o, previous)
	}
	if previous != nil {
		b.follow(previous)
	}
	return b
}

// service finds a service by its host name as model.Model.ServiceByHost does.
func (b *Builder) service(host, from string) *model.Service {
	var best *model.Service
	for _, s := range b.hosts[host] {
		switch {
		case s.Namespace == from:
			return s
		case best == nil, best.Kube == nil && s.Kube != nil:
			best = s
		}
	}
	return best
}

// fqdn is a host of Istio's API, short names in full.
func (b *Builder) fqdn(host, namespace string) string {
	if strings.HasPrefix(host, "*") || strings.Contains(host, ".") {
		return host
	}
	return host + "." + namespace + ".svc." + b.model.ClusterDomain
}

// status is what is said about an object.
func (b *Builder) status(o status.Object) *status.Status {
	s := b.statuses[o]
	if s == nil {
		s = &status.Status{Object: o}
		b.statuses[o] = s
	}
	return s
}

// HTTP is the route configuration of a port that carries requests, named as its
// cluster, and the clusters that its routes lead to, sorted and once each. Traced
// routes name the operation that spans show. The configuration and its virtual hosts
// are the caller's; its routes must not be changed: a rule that has not changed since
// HTTP was last called for the same port and destinations, which must be comparable, has
// the routes that it had.
func (b *Builder) HTTP(d Destinations, s *model.Service, p *model.Port, traced bool) (*routev3.RouteConfiguration, []Backend) {
	if d == nil {
		d = noRules{}
	}
	at := portKey{s, p.Number}
	before := b.recall(at, d, traced)
	t := &table{b: b, destinations: d, service: s, port: p, backends: map[Backend]bool{}, traced: traced, before: before,
		now: &memo{destinations: d, traced: traced, rules: make(map[*rule]*made, len(before.rules))}}
	defer func() { b.notes[at] = t.notes }()
	t.gatewayRoutes()
	t.virtualServices()
	if !t.producer {
		t.add(t.defaultRoute())
	}
	b.remember(at, t.now)
	backends := make([]Backend, 0, len(t.backends))
	for x := range t.backends {
		backends = append(backends, x)
	}
	slices.SortFunc(backends, func(x, y Backend) int {
		return cmp.Or(cmp.Compare(x.Service.Hostname, y.Service.Hostname), cmp.Compare(x.Service.Namespace, y.Service.Namespace),
			cmp.Compare(x.Port, y.Port), cmp.Compare(x.Subset, y.Subset), compareBool(x.Hashed, y.Hashed))
	})
	return t.config(), backends
}

func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

type noRules struct{}

func (noRules) HashPolicies(*model.Service, uint32, string) []*routev3.RouteAction_HashPolicy {
	return nil
}
func (noRules) HasSubset(*model.Service, string) bool { return true }
