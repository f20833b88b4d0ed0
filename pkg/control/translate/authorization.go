package translate

import (
	"fmt"
	"slices"
	"strings"

	securityv1beta1 "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	securityapi "github.com/fairlead-mesh/fairlead/api/security"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

const annotationDryRun = "istio.io/dry-run"

// authorization converts one AuthorizationPolicy for the nodes, and says on it
// what became of it.
func (s *policySet) authorization(p *securityv1.AuthorizationPolicy) {
	object := policyObject("AuthorizationPolicy", p.Namespace, p.Name)
	if len(p.Spec.TargetRefs) > 0 || p.Spec.TargetRef != nil {
		return // package rbac makes filters of it, and says so
	}
	say := func(state, reason, message string) {
		s.w.condition(object, status.Condition{Type: status.ZtunnelAccepted, Status: state, Reason: reason, Message: message})
	}
	var action securityapi.Action
	switch p.Spec.Action {
	case securityv1beta1.AuthorizationPolicy_ALLOW:
	case securityv1beta1.AuthorizationPolicy_DENY:
		action = securityapi.Action_DENY
	default:
		say("False", "UnsupportedValue", fmt.Sprintf("ztunnel does not support the %s action", p.Spec.Action))
		return
	}
	dryRun := p.Annotations[annotationDryRun] == "true"
	if dryRun && !s.w.Settings.DryRun {
		say("False", "UnsupportedValue", fmt.Sprintf("found policy %q using dry-run annotation, but support for ambient dry-run authorizationPolicies isn't enabled", p.Namespace+"/"+p.Name))
		return
	}
	c := converter{namespace: p.Namespace, deny: action == securityapi.Action_DENY}
	wire := &securityapi.Authorization{Name: p.Name, Namespace: p.Namespace, Action: action, DryRun: dryRun}
	for _, r := range p.Spec.Rules {
		wire.Groups = append(wire.Groups, c.rule(r)...)
	}
	s.add(wire, p.Spec.GetSelector().GetMatchLabels())
	if message := c.message(); message != "" {
		say("True", "UnsupportedValue", message)
		return
	}
	say("True", "Accepted", "attached to ztunnel")
}

// converter turns the rules of one policy into groups.
type converter struct {
	namespace string
	deny      bool
	found     []string // attributes that cannot be enforced at L4, in order
	suffixes  bool     // trust domains are given by their end, which cannot be compared
	emptied   bool     // a DENY rule has nothing left, and so denies always
}

func (c *converter) note(attribute string, values ...[]string) bool {
	for _, v := range values {
		if len(v) > 0 {
			if !slices.Contains(c.found, attribute) {
				c.found = append(c.found, attribute)
			}
			return true
		}
	}
	return false
}

func (c *converter) message() string {
	var m string
	if len(c.found) > 0 {
		m = "ztunnel does not support HTTP attributes (found: " + strings.Join(c.found, ", ") + "). In ambient mode you must use a waypoint proxy to enforce HTTP rules. "
	}
	if c.suffixes {
		m += "Trust domains that begin with * cannot be compared. "
	}
	switch {
	case m == "":
		return ""
	case !c.deny:
		return m + "Within an ALLOW policy, rules matching HTTP attributes are omitted. This will be more restrictive than requested."
	case c.emptied:
		return m + "DENY policy with HTTP attributes is enforced without the HTTP rules; a rule that had nothing else denies every connection. This will be more restrictive than requested."
	}
	return m + "DENY policy with HTTP attributes is enforced without the HTTP rules. This will be more restrictive than requested."
}

// clause is alternatives; any is an alternative that always matches, so that the
// clause does, and is left out.
type clause struct {
	matches []*securityapi.Match
	any     bool
}

func (c *clause) add(m *securityapi.Match) {
	if emptyMatch(m) {
		c.any = true
		return
	}
	c.matches = append(c.matches, m)
}

func emptyMatch(m *securityapi.Match) bool {
	return len(m.Namespaces)+len(m.NotNamespaces)+len(m.Principals)+len(m.NotPrincipals)+len(m.SourceIps)+len(m.NotSourceIps)+
		len(m.DestinationIps)+len(m.NotDestinationIps)+len(m.DestinationPorts)+len(m.NotDestinationPorts)+
		len(m.ServiceAccounts)+len(m.NotServiceAccounts) == 0
}

// rule converts one rule. It gives no group where an ALLOW rule cannot be
// enforced, and several where sources need clauses of their own.
func (c *converter) rule(r *securityv1beta1.Rule) []*securityapi.Group {
	to, toL7 := c.operations(r.GetTo())
	from, alone, fromL7 := c.sources(r.GetFrom())
	when, whenL7 := c.conditions(r.GetWhen())
	l7 := toL7 || fromL7 || whenL7
	if l7 && !c.deny {
		return nil
	}
	var groups []*securityapi.Group
	if len(from.matches) > 0 || from.any || len(alone) == 0 {
		groups = append(groups, group(to, []clause{from}, when))
	}
	if !from.any { // else those that stand alone add nothing
		for _, source := range alone {
			groups = append(groups, group(to, source, when))
		}
	}
	for _, g := range groups {
		c.emptied = c.emptied || l7 && len(g.Rules) == 0
	}
	return groups
}

func group(to clause, from, when []clause) *securityapi.Group {
	g := &securityapi.Group{}
	for _, cl := range slices.Concat([]clause{to}, from, when) {
		if !cl.any && len(cl.matches) > 0 {
			g.Rules = append(g.Rules, &securityapi.Rules{Matches: cl.matches})
		}
	}
	return g
}

func (c *converter) operations(to []*securityv1beta1.Rule_To) (out clause, l7 bool) {
	for _, t := range to {
		op := t.GetOperation()
		for _, a := range []struct {
			name string
			has  [][]string
		}{{"hosts", [][]string{op.GetHosts()}}, {"notHosts", [][]string{op.GetNotHosts()}}, {"methods", [][]string{op.GetMethods()}},
			{"notMethods", [][]string{op.GetNotMethods()}}, {"paths", [][]string{op.GetPaths()}}, {"notPaths", [][]string{op.GetNotPaths()}}} {
			l7 = c.note(a.name, a.has...) || l7
		}
		out.add(&securityapi.Match{DestinationPorts: ports(op.GetPorts()), NotDestinationPorts: ports(op.GetNotPorts())})
	}
	return out, l7
}

func (c *converter) conditions(when []*securityv1beta1.Condition) (out []clause, l7 bool) {
	for _, w := range when {
		m := &securityapi.Match{}
		switch w.Key {
		case "source.ip":
			m.SourceIps, m.NotSourceIps = blocks(w.Values), blocks(w.NotValues)
		case "source.namespace":
			m.Namespaces, m.NotNamespaces = texts(w.Values), texts(w.NotValues)
		case "source.principal":
			m.Principals, m.NotPrincipals = texts(w.Values), texts(w.NotValues)
		case "source.serviceAccount", "source.serviceaccount":
			m.ServiceAccounts, m.NotServiceAccounts = c.accounts(w.Values), c.accounts(w.NotValues)
		case "source.trustDomain":
			var unsupported bool
			m.Principals, m.NotPrincipals, unsupported = trustDomains(w.Values, w.NotValues)
			l7 = l7 || unsupported
			c.suffixes = c.suffixes || unsupported
		case "destination.ip":
			m.DestinationIps, m.NotDestinationIps = blocks(w.Values), blocks(w.NotValues)
		case "destination.port":
			m.DestinationPorts, m.NotDestinationPorts = ports(w.Values), ports(w.NotValues)
		default:
			l7 = c.note(w.Key, w.Values, w.NotValues) || l7
		}
		var cl clause
		cl.add(m)
		out = append(out, cl)
	}
	return out, l7
}
