package l4route

import (
	"fmt"
	"slices"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

const (
	groupGateway    = "gateway.networking.k8s.io"
	groupNetworking = "networking.istio.io"
)

// route is one TCPRoute or TLSRoute with what is said of each parent.
type route struct {
	object  status.Object
	parents []*parent
}

// parent is a route as one of its parents sees it.
type parent struct {
	route  *route
	status status.Parent
}

func (p *parent) missing(reason, message string) {
	p.status.Set(status.Condition{Type: status.RouteResolvedRefs, Status: "False", Reason: reason, Message: message})
}

func (p *parent) hidden(message string) {
	p.status.Set(status.Condition{Type: status.InEffect, Status: "False", Reason: "Conflicted", Message: message})
}

func (p *parent) String() string {
	o := p.route.object
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

func (b *Builder) tlsRoute(r *gatewayv1.TLSRoute) {
	var names []string
	for _, h := range r.Spec.Hostnames {
		names = append(names, strings.ToLower(string(h)))
	}
	one := b.newRoute("TLSRoute", r.Namespace, r.Name)
	for _, ref := range r.Spec.ParentRefs {
		p, s := b.parent(one, ref, carriesTLS, "TLS")
		for _, rule := range r.Spec.Rules {
			b.attach(b.tls, p, s, ref, names, rule.BackendRefs)
		}
	}
}

func (b *Builder) tcpRoute(r *gatewayv1.TCPRoute) {
	one := b.newRoute("TCPRoute", r.Namespace, r.Name)
	for _, ref := range r.Spec.ParentRefs {
		p, s := b.parent(one, ref, func(p *model.Port) bool { return !p.Protocol.IsHTTP() }, "connections")
		for _, rule := range r.Spec.Rules {
			b.attach(b.tcp, p, s, ref, nil, rule.BackendRefs)
		}
	}
}

func (b *Builder) newRoute(kind, namespace, name string) *route {
	r := &route{object: status.Object{APIVersion: groupGateway + "/v1", Kind: kind, Namespace: namespace, Name: name}}
	b.routes = append(b.routes, r)
	return r
}

// parent finds the service that a route is attached to, nil where it does not act
// there.
func (b *Builder) parent(r *route, ref gatewayv1.ParentReference, carries func(*model.Port) bool, what string) (*parent, *model.Service) {
	group, kind := orElse(ref.Group, groupGateway), orElse(ref.Kind, "Gateway")
	namespace := orElse(ref.Namespace, r.object.Namespace)
	p := &parent{route: r, status: status.Parent{Controller: status.Controller, Ref: status.ParentRef{
		Group: group, Kind: kind, Namespace: orElse(ref.Namespace, ""), Name: string(ref.Name), SectionName: orElse(ref.SectionName, ""),
	}}}
	if ref.Port != nil {
		p.status.Ref.Port = *ref.Port
	}
	r.parents = append(r.parents, p)
	p.accepted("Accepted", "")
	p.status.Set(status.Condition{Type: status.RouteResolvedRefs, Status: "True", Reason: "ResolvedRefs", Message: "All references resolved"})
	s := b.named(group, kind, namespace, string(ref.Name))
	switch {
	case kind == "Gateway":
		p.accepted("NoMatchingParent", "routes of connections are served for a Service or ServiceEntry in the mesh, not for a Gateway")
	case s == nil:
		p.accepted("NoMatchingParent", fmt.Sprintf("parent not found: there is no %s %s/%s", kind, namespace, ref.Name))
	case ref.Port != nil && s.Port(uint32(*ref.Port)) == nil:
		p.accepted("NoMatchingParent", fmt.Sprintf("%s %s/%s has no port %d", kind, namespace, ref.Name, *ref.Port))
	case ref.Port != nil && !carries(s.Port(uint32(*ref.Port))):
		p.accepted("NoMatchingParent", fmt.Sprintf("port %d of %s %s/%s carries %s, not %s", *ref.Port, kind, namespace, ref.Name, s.Port(uint32(*ref.Port)).Protocol, what))
	case ref.Port == nil && !slices.ContainsFunc(s.Ports, func(p model.Port) bool { return carries(&p) }):
		p.accepted("NoMatchingParent", fmt.Sprintf("no port of %s %s/%s carries %s", kind, namespace, ref.Name, what))
	case s.Waypoint == nil:
		p.status.Set(status.Condition{Type: status.ResolvedWaypoints, Status: "False", Reason: "MissingWaypoint",
			Message: fmt.Sprintf("%s %s/%s has no waypoint, and routes act at waypoints alone: label it or its namespace istio.io/use-waypoint", kind, namespace, ref.Name)})
	default:
		if s.Namespace != r.object.Namespace {
			p.status.Set(status.Condition{Type: status.RouteAccepted, Status: "True", Reason: "Accepted",
				Message: fmt.Sprintf("Route was valid; it is in effect for callers of namespace %s, before the routes of namespace %s", r.object.Namespace, s.Namespace)})
		}
		p.status.Set(status.Condition{Type: status.ResolvedWaypoints, Status: "True", Reason: "ResolvedWaypoints", Message: "All waypoints resolved"})
		return p, s
	}
	return p, nil
}

func orElse[T ~string](v *T, otherwise string) string {
	if v == nil {
		return otherwise
	}
	return string(*v)
}

func (p *parent) accepted(reason, message string) {
	c := status.Condition{Type: status.RouteAccepted, Status: "True", Reason: reason, Message: "Route was valid"}
	if message != "" {
		c.Status, c.Message = "False", message
	}
	p.status.Set(c)
}

// named is a service by its object, or by its host name, or nil.
func (b *Builder) named(group, kind, namespace, name string) *model.Service {
	if group == groupNetworking && kind == "Hostname" {
		return b.m.ServiceByHost(name, namespace)
	}
	for _, s := range b.m.Services {
		switch {
		case s.Namespace != namespace:
		case group == "" && kind == "Service" && s.Kube != nil && s.Kube.Name == name,
			group == groupNetworking && kind == "ServiceEntry" && s.Entry != nil && s.Entry.Name == name:
			return s
		}
	}
	return nil
}

// attach adds a rule of a route to a service; s is nil where it does not act.
func (b *Builder) attach(rules map[*model.Service][]*rule, p *parent, s *model.Service, ref gatewayv1.ParentReference, names []string, to []gatewayv1.BackendRef) {
	r := &rule{names: names, say: p}
	if ref.Port != nil {
		r.port = uint32(*ref.Port)
	}
	from := p.route.object.Namespace
	if s != nil && s.Namespace != from {
		r.consumer, r.callers = true, []*matcherv3.StringMatcher{b.callers.Namespace(from)}
	}
	for _, t := range to {
		r.backends = append(r.backends, b.backend(p, s, t))
	}
	if s != nil {
		rules[s] = append(rules[s], r)
	}
}

// backend finds where a share of a route goes. What comes from callers of the route's
// own namespace may go back to the service that they called without a grant.
func (b *Builder) backend(p *parent, parent *model.Service, t gatewayv1.BackendRef) backend {
	one := backend{weight: 1}
	if t.Weight != nil {
		one.weight = uint32(max(*t.Weight, 0))
	}
	if t.Port != nil {
		one.port = uint32(*t.Port)
	}
	from := p.route.object
	group, kind, namespace := orElse(t.Group, ""), orElse(t.Kind, "Service"), orElse(t.Namespace, from.Namespace)
	known := group == "" && kind == "Service" || group == groupNetworking && (kind == "Hostname" || kind == "ServiceEntry")
	s := b.named(group, kind, namespace, string(t.Name))
	if kind == "Hostname" && s != nil && s.Kube != nil {
		namespace = s.Namespace // a host belongs to no namespace, but a Kubernetes Service does
	}
	switch {
	case !known:
		p.missing("InvalidKind", fmt.Sprintf("referencing unsupported backendRef: group %q kind %q", group, kind))
	case namespace != from.Namespace && (s == nil || s != parent) && !b.granted(from, group, kind, namespace, string(t.Name)):
		p.missing("RefNotPermitted", fmt.Sprintf("backendRef %s %s/%s is not accessible to a %s of namespace %s: it takes a ReferenceGrant there", kind, namespace, t.Name, from.Kind, from.Namespace))
	case s == nil:
		p.missing("BackendNotFound", fmt.Sprintf("backend(%s/%s) not found", namespace, t.Name))
	case t.Port == nil && len(s.Ports) != 1:
		p.missing("BackendNotFound", fmt.Sprintf("backendRef %s %s/%s needs a port", kind, namespace, t.Name))
	case t.Port != nil && s.Port(one.port) == nil:
		p.missing("BackendNotFound", fmt.Sprintf("backend(%s/%s) has no port %d", namespace, t.Name, one.port))
	default:
		one.service = s
	}
	return one
}

// granted tells whether a namespace lets another's route refer to its object.
func (b *Builder) granted(from status.Object, group, kind, namespace, name string) bool {
	for _, g := range b.m.Objects.ReferenceGrants {
		if g.Namespace != namespace {
			continue
		}
		may := slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return string(f.Group) == groupGateway && string(f.Kind) == from.Kind && string(f.Namespace) == from.Namespace
		})
		to := slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return string(t.Group) == group && string(t.Kind) == kind && (t.Name == nil || string(*t.Name) == name)
		})
		if may && to {
			return true
		}
	}
	return false
}
