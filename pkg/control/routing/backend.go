package routing

import (
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// backend finds what a backendRef names. A reference that is wrong leaves an
// invalid destination, which is answered 500, and a reason in the status.
func (b *Builder) backend(r *gatewayRoute, path string, ref gatewayv1.BackendObjectReference) destination {
	group, kind, namespace := "", "Service", r.object.GetNamespace()
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	d := destination{weight: 1, invalid: true}
	if ref.Port != nil {
		d.port = uint32(*ref.Port)
	}
	var s *model.Service
	switch {
	case group == "" && kind == "Service":
		s = b.kubernetes[model.Key{Namespace: namespace, Name: string(ref.Name)}]
		d.host = b.fqdn(string(ref.Name), namespace)
	case group == istioGroup && kind == "ServiceEntry":
		if all := b.entries[model.Key{Namespace: namespace, Name: string(ref.Name)}]; len(all) > 0 {
			s = all[0]
			d.host = s.Hostname
		}
	case group == istioGroup && kind == "Hostname":
		// A host belongs to no namespace. One of a Kubernetes Service counts as that.
		d.host = string(ref.Name)
		if s = b.service(d.host, namespace); s != nil && s.Kube != nil {
			namespace = s.Namespace
		}
	default:
		r.unresolve(string(gatewayv1.RouteReasonInvalidKind), "%s: %s of the group %q cannot be a backend: use Service, or ServiceEntry or Hostname of %s", path, kind, group, istioGroup)
		return d
	}
	name := fmt.Sprintf("%s %s/%s", kind, namespace, ref.Name)
	switch {
	case namespace != r.object.GetNamespace() && !r.returns(s) && !b.granted(r, group, kind, namespace, string(ref.Name)):
		d.host = "" // a cluster that does exist must not be named
		r.unresolve(string(gatewayv1.RouteReasonRefNotPermitted), "%s: no ReferenceGrant of namespace %s lets %ss of namespace %s refer to %s", path, namespace, r.kind, r.object.GetNamespace(), name)
	case s == nil:
		r.unresolve(string(gatewayv1.RouteReasonBackendNotFound), "%s: %s not found", path, name)
	case d.port == 0 && len(s.Ports) != 1:
		r.unresolve(string(gatewayv1.RouteReasonUnsupportedValue), "%s: a port is needed, %s has several", path, name)
	case d.port != 0 && s.Port(d.port) == nil:
		r.unresolve(string(gatewayv1.RouteReasonBackendNotFound), "%s: %s has no port %d", path, name, d.port)
	default:
		d.invalid, d.service = false, s
	}
	return d
}

// returns tells whether the route may send requests to a service of another namespace
// since it is attached to it: they are those of its own namespace's callers, who could
// reach the service anyway. A route that is at a service of its own namespace too would
// send there whoever calls that one.
func (r *gatewayRoute) returns(s *model.Service) bool {
	for p := range r.parents {
		if p.Namespace == r.object.GetNamespace() {
			return false
		}
	}
	return r.parents[s]
}

// granted tells whether a namespace lets routes of another refer to an object.
func (b *Builder) granted(r *gatewayRoute, group, kind, namespace, name string) bool {
	for _, g := range b.model.Objects.ReferenceGrants {
		if g.Namespace != namespace {
			continue
		}
		from, to := false, false
		for _, f := range g.Spec.From {
			from = from || string(f.Group) == gatewayGroup && string(f.Kind) == r.kind && string(f.Namespace) == r.object.GetNamespace()
		}
		for _, t := range g.Spec.To {
			to = to || string(t.Group) == group && string(t.Kind) == kind && (t.Name == nil || *t.Name == "" || string(*t.Name) == name)
		}
		if from && to {
			return true
		}
	}
	return false
}

// weight is a backendRef's, one where it is left out.
func weight(w *int32) uint32 {
	if w == nil {
		return 1
	}
	return uint32(max(*w, 0))
}
