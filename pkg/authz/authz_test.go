package authz

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

var (
	client = mesh.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "client"}
	plain  = mesh.Identity{}
)

func conn(source mesh.Identity) Conn {
	return Conn{
		Source:      source,
		SourceIP:    netip.MustParseAddr("10.1.2.3"),
		Destination: netip.MustParseAddrPort("10.9.9.9:8080"),
	}
}

func exact(s string) []mesh.StringMatch { return []mesh.StringMatch{{Value: s}} }

func presence() []mesh.StringMatch { return []mesh.StringMatch{{Kind: mesh.MatchPresence}} }

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func one(m mesh.PolicyMatch) []mesh.PolicyRule {
	return []mesh.PolicyRule{{Clauses: []mesh.PolicyClause{{Matches: []mesh.PolicyMatch{m}}}}}
}

func TestMatches(t *testing.T) {
	otherTD := mesh.Identity{TrustDomain: "other.example", Namespace: "default", ServiceAccount: "client"}
	for name, c := range map[string]struct {
		rules  []mesh.PolicyRule
		source mesh.Identity
		want   bool
	}{
		"no rules":                               {nil, client, false},
		"a rule without clauses":                 {[]mesh.PolicyRule{{}}, plain, true},
		"a clause without matches":               {[]mesh.PolicyRule{{Clauses: []mesh.PolicyClause{{}}}}, plain, true},
		"an empty match":                         {one(mesh.PolicyMatch{}), client, false},
		"namespace":                              {one(mesh.PolicyMatch{Namespaces: exact("default")}), client, true},
		"another namespace":                      {one(mesh.PolicyMatch{Namespaces: exact("other")}), client, false},
		"not a namespace":                        {one(mesh.PolicyMatch{NotNamespaces: exact("other")}), client, true},
		"not its namespace":                      {one(mesh.PolicyMatch{NotNamespaces: exact("default")}), client, false},
		"no identity is in no namespace":         {one(mesh.PolicyMatch{NotNamespaces: exact("default")}), plain, true},
		"no identity, namespace required":        {one(mesh.PolicyMatch{Namespaces: presence()}), plain, false},
		"principal":                              {one(mesh.PolicyMatch{Principals: exact("cluster.local/ns/default/sa/client")}), client, true},
		"principal of another trust domain":      {one(mesh.PolicyMatch{Principals: exact("cluster.local/ns/default/sa/client")}), otherTD, false},
		"principal by prefix":                    {one(mesh.PolicyMatch{Principals: []mesh.StringMatch{{Kind: mesh.MatchPrefix, Value: "cluster.local/ns/default/"}}}), client, true},
		"principal by suffix":                    {one(mesh.PolicyMatch{Principals: []mesh.StringMatch{{Kind: mesh.MatchSuffix, Value: "/sa/client"}}}), otherTD, true},
		"principal present":                      {one(mesh.PolicyMatch{Principals: presence()}), client, true},
		"principal absent":                       {one(mesh.PolicyMatch{Principals: presence()}), plain, false},
		"empty prefix needs a principal":         {one(mesh.PolicyMatch{Principals: []mesh.StringMatch{{Kind: mesh.MatchPrefix}}}), plain, false},
		"strict: no identity":                    {one(mesh.PolicyMatch{NotPrincipals: presence()}), plain, true},
		"strict: identity":                       {one(mesh.PolicyMatch{NotPrincipals: presence()}), client, false},
		"service account in any trust domain":    {one(mesh.PolicyMatch{ServiceAccounts: []mesh.ServiceAccountMatch{{Namespace: "default", ServiceAccount: "client"}}}), otherTD, true},
		"service account absent":                 {one(mesh.PolicyMatch{ServiceAccounts: []mesh.ServiceAccountMatch{{}}}), plain, false},
		"not a service account":                  {one(mesh.PolicyMatch{NotServiceAccounts: []mesh.ServiceAccountMatch{{Namespace: "default", ServiceAccount: "client"}}}), client, false},
		"source range":                           {one(mesh.PolicyMatch{SourceIPs: prefixes("10.1.0.0/16")}), plain, true},
		"source outside the range":               {one(mesh.PolicyMatch{SourceIPs: prefixes("10.2.0.0/16", "fd00::/8")}), plain, false},
		"not a source range":                     {one(mesh.PolicyMatch{NotSourceIPs: prefixes("10.1.2.3/32")}), plain, false},
		"destination":                            {one(mesh.PolicyMatch{DestinationIPs: prefixes("10.9.9.9/32")}), plain, true},
		"port":                                   {one(mesh.PolicyMatch{DestinationPorts: []uint16{80, 8080}}), plain, true},
		"not a port":                             {one(mesh.PolicyMatch{NotDestinationPorts: []uint16{8080}}), plain, false},
		"two fields and one fails":               {one(mesh.PolicyMatch{DestinationPorts: []uint16{8080}, Namespaces: exact("other")}), client, false},
		"positive and negative of one field":     {one(mesh.PolicyMatch{SourceIPs: prefixes("10.0.0.0/8"), NotSourceIPs: prefixes("10.1.2.0/24")}), client, false},
		"clauses are joined by and":              {[]mesh.PolicyRule{{Clauses: []mesh.PolicyClause{{Matches: []mesh.PolicyMatch{{DestinationPorts: []uint16{8080}}}}, {Matches: []mesh.PolicyMatch{{Namespaces: exact("x")}}}}}}, client, false},
		"matches are joined by or":               {[]mesh.PolicyRule{{Clauses: []mesh.PolicyClause{{Matches: []mesh.PolicyMatch{{Namespaces: exact("x")}, {DestinationPorts: []uint16{8080}}}}}}}, client, true},
		"rules are joined by or":                 {append(one(mesh.PolicyMatch{Namespaces: exact("x")}), mesh.PolicyRule{}), client, true},
		"an empty match beside one that holds":   {[]mesh.PolicyRule{{Clauses: []mesh.PolicyClause{{Matches: []mesh.PolicyMatch{{}, {DestinationPorts: []uint16{8080}}}}}}}, client, true},
		"an empty match beside one that doesn't": {[]mesh.PolicyRule{{Clauses: []mesh.PolicyClause{{Matches: []mesh.PolicyMatch{{}, {DestinationPorts: []uint16{1}}}}}}}, client, false},
	} {
		t.Run(name, func(t *testing.T) {
			asks := conn(c.source)
			if got := policyMatches(&mesh.Policy{Rules: c.rules}, &peer{Conn: asks, principal: asks.Source.Principal()}); got != c.want {
				t.Errorf("matches: %v, want %v", got, c.want)
			}
		})
	}
}

func TestEvaluate(t *testing.T) {
	everyone := []mesh.PolicyRule{{}}
	allow := &mesh.Policy{Namespace: "default", Name: "allow", Rules: everyone}
	allowNobody := &mesh.Policy{Namespace: "default", Name: "allow-nothing"}
	deny := &mesh.Policy{Namespace: "default", Name: "deny", Action: mesh.ActionDeny, Rules: everyone}
	denyNobody := &mesh.Policy{Namespace: "default", Name: "deny-nothing", Action: mesh.ActionDeny}
	dryDeny := &mesh.Policy{Namespace: "default", Name: "dry", Action: mesh.ActionDeny, Rules: everyone, DryRun: true}
	dryAllow := &mesh.Policy{Namespace: "default", Name: "dry-allow", Rules: everyone, DryRun: true}
	for name, c := range map[string]struct {
		policies []*mesh.Policy
		want     Decision
	}{
		"none":                              {nil, Decision{Allow: true, Reason: ReasonNoPolicy}},
		"allow":                             {[]*mesh.Policy{allow}, Decision{Allow: true, Policy: "default/allow", Reason: ReasonAllowed}},
		"allow without rules allows nobody": {[]*mesh.Policy{allowNobody}, Decision{Reason: ReasonNoneAllowed}},
		"one allow of two":                  {[]*mesh.Policy{allowNobody, allow}, Decision{Allow: true, Policy: "default/allow", Reason: ReasonAllowed}},
		"deny before allow":                 {[]*mesh.Policy{allow, deny}, Decision{Policy: "default/deny", Reason: ReasonDenied}},
		"deny without rules denies nobody":  {[]*mesh.Policy{denyNobody}, Decision{Allow: true, Reason: ReasonNoPolicy}},
		"dry-run deny is only reported":     {[]*mesh.Policy{dryDeny}, Decision{Allow: true, Reason: ReasonNoPolicy, DryRun: []string{"default/dry"}}},
		"dry-run deny beside a real one":    {[]*mesh.Policy{dryDeny, deny}, Decision{Policy: "default/deny", Reason: ReasonDenied, DryRun: []string{"default/dry"}}},
		"dry-run allow restricts nobody":    {[]*mesh.Policy{dryAllow}, Decision{Allow: true, Reason: ReasonNoPolicy}},
		"dry-run allow lets nobody in":      {[]*mesh.Policy{dryAllow, allowNobody}, Decision{Reason: ReasonNoneAllowed}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Evaluate(c.policies, conn(client))); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

// A decision stands in the path of every new connection: the principal is
// spelled once, and nothing else is allocated however many policies there are.
func TestEvaluateAllocatesOnce(t *testing.T) {
	policies := []*mesh.Policy{{Action: mesh.ActionDeny, Namespace: "n", Name: "p", Rules: one(mesh.PolicyMatch{DestinationPorts: []uint16{1}})}}
	for range 5 {
		policies = append(policies, policies...)
	}
	c := conn(client)
	if n := testing.AllocsPerRun(100, func() { Evaluate(policies, c) }); n > 1 {
		t.Errorf("Evaluate allocates %v times", n)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	var policies []*mesh.Policy
	for range 1000 {
		p := &mesh.Policy{Action: mesh.ActionDeny, Namespace: "default", Name: "p"}
		for i := range 10 {
			p.Rules = append(p.Rules, one(mesh.PolicyMatch{DestinationPorts: []uint16{uint16(i)}, Principals: exact("cluster.local/ns/x/sa/y")})...)
		}
		policies = append(policies, p)
	}
	c := conn(client)
	b.ReportAllocs()
	for b.Loop() {
		Evaluate(policies, c)
	}
}
