package rbac

import (
	"fmt"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// Reasons of the condition WaypointAccepted, Istio's.
const (
	reasonAccepted         = "Accepted"
	reasonInvalid          = "Invalid"
	reasonPartiallyInvalid = "PartiallyInvalid"
	reasonNotBound         = "AncestorNotBound"
	reasonNotFound         = "TargetNotFound"
	reasonUnsupported      = "UnsupportedValue"
)

// Status says on each policy with targetRefs what became of it, sorted.
func (p *Policies) Status() []status.Status {
	out := make([]status.Status, 0, len(p.all))
	for _, one := range p.all {
		s := status.Status{Object: status.Object{APIVersion: "security.istio.io/v1", Kind: "AuthorizationPolicy", Namespace: one.namespace, Name: one.name}}
		s.Set(p.condition(one))
		out = append(out, s)
	}
	status.Sort(out)
	return out
}

func (p *Policies) condition(one *policy) status.Condition {
	c := status.Condition{Type: status.WaypointAccepted, Status: "False", Reason: reasonInvalid}
	if r := one.refused; r != nil {
		c.Message = r.Position.Say(r.Reason + "; until it is mended, requests to what it targets are denied at the waypoint")
		return c
	}
	var bound, missing, why []string
	reason := ""
	for _, t := range one.targets {
		to, wrong, message := p.bind(t)
		if wrong == "" {
			if !slices.Contains(bound, to) {
				bound = append(bound, to)
			}
			continue
		}
		reason = wrong
		missing, why = append(missing, describe(t)), append(why, message)
	}
	switch {
	case len(bound) == 0:
		c.Reason, c.Message = reason, strings.Join(why, "; ")
		return c
	case len(missing) > 0:
		c.Status, c.Reason, c.Message = "True", reasonPartiallyInvalid, "Invalid targetRefs: "+strings.Join(missing, ", ")
	default:
		c.Status, c.Reason, c.Message = "True", reasonAccepted, "bound to "+strings.Join(bound, ", ")
	}
	return p.limits(one, c)
}

// limits adds what of the policy cannot be enforced.
func (p *Policies) limits(one *policy, c status.Condition) status.Condition {
	var said []string
	switch one.object.Spec.Action {
	case securityapi.AuthorizationPolicy_CUSTOM:
		c.Status = "False"
		said = append(said, "external authorization (CUSTOM) is not served: what the rules match is denied")
	case securityapi.AuthorizationPolicy_AUDIT:
		c.Status = "False"
		said = append(said, "AUDIT is not served: nothing is logged for it, and no request is denied")
	default:
		if tokens := tokenAttributes(&one.object.Spec); len(tokens) > 0 {
			what := "no such ALLOW rule matches"
			if one.object.Spec.Action == securityapi.AuthorizationPolicy_DENY {
				what = "such DENY rules deny whatever else they match"
			}
			said = append(said, fmt.Sprintf("JWTs are not checked (found: %s): %s. This will be more restrictive than requested", strings.Join(tokens, ", "), what))
		}
	}
	if len(said) == 0 {
		return c
	}
	c.Reason, c.Message = reasonUnsupported, c.Message+"; "+strings.Join(said, "; ")
	return c
}

// tokenAttributes are the attributes of a policy that take a JWT, in order.
func tokenAttributes(spec *securityapi.AuthorizationPolicy) (found []string) {
	note := func(name string, has bool) {
		if has && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	for _, r := range spec.GetRules() {
		for _, f := range r.GetFrom() {
			note("requestPrincipals", len(f.GetSource().GetRequestPrincipals()) > 0)
			note("notRequestPrincipals", len(f.GetSource().GetNotRequestPrincipals()) > 0)
		}
		for _, w := range r.GetWhen() {
			note(w.GetKey(), strings.HasPrefix(w.GetKey(), "request.auth."))
		}
	}
	return found
}

// bind finds the waypoint, or class of them, that enforces a policy on t; else
// the reason that none does.
func (p *Policies) bind(t target) (to, reason, message string) {
	name := t.key.Namespace + "/" + t.key.Name
	switch t.kind {
	case "GatewayClass":
		switch {
		case t.key.Namespace != p.root():
			return "", reasonInvalid, fmt.Sprintf("AuthorizationPolicy must be in the root namespace `%s` when referencing a GatewayClass", p.root())
		case !p.servedClass(t.key.Name):
			return "", reasonNotFound, fmt.Sprintf("GatewayClass %s is not served: waypoints are of class %s", t.key.Name, waypointClass)
		}
		return t.key.Name, "", ""
	case "Gateway":
		for _, w := range p.m.Waypoints {
			if w.Key == t.key {
				return name, "", ""
			}
		}
		for _, g := range p.m.Objects.Gateways {
			if g.Namespace == t.key.Namespace && g.Name == t.key.Name {
				return "", reasonNotBound, fmt.Sprintf("not bound: Gateway %s is of class %s, not of a waypoint's", name, g.Spec.GatewayClassName)
			}
		}
		return "", reasonNotFound, "not bound"
	}
	found := false
	for _, s := range p.m.Services {
		if !isTarget(s, t) {
			continue
		}
		found = true
		if s.Waypoint != nil {
			return s.Waypoint.Key.Namespace + "/" + s.Waypoint.Key.Name, "", ""
		}
	}
	if found {
		return "", reasonNotBound, fmt.Sprintf("%s %s is not bound to a waypoint", t.kind, name)
	}
	return "", reasonNotFound, fmt.Sprintf("%s %s was not found", t.kind, name)
}

// servedClass tells whether waypoints are of a class, or can be.
func (p *Policies) servedClass(name string) bool {
	return name == waypointClass || slices.ContainsFunc(p.m.Waypoints, func(w *model.Waypoint) bool { return string(w.Gateway.Spec.GatewayClassName) == name })
}

func isTarget(s *model.Service, t target) bool {
	if s.Namespace != t.key.Namespace {
		return false
	}
	switch t.kind {
	case "Service":
		return s.Kube != nil && s.Kube.Name == t.key.Name
	case "ServiceEntry":
		return s.Entry != nil && s.Entry.Name == t.key.Name
	}
	return false
}

func describe(t target) string {
	group := map[string]string{"Service": "core", "ServiceEntry": groupNetworking}[t.kind]
	if group == "" {
		group = groupGateway
	}
	return t.kind + "." + group + ":" + t.key.Namespace + "/" + t.key.Name
}
