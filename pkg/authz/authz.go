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
	var dryRun []string
	allowExists := false
	for _, p := range policies {
		if p.Action != mesh.ActionDeny {
			allowExists = allowExists || !p.DryRun
			continue
		}
		if !Matches(p, conn) {
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
		if p.Action == mesh.ActionAllow && !p.DryRun && Matches(p, conn) {
			return Decision{Allow: true, Policy: p.Key(), Reason: ReasonAllowed, DryRun: dryRun}
		}
	}
	return Decision{Reason: ReasonNoneAllowed, DryRun: dryRun}
}

// Matches reports whether any rule of p matches conn, whatever p's action.
func Matches(p *mesh.Policy, conn Conn) bool {
	for i := range p.Rules {
		if ruleMatches(&p.Rules[i], conn) {
			return true
		}
	}
	return false
}

func ruleMatches(r *mesh.PolicyRule, conn Conn) bool {
	for i := range r.Clauses {
		if !clauseMatches(&r.Clauses[i], conn) {
			return false
		}
	}
	return true
}

func clauseMatches(c *mesh.PolicyClause, conn Conn) bool {
	if len(c.Matches) == 0 {
		return true
	}
	for i := range c.Matches {
		if matchHolds(&c.Matches[i], conn) {
			return true
		}
	}
	return false
}

func matchHolds(m *mesh.PolicyMatch, conn Conn) bool {
	fields := 0
	holds := func(positive, negative int, found, excluded bool) bool {
		fields += positive + negative
		return (positive == 0 || found) && !excluded
	}
	principal, ns := conn.Source.Principal(), conn.Source.Namespace
	ok := holds(len(m.Namespaces), len(m.NotNamespaces),
		anyString(m.Namespaces, ns), anyString(m.NotNamespaces, ns)) &&
		holds(len(m.Principals), len(m.NotPrincipals),
			anyPrincipal(m.Principals, principal), anyPrincipal(m.NotPrincipals, principal)) &&
		holds(len(m.ServiceAccounts), len(m.NotServiceAccounts),
			anyAccount(m.ServiceAccounts, conn.Source), anyAccount(m.NotServiceAccounts, conn.Source)) &&
		holds(len(m.SourceIPs), len(m.NotSourceIPs),
			anyPrefix(m.SourceIPs, conn.SourceIP), anyPrefix(m.NotSourceIPs, conn.SourceIP)) &&
		holds(len(m.DestinationIPs), len(m.NotDestinationIPs),
			anyPrefix(m.DestinationIPs, conn.Destination.Addr()), anyPrefix(m.NotDestinationIPs, conn.Destination.Addr())) &&
		holds(len(m.DestinationPorts), len(m.NotDestinationPorts),
			slices.Contains(m.DestinationPorts, conn.Destination.Port()),
			slices.Contains(m.NotDestinationPorts, conn.Destination.Port()))
	return ok && fields > 0
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
