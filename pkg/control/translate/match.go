package translate

import (
	"strconv"
	"strings"

	securityv1beta1 "istio.io/api/security/v1beta1"

	securityapi "github.com/fairlead-mesh/fairlead/api/security"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// sources converts the sources of a rule. Those that name principals and trust
// domains both, of which both must hold, cannot be one match: they stand alone,
// with two clauses each.
func (c *converter) sources(from []*securityv1beta1.Rule_From) (out clause, alone [][]clause, l7 bool) {
	for _, f := range from {
		s := f.GetSource()
		for _, a := range []struct {
			name   string
			values []string
		}{{"requestPrincipals", s.GetRequestPrincipals()}, {"notRequestPrincipals", s.GetNotRequestPrincipals()},
			{"remoteIpBlocks", s.GetRemoteIpBlocks()}, {"notRemoteIpBlocks", s.GetNotRemoteIpBlocks()}} {
			l7 = c.note(a.name, a.values) || l7
		}
		domains, notDomains, unsupported := trustDomains(s.GetTrustDomains(), s.GetNotTrustDomains())
		l7 = l7 || unsupported
		c.suffixes = c.suffixes || unsupported
		m := &securityapi.Match{
			Namespaces: texts(s.GetNamespaces()), NotNamespaces: texts(s.GetNotNamespaces()),
			Principals: texts(s.GetPrincipals()), NotPrincipals: append(texts(s.GetNotPrincipals()), notDomains...),
			ServiceAccounts: c.accounts(s.GetServiceAccounts()), NotServiceAccounts: c.accounts(s.GetNotServiceAccounts()),
			SourceIps: blocks(s.GetIpBlocks()), NotSourceIps: blocks(s.GetNotIpBlocks()),
		}
		switch {
		case len(domains) == 0:
			out.add(m)
		case len(m.Principals) == 0:
			m.Principals = domains
			out.add(m)
		default:
			var one, two clause
			one.add(m)
			two.add(&securityapi.Match{Principals: domains})
			alone = append(alone, []clause{one, two})
		}
	}
	return out, alone, l7
}

// trustDomains are matches on how a principal begins. How a trust domain ends
// cannot be seen there: a list with such a value is widened to every trust
// domain, or such a value is left out of what is excluded, and it is reported.
// Both only make a DENY match more; an ALLOW rule is omitted.
func trustDomains(values, notValues []string) (positive, negative []*securityapi.StringMatch, unsupported bool) {
	convert := func(values []string) (out []*securityapi.StringMatch, suffix bool) {
		for _, v := range values {
			switch {
			case v == "*":
				out = append(out, presence()...)
			case strings.HasPrefix(v, "*"):
				suffix = true
			case strings.HasSuffix(v, "*"):
				out = append(out, &securityapi.StringMatch{MatchType: &securityapi.StringMatch_Prefix{Prefix: strings.TrimSuffix(v, "*")}})
			default:
				out = append(out, &securityapi.StringMatch{MatchType: &securityapi.StringMatch_Prefix{Prefix: v + "/"}})
			}
		}
		return out, suffix
	}
	positive, suffix := convert(values)
	if suffix {
		positive = nil
	}
	negative, notSuffix := convert(notValues)
	return positive, negative, suffix || notSuffix
}

// texts are exact values, prefix*, *suffix, or * for any value.
func texts(values []string) []*securityapi.StringMatch {
	var out []*securityapi.StringMatch
	for _, v := range values {
		switch {
		case v == "*":
			out = append(out, presence()...)
		case strings.HasPrefix(v, "*"):
			out = append(out, &securityapi.StringMatch{MatchType: &securityapi.StringMatch_Suffix{Suffix: strings.TrimPrefix(v, "*")}})
		case strings.HasSuffix(v, "*"):
			out = append(out, &securityapi.StringMatch{MatchType: &securityapi.StringMatch_Prefix{Prefix: strings.TrimSuffix(v, "*")}})
		default:
			out = append(out, &securityapi.StringMatch{MatchType: &securityapi.StringMatch_Exact{Exact: v}})
		}
	}
	return out
}

func (c *converter) accounts(values []string) []*securityapi.ServiceAccountMatch {
	var out []*securityapi.ServiceAccountMatch
	for _, v := range values {
		namespace, name, ok := strings.Cut(v, "/")
		if !ok {
			namespace, name = c.namespace, v
		}
		out = append(out, &securityapi.ServiceAccountMatch{Namespace: namespace, ServiceAccount: name})
	}
	return out
}

// blocks and ports leave out nothing: source has refused what cannot be read.
func blocks(values []string) []*securityapi.Address {
	var out []*securityapi.Address
	for _, v := range values {
		if b, err := source.ParseBlock(v); err == nil {
			out = append(out, &securityapi.Address{Address: b.Addr().AsSlice(), Length: uint32(b.Bits())})
		}
	}
	return out
}

func ports(values []string) []uint32 {
	var out []uint32
	for _, v := range values {
		if p, err := strconv.ParseUint(v, 10, 16); err == nil {
			out = append(out, uint32(p))
		}
	}
	return out
}
