// Package authz decides whether a connection is allowed. It is a pure function
// of policies and a connection, in the semantics of Istio's L4 policies.
//
// It may import pkg/mesh and the standard library only.
package authz

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Conn is what a policy may look at.
type Conn struct {
	// Source is zero where the peer proved no identity.
	Source mesh.Identity
	// SourceIP and Destination are never IPv4-mapped. Destination has the
	// application's real port, not the tunnel's.
	SourceIP    netip.Addr
	Destination netip.AddrPort
}

// Decision is the outcome and why.
type Decision struct {
	Allow bool
	// Policy is the key of the policy that decided, or "" where none did.
	Policy string
	// Reason is one of the Reason constants.
	Reason string
	// DryRun lists dry-run policies that would have denied.
	DryRun []string
}

// The reasons of a Decision.
const (
	ReasonNoPolicy     = "no allow policy"
	ReasonAllowed      = "allowed by policy"
	ReasonDenied       = "denied by policy"
	ReasonNoneAllowed  = "allow policies exist, but none allowed"
	ReasonPolicyAbsent = "policy not received"
)

// Evaluate decides on conn: a DENY that matches, then, if any ALLOW exists, an
// ALLOW that matches, else refusal.
func Evaluate(policies []*mesh.Policy, conn Conn) Decision {
	peer := peer{Conn: conn, principal: conn.Source.Principal()}
	var dryRun []string
	allowExists := false
	for _, p := range policies {
		if p.Action != mesh.ActionDeny {
			allowExists = allowExists || !p.DryRun
			continue
		}
		if !policyMatches(p, &peer) {
			continue
		}
		if p.DryRun {
			dryRun = append(dryRun, p.Key())
			continue
		}
		return Decision{Policy: p.Key(), Reason: ReasonDenied, DryRun: dryRun}
	}
	if !allowExists {
		return Decision{Allow: true, Reason: ReasonNoPolicy, DryRun: dryRun}
	}
	for _, p := range policies {
		if p.Action == mesh.ActionAllow && !p.DryRun && policyMatches(p, &peer) {
			return Decision{Allow: true, Policy: p.Key(), Reason: ReasonAllowed, DryRun: dryRun}
		}
	}
	return Decision{Reason: ReasonNoneAllowed, DryRun: dryRun}
}

// peer is a Conn with its principal spelled out once.
type peer struct {
	Conn
	principal string
}

func policyMatches(p *mesh.Policy, c *peer) bool {
	for i := range p.Rules {
		if ruleMatches(&p.Rules[i], c) {
			return true
		}
	}
	return false
}

func ruleMatches(r *mesh.PolicyRule, c *peer) bool {
	for i := range r.Clauses {
		if !clauseMatches(&r.Clauses[i], c) {
			return false
		}
	}
	return true
}

func clauseMatches(clause *mesh.PolicyClause, c *peer) bool {
	if len(clause.Matches) == 0 {
		return true
	}
	for i := range clause.Matches {
		if matchHolds(&clause.Matches[i], c) {
			return true
		}
	}
	return false
}

// matchHolds compares the cheap fields first; the order has no meaning.
func matchHolds(m *mesh.PolicyMatch, c *peer) bool {
	src, ns, dst := c.Source, c.Source.Namespace, c.Destination
	switch {
	case len(m.DestinationPorts) > 0 && !slices.Contains(m.DestinationPorts, dst.Port()),
		slices.Contains(m.NotDestinationPorts, dst.Port()),
		len(m.Namespaces) > 0 && !anyString(m.Namespaces, ns),
		anyString(m.NotNamespaces, ns),
		len(m.Principals) > 0 && !anyPrincipal(m.Principals, c.principal),
		anyPrincipal(m.NotPrincipals, c.principal),
		len(m.ServiceAccounts) > 0 && !anyAccount(m.ServiceAccounts, src),
		anyAccount(m.NotServiceAccounts, src),
		len(m.SourceIPs) > 0 && !anyPrefix(m.SourceIPs, c.SourceIP),
		anyPrefix(m.NotSourceIPs, c.SourceIP),
		len(m.DestinationIPs) > 0 && !anyPrefix(m.DestinationIPs, dst.Addr()),
		anyPrefix(m.NotDestinationIPs, dst.Addr()):
		return false
	}
	return !isEmpty(m)
}

func isEmpty(m *mesh.PolicyMatch) bool {
	return len(m.DestinationPorts)+len(m.NotDestinationPorts)+
		len(m.Namespaces)+len(m.NotNamespaces)+
		len(m.Principals)+len(m.NotPrincipals)+
		len(m.ServiceAccounts)+len(m.NotServiceAccounts)+
		len(m.SourceIPs)+len(m.NotSourceIPs)+
		len(m.DestinationIPs)+len(m.NotDestinationIPs) == 0
}

// anyPrincipal differs from anyString in that an absent principal matches nothing.
func anyPrincipal(matches []mesh.StringMatch, principal string) bool {
	return principal != "" && anyString(matches, principal)
}

func anyString(matches []mesh.StringMatch, s string) bool {
	for _, m := range matches {
		switch m.Kind {
		case mesh.MatchExact:
			if s == m.Value {
				return true
			}
		case mesh.MatchPrefix:
			if strings.HasPrefix(s, m.Value) {
				return true
			}
		case mesh.MatchSuffix:
			if strings.HasSuffix(s, m.Value) {
				return true
			}
		case mesh.MatchPresence:
			if s != "" {
				return true
			}
		}
	}
	return false
}

func anyAccount(matches []mesh.ServiceAccountMatch, source mesh.Identity) bool {
	return !source.IsZero() && slices.Contains(matches,
		mesh.ServiceAccountMatch{Namespace: source.Namespace, ServiceAccount: source.ServiceAccount})
}

func anyPrefix(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}
