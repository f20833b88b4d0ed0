package peers

import (
	"slices"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// through is policies for what came through the waypoint of an identity. "Only
// through the waypoint" is written as a rule on that identity, for the node, where
// the waypoint is the caller. Here, where the caller is the original one, a
// principal or service account that is exactly the waypoint's matches everyone:
// what the rule asks for has happened.
func through(policies []*mesh.Policy, self mesh.Identity) []*mesh.Policy {
	out := policies
	for i, p := range policies {
		if !slices.ContainsFunc(p.Rules, func(r mesh.PolicyRule) bool {
			return slices.ContainsFunc(r.Clauses, func(c mesh.PolicyClause) bool {
				return slices.ContainsFunc(c.Matches, func(m mesh.PolicyMatch) bool { return names(m, self) || excludes(m, self) })
			})
		}) {
			continue
		}
		if &out[0] == &policies[0] {
			out = slices.Clone(policies)
		}
		out[i] = satisfied(p, self)
	}
	return out
}

// names tells whether a match asks for the waypoint, excludes whether it asks for
// anyone else.
func names(m mesh.PolicyMatch, self mesh.Identity) bool {
	return exactly(m.Principals, self) || slices.Contains(m.ServiceAccounts, accountOf(self))
}

func excludes(m mesh.PolicyMatch, self mesh.Identity) bool {
	return exactly(m.NotPrincipals, self) || slices.Contains(m.NotServiceAccounts, accountOf(self))
}

func exactly(matches []mesh.StringMatch, self mesh.Identity) bool {
	return slices.Contains(matches, mesh.StringMatch{Kind: mesh.MatchExact, Value: self.Principal()})
}

func accountOf(self mesh.Identity) mesh.ServiceAccountMatch {
	return mesh.ServiceAccountMatch{Namespace: self.Namespace, ServiceAccount: self.ServiceAccount}
}

// satisfied is p with what it asks of the waypoint's identity taken as given.
func satisfied(p *mesh.Policy, self mesh.Identity) *mesh.Policy {
	out := *p
	out.Rules = nil
	for _, r := range p.Rules {
		var rule mesh.PolicyRule
		for _, c := range r.Clauses {
			if given(&c, self) {
				continue // a clause that holds for everyone
			}
			rule.Clauses = append(rule.Clauses, c)
		}
		out.Rules = append(out.Rules, rule)
	}
	return &out
}

// given takes the waypoint's identity out of a clause, and tells whether the clause
// then holds whoever calls.
func given(c *mesh.PolicyClause, self mesh.Identity) bool {
	if len(c.Matches) == 0 {
		return true
	}
	matches := make([]mesh.PolicyMatch, 0, len(c.Matches))
	for _, m := range c.Matches {
		if excludes(m, self) {
			matches = append(matches, mesh.PolicyMatch{}) // never holds
			continue
		}
		if !names(m, self) {
			matches = append(matches, m)
			continue
		}
		if exactly(m.Principals, self) {
			m.Principals = nil
		}
		if slices.Contains(m.ServiceAccounts, accountOf(self)) {
			m.ServiceAccounts = nil
		}
		if unset(&m) {
			return true
		}
		matches = append(matches, m)
	}
	c.Matches = matches
	return false
}

func unset(m *mesh.PolicyMatch) bool {
	return len(m.Namespaces)+len(m.NotNamespaces)+len(m.Principals)+len(m.NotPrincipals)+len(m.ServiceAccounts)+len(m.NotServiceAccounts)+
		len(m.SourceIPs)+len(m.NotSourceIPs)+len(m.DestinationIPs)+len(m.NotDestinationIPs)+len(m.DestinationPorts)+len(m.NotDestinationPorts) == 0
}
