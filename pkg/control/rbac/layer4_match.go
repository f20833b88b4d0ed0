package rbac

import (
	"net/netip"
	"regexp"
	"slices"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"google.golang.org/protobuf/proto"

	securityapi "github.com/fairlead-mesh/fairlead/api/security"
)

// split parts the clauses of a group into those on the source and those on the
// destination. It is false for a group that cannot match. A clause on both, which
// package translate does not make, counts as one that a DENY always matches and
// an ALLOW never does.
func split(g *securityapi.Group, deny bool) (sources, destinations []*securityapi.Rules, ok bool) {
	for _, c := range g.Rules {
		if len(c.Matches) == 0 {
			continue
		}
		some := &securityapi.Rules{}
		source, destination := false, false
		for _, m := range c.Matches {
			s, d := namesSource(m), namesDestination(m)
			if s || d { // an empty match matches nothing
				some.Matches = append(some.Matches, m)
			}
			source, destination = source || s, destination || d
		}
		switch {
		case !source && !destination:
			return nil, nil, false
		case source && destination && !deny:
			return nil, nil, false
		case source && destination:
		case source:
			sources = append(sources, some)
		default:
			destinations = append(destinations, some)
		}
	}
	return sources, destinations, true
}

func namesSource(m *securityapi.Match) bool {
	return len(m.Namespaces)+len(m.NotNamespaces)+len(m.Principals)+len(m.NotPrincipals)+len(m.SourceIps)+len(m.NotSourceIps)+
		len(m.ServiceAccounts)+len(m.NotServiceAccounts) > 0
}

func namesDestination(m *securityapi.Match) bool {
	return len(m.DestinationIps)+len(m.NotDestinationIps)+len(m.DestinationPorts)+len(m.NotDestinationPorts) > 0
}

// matches tells whether a match on the destination holds for d.
func (d destination) matches(m *securityapi.Match) bool {
	in := func(blocks []*securityapi.Address) bool {
		return slices.ContainsFunc(blocks, func(b *securityapi.Address) bool { return prefix(b).Contains(d.address.Unmap()) })
	}
	return (len(m.DestinationIps) == 0 || in(m.DestinationIps)) && !in(m.NotDestinationIps) &&
		(len(m.DestinationPorts) == 0 || slices.Contains(m.DestinationPorts, d.port)) && !slices.Contains(m.NotDestinationPorts, d.port)
}

// sourceID is a match on the source.
func (o own) sourceID(m *securityapi.Match) *rbacv3.Principal {
	var t terms[*rbacv3.Principal]
	t.any, t.not = anyID, notID
	both(&t, m.Principals, m.NotPrincipals, o.principalOf)
	both(&t, m.Namespaces, m.NotNamespaces, namespaceOf)
	both(&t, m.ServiceAccounts, m.NotServiceAccounts, func(a *securityapi.ServiceAccountMatch) *rbacv3.Principal {
		if proto.Equal(a, o.account) {
			return anyone()
		}
		return accountOf(a.Namespace, a.ServiceAccount)
	})
	both(&t, m.SourceIps, m.NotSourceIps, func(b *securityapi.Address) *rbacv3.Principal {
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_DirectRemoteIp{DirectRemoteIp: cidr(prefix(b))}}
	})
	return allIDs(t.all)
}

// destinationRule is a match on the destination.
func destinationRule(m *securityapi.Match) *rbacv3.Permission {
	var t terms[*rbacv3.Permission]
	t.any, t.not = anyRule, notRule
	both(&t, m.DestinationIps, m.NotDestinationIps, func(b *securityapi.Address) *rbacv3.Permission { return toBlock(prefix(b)) })
	both(&t, m.DestinationPorts, m.NotDestinationPorts, func(p uint32) *rbacv3.Permission {
		return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationPort{DestinationPort: p}}
	})
	return allRules(t.all)
}

func both[V, T any](t *terms[T], values, not []V, match func(V) T) {
	if len(values) > 0 {
		t.all = append(t.all, t.any(each(values, match)))
	}
	if len(not) > 0 {
		t.all = append(t.all, t.not(t.any(each(not, match))))
	}
}

func (o own) principalOf(m *securityapi.StringMatch) *rbacv3.Principal {
	switch v := m.GetMatchType().(type) {
	case *securityapi.StringMatch_Exact:
		if v.Exact == o.principal {
			return anyone()
		}
		return principalID(v.Exact)
	case *securityapi.StringMatch_Prefix:
		return principalID(v.Prefix + "*")
	case *securityapi.StringMatch_Suffix:
		return principalID("*" + v.Suffix)
	}
	return principalID("*")
}

func anyone() *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}
}

func namespaceOf(m *securityapi.StringMatch) *rbacv3.Principal {
	expression := "[^/]+"
	switch v := m.GetMatchType().(type) {
	case *securityapi.StringMatch_Exact:
		expression = regexp.QuoteMeta(v.Exact)
	case *securityapi.StringMatch_Prefix:
		expression = regexp.QuoteMeta(v.Prefix) + "[^/]*"
	case *securityapi.StringMatch_Suffix:
		expression = "[^/]*" + regexp.QuoteMeta(v.Suffix)
	}
	return identity(regex("spiffe://[^/]+/ns/" + expression + "/.*"))
}

// prefix is a block of the wire; one that is no address contains nothing.
func prefix(b *securityapi.Address) netip.Prefix {
	a, ok := netip.AddrFromSlice(b.GetAddress())
	if !ok {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 128)
	}
	return netip.PrefixFrom(a, int(b.GetLength()))
}

func toBlock(p netip.Prefix) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationIp{DestinationIp: cidr(p)}}
}

func toAddresses(all []destination) *rbacv3.Permission {
	var rules []*rbacv3.Permission
	for _, d := range all {
		if d.address.IsValid() {
			rules = append(rules, toBlock(netip.PrefixFrom(d.address.Unmap(), d.address.Unmap().BitLen())))
		}
	}
	if len(rules) == 0 {
		rules = []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}}
	}
	return anyRule(rules)
}
