package envoy

import (
	"maps"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/fairlead-mesh/fairlead/pkg/control/destination"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// Assignments are the endpoints of a service's clusters as [Generate] makes them, of
// those clusters that has tells are there. before is the model that they were last
// made of. ok is false where more than these depends on what has changed: who may
// answer is part of clusters. It is for clients without Istio's extensions.
func Assignments(before, m *model.Model, w *model.Waypoint, o Options, s *model.Service, rules *destination.Rules, has func(cluster string) bool) (all map[string]*endpointv3.ClusterLoadAssignment, ok bool) {
	if s.Resolution != networkingapi.ServiceEntry_STATIC || o.IstioExtensions {
		return nil, false
	}
	for _, p := range m.Objects.Mesh.GetExtensionProviders() {
		if host, _ := providerService(p); m.ServiceByHost(host, w.Key.Namespace) == s {
			return nil, false
		}
	}
	o.Labels = destination.Labels(w, o.Labels)
	g := &generator{m: before, w: w, o: o, rules: rules, identities: map[string][]string{}}
	g.assignments(s, has)
	old := g.identities
	g.m, g.identities = m, map[string][]string{}
	all = g.assignments(s, has)
	same := func([]string, []string) bool { return true } // they follow from the name
	return all, maps.EqualFunc(old, g.identities, same) && len(g.errs) == 0
}

func (g *generator) assignments(s *model.Service, has func(string) bool) map[string]*endpointv3.ClusterLoadAssignment {
	out := map[string]*endpointv3.ClusterLoadAssignment{}
	rule := g.rules.For(s)
	one := func(kind Kind, port *model.Port, subset string, labels map[string]string) {
		if name := ClusterName(kind, s.Hostname, port.Number, subset); has(name) {
			out[name] = g.assignment(name, s, port, labels, rule.Policy(port.Number, subset))
		}
	}
	for i := range s.Ports {
		for _, kind := range []Kind{HTTP, TCP} {
			one(kind, &s.Ports[i], "", nil)
			for _, sub := range rule.Subsets() {
				one(kind, &s.Ports[i], sub.Name, sub.Labels)
			}
		}
	}
	return out
}
