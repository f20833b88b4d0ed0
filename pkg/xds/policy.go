package xds

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/fairlead-mesh/fairlead/api/security"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// FromAuthorization turns the wire's policy into the mesh's. What it does not
// understand is an error, never left out: a rule without one of its conditions
// would be another rule.
func FromAuthorization(a *security.Authorization) (*mesh.Policy, error) {
	if a.GetName() == "" || a.GetNamespace() == "" {
		return nil, errors.New("name, namespace: one is empty")
	}
	if _, known := security.Scope_name[int32(a.Scope)]; !known {
		return nil, fmt.Errorf("scope: %d is unknown", a.Scope)
	}
	if _, known := security.Action_name[int32(a.Action)]; !known {
		return nil, fmt.Errorf("action: %d is unknown", a.Action)
	}
	if err := unknownFields(a); err != nil {
		return nil, err
	}
	if len(a.Extensions) > 0 {
		return nil, fmt.Errorf("extensions: %q is not supported", a.Extensions[0].GetName())
	}
	out := &mesh.Policy{
		Name: a.Name, Namespace: a.Namespace, DryRun: a.DryRun,
		Scope: mesh.PolicyScope(a.Scope), Action: mesh.PolicyAction(a.Action),
	}
	for i, group := range a.Groups {
		rule := mesh.PolicyRule{}
		for j, rules := range group.GetRules() {
			clause := mesh.PolicyClause{}
			for k, match := range rules.GetMatches() {
				m, err := fromMatch(match)
				if err != nil {
					return nil, fmt.Errorf("groups[%d].rules[%d].matches[%d].%w", i, j, k, err)
				}
				clause.Matches = append(clause.Matches, m)
			}
			rule.Clauses = append(rule.Clauses, clause)
		}
		out.Rules = append(out.Rules, rule)
	}
	return out, nil
}

func fromMatch(m *security.Match) (out mesh.PolicyMatch, err error) {
	if len(m.GetExtensions()) > 0 {
		return out, fmt.Errorf("extensions: %q is not supported", m.Extensions[0].GetName())
	}
	for _, f := range []struct {
		name string
		from []*security.StringMatch
		to   *[]mesh.StringMatch
	}{
		{"namespaces", m.GetNamespaces(), &out.Namespaces}, {"not_namespaces", m.GetNotNamespaces(), &out.NotNamespaces},
		{"principals", m.GetPrincipals(), &out.Principals}, {"not_principals", m.GetNotPrincipals(), &out.NotPrincipals},
	} {
		if *f.to, err = fromStrings(f.from); err != nil {
			return out, fmt.Errorf("%s%w", f.name, err)
		}
	}
	for _, f := range []struct {
		name string
		from []*security.Address
		to   *[]netip.Prefix
	}{
		{"source_ips", m.GetSourceIps(), &out.SourceIPs}, {"not_source_ips", m.GetNotSourceIps(), &out.NotSourceIPs},
		{"destination_ips", m.GetDestinationIps(), &out.DestinationIPs}, {"not_destination_ips", m.GetNotDestinationIps(), &out.NotDestinationIPs},
	} {
		if *f.to, err = fromPrefixes(f.from); err != nil {
			return out, fmt.Errorf("%s%w", f.name, err)
		}
	}
	if out.DestinationPorts, err = fromPortList(m.GetDestinationPorts()); err != nil {
		return out, fmt.Errorf("destination_ports%w", err)
	}
	if out.NotDestinationPorts, err = fromPortList(m.GetNotDestinationPorts()); err != nil {
		return out, fmt.Errorf("not_destination_ports%w", err)
	}
	out.ServiceAccounts = fromAccounts(m.GetServiceAccounts())
	out.NotServiceAccounts = fromAccounts(m.GetNotServiceAccounts())
	return out, nil
}

func fromStrings(in []*security.StringMatch) ([]mesh.StringMatch, error) {
	var out []mesh.StringMatch
	for i, s := range in {
		switch m := s.GetMatchType().(type) {
		case *security.StringMatch_Exact:
			out = append(out, mesh.StringMatch{Kind: mesh.MatchExact, Value: m.Exact})
		case *security.StringMatch_Prefix:
			out = append(out, mesh.StringMatch{Kind: mesh.MatchPrefix, Value: m.Prefix})
		case *security.StringMatch_Suffix:
			out = append(out, mesh.StringMatch{Kind: mesh.MatchSuffix, Value: m.Suffix})
		case *security.StringMatch_Presence:
			out = append(out, mesh.StringMatch{Kind: mesh.MatchPresence})
		default:
			return nil, fmt.Errorf("[%d]: unknown kind of match", i)
		}
	}
	return out, nil
}

func fromPrefixes(in []*security.Address) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, a := range in {
		addr, err := fromBytes(a.GetAddress())
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		if int(a.GetLength()) > addr.BitLen() {
			return nil, fmt.Errorf("[%d].length: %d bits of %s", i, a.GetLength(), addr)
		}
		out = append(out, netip.PrefixFrom(addr, int(a.GetLength())).Masked())
	}
	return out, nil
}

func fromPortList(in []uint32) ([]uint16, error) {
	var out []uint16
	for i, p := range in {
		port, err := fromPort(p)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		out = append(out, port)
	}
	return out, nil
}

func fromAccounts(in []*security.ServiceAccountMatch) (out []mesh.ServiceAccountMatch) {
	for _, a := range in {
		out = append(out, mesh.ServiceAccountMatch{Namespace: a.GetNamespace(), ServiceAccount: a.GetServiceAccount()})
	}
	return out
}

// standIn is what holds in place of a policy that cannot be read and of which no
// earlier form is known. Without it a DENY would silently be none, and the only
// ALLOW would open what it guards. A DENY denies all; an ALLOW allows nothing.
// What cannot be read at all denies in its whole namespace. It is nil for a policy
// that is not enforced, and where the name does not say which policy it is.
func standIn(name string, a *security.Authorization) *mesh.Policy {
	namespace, policy, ok := strings.Cut(name, "/")
	if !ok || namespace == "" || policy == "" || a.GetDryRun() {
		return nil
	}
	p := &mesh.Policy{
		Name: policy, Namespace: namespace, Scope: mesh.ScopeNamespace, Action: mesh.ActionDeny, Rules: []mesh.PolicyRule{{}},
	}
	if a == nil {
		return p
	}
	if _, known := security.Scope_name[int32(a.Scope)]; known {
		p.Scope = mesh.PolicyScope(a.Scope)
	}
	if a.Action == security.Action_ALLOW {
		p.Action, p.Rules = mesh.ActionAllow, nil
	}
	return p
}

// parseServiceKey reads "namespace/hostname".
func parseServiceKey(s string) (mesh.ServiceKey, error) {
	namespace, hostname, ok := strings.Cut(s, "/")
	if !ok || namespace == "" || hostname == "" {
		return mesh.ServiceKey{}, errors.New("want namespace/hostname")
	}
	return mesh.ServiceKey{Namespace: namespace, Hostname: hostname}, nil
}
