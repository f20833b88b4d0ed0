package rbac

import (
	"slices"

	securityapi "istio.io/api/security/v1beta1"
	typeapi "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

const (
	groupGateway    = "gateway.networking.k8s.io"
	groupNetworking = "networking.istio.io"
	// annotationDryRun marks a policy that is counted and not enforced.
	annotationDryRun = "istio.io/dry-run"
	// waypointClass is the GatewayClass of waypoints.
	waypointClass = "istio-waypoint"
)

// Policies are the policies of one model, by what they target.
type Policies struct {
	// Constant after New.
	m        *model.Model
	layer4   *Layer4 // or nil
	byTarget map[target][]*policy
	// all are every policy with targetRefs, in the model's order.
	all []*policy
}

// target is what a policy can be attached to.
type target struct {
	kind string // Gateway, GatewayClass, Service, ServiceEntry, or Namespace
	key  model.Key
}

var targetKinds = []string{"Gateway", "GatewayClass", "Service", "ServiceEntry"}

// policy is one AuthorizationPolicy with targetRefs, or one that is wrong.
type policy struct {
	namespace, name string
	object          *securityv1.AuthorizationPolicy // nil where refused
	refused         *source.Refused
	targets         []target
}

// New reads the policies of a model. With layer4, the filters hold the policies
// of layer 4 too, for a proxy that does not know them otherwise.
func New(m *model.Model, layer4 *Layer4) *Policies {
	p := &Policies{m: m, layer4: layer4, byTarget: map[target][]*policy{}}
	for _, o := range m.Objects.AuthorizationPolicies {
		if refs := targetRefs(&o.Spec); len(refs) > 0 {
			one := &policy{namespace: o.Namespace, name: o.Name, object: o}
			for _, r := range refs {
				one.targets = append(one.targets, target{r.GetKind(), model.Key{Namespace: o.Namespace, Name: r.GetName()}})
			}
			p.add(one)
		}
	}
	for i := range m.Objects.Refused {
		r := &m.Objects.Refused[i]
		if !r.Targeted {
			continue
		}
		one := &policy{namespace: r.Ref.Namespace, name: r.Ref.Name, refused: r}
		known := len(r.Targets) > 0
		for _, t := range r.Targets {
			known = known && slices.Contains(targetKinds, t.Kind)
			one.targets = append(one.targets, target{t.Kind, model.Key{Namespace: r.Ref.Namespace, Name: t.Name}})
		}
		if !known { // what it targets cannot be told: all of its namespace
			one.targets = []target{{"Namespace", model.Key{Namespace: r.Ref.Namespace}}}
		}
		p.add(one)
	}
	return p
}

func targetRefs(spec *securityapi.AuthorizationPolicy) []*typeapi.PolicyTargetReference {
	if r := spec.GetTargetRef(); r != nil {
		return []*typeapi.PolicyTargetReference{r}
	}
	return spec.GetTargetRefs()
}

func (p *Policies) add(one *policy) {
	p.all = append(p.all, one)
	for _, t := range one.targets {
		if t.kind == "GatewayClass" && t.key.Namespace != p.root() {
			continue // only the root namespace may speak for a class
		}
		if !slices.Contains(p.byTarget[t], one) {
			p.byTarget[t] = append(p.byTarget[t], one)
		}
	}
}

func (p *Policies) root() string { return p.m.Objects.Mesh.GetRootNamespace() }

// at are the policies that hold for a service behind a waypoint, or for its
// workloads' own addresses where s is nil.
func (p *Policies) at(w *model.Waypoint, s *model.Service) []*policy {
	class := string(w.Gateway.Spec.GatewayClassName)
	keys := []target{
		{"GatewayClass", model.Key{Namespace: p.root(), Name: class}},
		{"Namespace", model.Key{Namespace: p.root()}},
		{"Namespace", model.Key{Namespace: w.Key.Namespace}},
		{"Gateway", w.Key},
	}
	switch {
	case s == nil:
	case s.Kube != nil:
		keys = append(keys, target{"Service", model.Key{Namespace: s.Namespace, Name: s.Kube.Name}}, target{"Namespace", model.Key{Namespace: s.Namespace}})
	case s.Entry != nil:
		keys = append(keys, target{"ServiceEntry", model.Key{Namespace: s.Namespace, Name: s.Entry.Name}}, target{"Namespace", model.Key{Namespace: s.Namespace}})
	}
	var out []*policy
	for _, k := range keys {
		for _, one := range p.byTarget[k] {
			if !slices.Contains(out, one) {
				out = append(out, one)
			}
		}
	}
	return out
}
