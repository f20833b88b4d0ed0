package routing

import (
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

const (
	gatewayGroup   = "gateway.networking.k8s.io"
	gatewayVersion = gatewayGroup + "/v1"
	istioGroup     = "networking.istio.io"
)

// gatewayRoute is a translated HTTPRoute or GRPCRoute.
type gatewayRoute struct {
	object metav1.Object
	kind   string
	owner  *owner
	rules  []*gatewayRule
	// parents are the services it is attached to.
	parents map[*model.Service]bool
	// refused is why rules of it are not used; unresolved are its backends that are
	// answered 500, by the reason that the Gateway API gives them.
	refused    []string
	unresolved []unresolvedRef
}

type unresolvedRef struct{ reason, message string }

// gatewayRule is a rule with the precedence of its matches.
type gatewayRule struct {
	rule
	// refused is why it is not used, of the route's reasons those from first on; unserved
	// is how many filters of it are not served. It is closed where the requests that it
	// matches are answered 500.
	refused         []string
	first, unserved int
	closed          bool
	ranks           []rank
	// refs and copies are its backends and mirrors as written; bind finds them.
	refs   []backendRef
	copies []mirrorRef
	// pieces are the rule for each of its backends, if these have filters that need it.
	pieces []*gatewayRule
}

type backendRef struct {
	path    string
	ref     gatewayv1.BackendObjectReference
	weight  uint32
	headers headers
	own     []backendFilter
}

type mirrorRef struct {
	path  string
	ref   gatewayv1.BackendObjectReference
	share *corev3.RuntimeFractionalPercent
}

// attachment is a route at a service.
type attachment struct {
	route *gatewayRoute
	// port is the parent's, zero for every port.
	port uint32
}

func newGatewayRoute(kind, path string, o metav1.Object) *gatewayRoute {
	return &gatewayRoute{object: o, kind: kind, parents: map[*model.Service]bool{},
		owner: &owner{object: status.Object{APIVersion: gatewayVersion, Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()},
			title: o.GetName(), metadata: configMetadata(gatewayGroup, path, o)}}
}

func (r *gatewayRoute) refuse(format string, args ...any) {
	r.refused = append(r.refused, fmt.Sprintf(format, args...))
}

// used tells whether a rule does anything.
func (g *gatewayRule) used() bool { return len(g.refused) == 0 || g.closed }

// invalid tells whether no rule of the route can be used as it is written.
func (r *gatewayRoute) invalid() bool {
	return len(r.rules) > 0 && !slices.ContainsFunc(r.rules, func(g *gatewayRule) bool { return len(g.refused) == 0 })
}

func (r *gatewayRoute) unresolve(reason, format string, args ...any) {
	u := unresolvedRef{reason, fmt.Sprintf(format, args...)}
	if !slices.Contains(r.unresolved, u) { // the pieces of a rule share its mirrors
		r.unresolved = append(r.unresolved, u)
	}
}

// parent is what a parentRef turned out to be.
type parent struct {
	ref      status.ParentRef
	services []*model.Service
	port     uint32
	problem  string
}

// findParents are the parents that the mesh serves: a Gateway has a proxy of its own.
func (b *Builder) findParents(r *gatewayRoute, refs []gatewayv1.ParentReference) (out []parent) {
	for _, ref := range refs {
		p, ours := b.findParent(r, ref)
		if !ours {
			continue
		}
		for _, s := range p.services {
			r.parents[s] = true
		}
		out = append(out, p)
	}
	return out
}

func (b *Builder) findParent(r *gatewayRoute, ref gatewayv1.ParentReference) (parent, bool) {
	p := parent{ref: status.ParentRef{Group: gatewayGroup, Kind: "Gateway", Name: string(ref.Name)}}
	if ref.Group != nil {
		p.ref.Group = string(*ref.Group)
	}
	if ref.Kind != nil {
		p.ref.Kind = string(*ref.Kind)
	}
	namespace := r.object.GetNamespace()
	if ref.Namespace != nil {
		p.ref.Namespace, namespace = string(*ref.Namespace), string(*ref.Namespace)
	}
	if ref.SectionName != nil {
		p.ref.SectionName = string(*ref.SectionName)
	}
	if ref.Port != nil {
		p.ref.Port, p.port = *ref.Port, uint32(*ref.Port)
	}
	key := model.Key{Namespace: namespace, Name: string(ref.Name)}
	switch {
	case p.ref.Group == "" && p.ref.Kind == "Service":
		if s := b.kubernetes[key]; s != nil {
			p.services = []*model.Service{s}
		}
	case p.ref.Group == istioGroup && p.ref.Kind == "ServiceEntry":
		p.services = b.entries[key]
	default:
		return parent{}, false
	}
	if len(p.services) == 0 {
		p.problem = fmt.Sprintf("%s %s/%s not found", p.ref.Kind, key.Namespace, key.Name)
		return p, true
	}
	p.checkPort()
	return p, true
}

// checkPort finds the port that port and sectionName stand for. They must be
// there, and carry requests.
func (p *parent) checkPort() {
	var of []model.Port
	for _, s := range p.services {
		of = append(of, s.Ports...)
	}
	fits := func(port model.Port) bool {
		return (p.ref.Port == 0 || port.Number == uint32(p.ref.Port)) && (p.ref.SectionName == "" || port.Name == p.ref.SectionName)
	}
	i := slices.IndexFunc(of, fits)
	switch {
	case i < 0:
		var have []string
		for _, port := range of {
			have = append(have, fmt.Sprintf("%s %d", port.Name, port.Number))
		}
		p.problem = fmt.Sprintf("%s %s has no port%s; its ports: %s", p.ref.Kind, p.ref.Name, p.section(), strings.Join(slices.Compact(have), ", "))
	case !slices.ContainsFunc(of, func(port model.Port) bool {
		return fits(port) && (port.Protocol.IsHTTP() || port.Protocol == model.Unsupported)
	}):
		p.problem = fmt.Sprintf("%s %s port %d is %s: requests in it cannot be told apart; name it or set its appProtocol http or grpc", p.ref.Kind, p.ref.Name, of[i].Number, of[i].Protocol)
	case p.ref.SectionName != "":
		p.port = of[i].Number
	}
	if p.problem != "" {
		p.services = nil
	}
}

func (p *parent) section() (text string) {
	if p.ref.Port != 0 {
		text = fmt.Sprintf(" %d", p.ref.Port)
	}
	if p.ref.SectionName != "" {
		text += fmt.Sprintf(" named %q", p.ref.SectionName)
	}
	return text
}

// index translates a route, or takes it from an earlier state, finds what it refers
// to and puts it at its parents.
func (b *Builder) index(kind, path string, o metav1.Object, refs []gatewayv1.ParentReference, previous *Builder, translate func(*gatewayRoute)) *gatewayRoute {
	var r *gatewayRoute
	if previous != nil {
		if old := previous.routes[o]; old != nil {
			r = old.fresh()
		}
	}
	if r == nil {
		r = newGatewayRoute(kind, path, o)
		translate(r)
		r.close()
	}
	b.routes[o] = r
	parents := b.findParents(r, refs)
	if len(parents) > 0 {
		b.bind(r)
		b.attach(r, parents)
	}
	return r
}

// fresh is a copy without what depends on other objects.
func (r *gatewayRoute) fresh() *gatewayRoute {
	out := &gatewayRoute{object: r.object, kind: r.kind, owner: r.owner, refused: r.refused, parents: map[*model.Service]bool{}}
	for _, old := range r.rules {
		out.rules = append(out.rules, old.fresh())
	}
	return out
}

func (g *gatewayRule) fresh() *gatewayRule {
	out := *g
	out.destinations, out.mirrors, out.parts, out.pieces = nil, nil, nil, nil
	for _, p := range g.pieces {
		out.pieces = append(out.pieces, p.fresh())
	}
	return &out
}

// bind finds the backends of a route.
func (b *Builder) bind(r *gatewayRoute) {
	for _, rule := range r.rules {
		b.bindRule(r, rule)
		for _, p := range rule.pieces {
			b.bindRule(r, p)
		}
		rule.setParts()
	}
}

func (b *Builder) bindRule(r *gatewayRoute, rule *gatewayRule) {
	for _, m := range rule.copies {
		// An invalid mirror is ignored, as the Gateway API asks.
		if d := b.backend(r, m.path, m.ref); !d.invalid {
			rule.mirrors = append(rule.mirrors, mirror{destination: d, share: m.share})
		}
	}
	for _, ref := range rule.refs {
		d := b.backend(r, ref.path, ref.ref)
		d.weight, d.headers = ref.weight, ref.headers
		rule.destinations = append(rule.destinations, d)
	}
}

// attach puts a translated route at its parents and says how it went.
func (b *Builder) attach(r *gatewayRoute, parents []parent) {
	st := b.status(r.owner.object)
	for _, p := range parents {
		st.Parents = append(st.Parents, status.Parent{Ref: p.ref, Controller: status.Controller,
			Conditions: r.conditions(p)})
		if len(r.rules) > 0 && !slices.ContainsFunc(r.rules, (*gatewayRule).used) {
			continue
		}
		for _, s := range p.services {
			b.attachTo(s, attachment{route: r, port: p.port})
		}
	}
}

func (r *gatewayRoute) conditions(p parent) []status.Condition {
	out := []status.Condition{r.accepted(p)}
	if len(r.refused) > 0 && !r.invalid() && p.problem == "" {
		out = append(out, r.partial())
	}
	return append(out, r.resolved(), r.waypoints(p))
}

// partial names the rules that are not used; its first words are the Gateway API's.
func (r *gatewayRoute) partial() status.Condition {
	var dropped []string
	for _, g := range r.rules {
		if len(g.refused) > 0 {
			dropped = append(dropped, fmt.Sprintf("spec.rules[%d]: %s", g.index, g.why()))
		}
	}
	return status.Condition{Type: status.RoutePartiallyInvalid, Status: "True", Reason: string(gatewayv1.RouteReasonUnsupportedValue), Message: "Dropped Rule " + strings.Join(dropped, "; ")}
}

func why(rules []*gatewayRule) (out []string) {
	for _, g := range rules {
		out = append(out, g.why())
	}
	return out
}

// why is what is wrong with a rule.
func (g *gatewayRule) why() string {
	text := strings.Join(g.refused, "; ")
	if g.closed {
		text += " (requests that it matches are answered 500)"
	}
	return text
}

func (r *gatewayRoute) accepted(p parent) status.Condition {
	c := status.Condition{Type: status.RouteAccepted, Status: "True", Reason: string(gatewayv1.RouteReasonAccepted), Message: "Route was valid"}
	switch {
	case p.problem != "":
		c.Status, c.Reason, c.Message = "False", string(gatewayv1.RouteReasonNoMatchingParent), p.problem
	case r.invalid():
		c.Status, c.Reason, c.Message = "False", string(gatewayv1.RouteReasonUnsupportedValue), "not used: "+strings.Join(why(r.rules), "; ")
	case p.services[0].Namespace != r.object.GetNamespace():
		c.Message = fmt.Sprintf("Route was valid; it is in effect for callers of namespace %s, before the routes of namespace %s", r.object.GetNamespace(), p.services[0].Namespace)
	}
	return c
}

func (r *gatewayRoute) resolved() status.Condition {
	if len(r.unresolved) == 0 {
		return status.Condition{Type: status.RouteResolvedRefs, Status: "True", Reason: string(gatewayv1.RouteReasonResolvedRefs), Message: "All references resolved"}
	}
	var messages []string
	for _, u := range r.unresolved {
		messages = append(messages, u.message)
	}
	return status.Condition{Type: status.RouteResolvedRefs, Status: "False", Reason: r.unresolved[0].reason, Message: strings.Join(messages, "; ")}
}

func (r *gatewayRoute) waypoints(p parent) status.Condition {
	c := status.Condition{Type: status.ResolvedWaypoints, Status: "True", Reason: "ResolvedWaypoints", Message: "All waypoints resolved"}
	var without []string
	for _, s := range p.services {
		if s.Waypoint == nil {
			without = append(without, s.Namespace+"/"+s.Name)
		}
	}
	switch {
	case p.problem != "":
		c.Status, c.Reason, c.Message = "False", "ParentNotFound", "parent not found"
	case len(without) > 0:
		c.Status, c.Reason = "False", "MissingWaypoint"
		c.Message = fmt.Sprintf("not in effect: service %s has no waypoint: label the service or its namespace istio.io/use-waypoint", strings.Join(without, ", "))
	}
	return c
}
