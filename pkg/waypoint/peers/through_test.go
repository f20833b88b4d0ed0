package peers

import (
	"net/netip"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func exact(values ...string) (out []mesh.StringMatch) {
	for _, v := range values {
		out = append(out, mesh.StringMatch{Kind: mesh.MatchExact, Value: v})
	}
	return out
}

// TestThroughTheWaypoint holds that a rule on the waypoint's own identity refuses
// nobody who came through it, and that other rules are about the original caller.
func TestThroughTheWaypoint(t *testing.T) {
	self := mesh.Identity{TrustDomain: "td", Namespace: "a", ServiceAccount: "w"}
	caller := authz.Conn{
		Source:   mesh.Identity{TrustDomain: "td", Namespace: "b", ServiceAccount: "x"},
		SourceIP: netip.MustParseAddr("10.0.0.7"), Destination: netip.MustParseAddrPort("10.0.0.1:80"),
	}
	const own, other = "td/ns/a/sa/w", "td/ns/a/sa/z"
	account := []mesh.ServiceAccountMatch{{Namespace: "a", ServiceAccount: "w"}}
	for name, tc := range map[string]struct {
		action  mesh.PolicyAction
		matches []mesh.PolicyMatch
		allowed bool
	}{
		"only the waypoint":               {mesh.ActionAllow, []mesh.PolicyMatch{{Principals: exact(own)}}, true},
		"the waypoint or another":         {mesh.ActionAllow, []mesh.PolicyMatch{{Principals: exact(other, own)}}, true},
		"the waypoint's account":          {mesh.ActionAllow, []mesh.PolicyMatch{{ServiceAccounts: account}}, true},
		"the waypoint on another port":    {mesh.ActionAllow, []mesh.PolicyMatch{{Principals: exact(own), DestinationPorts: []uint16{81}}}, false},
		"the waypoint on this port":       {mesh.ActionAllow, []mesh.PolicyMatch{{Principals: exact(own), DestinationPorts: []uint16{80}}}, true},
		"another":                         {mesh.ActionAllow, []mesh.PolicyMatch{{Principals: exact(other)}}, false},
		"the waypoint's namespace":        {mesh.ActionAllow, []mesh.PolicyMatch{{Namespaces: exact("a")}}, false},
		"none but the waypoint":           {mesh.ActionDeny, []mesh.PolicyMatch{{NotPrincipals: exact(own)}}, true},
		"none but the waypoint's account": {mesh.ActionDeny, []mesh.PolicyMatch{{NotServiceAccounts: account}}, true},
		"none but another":                {mesh.ActionDeny, []mesh.PolicyMatch{{NotPrincipals: exact(other)}}, false},
		"either of two denials":           {mesh.ActionDeny, []mesh.PolicyMatch{{NotPrincipals: exact(own)}, {Namespaces: exact("b")}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := &mesh.Policy{Name: "p", Namespace: "a", Action: tc.action, Rules: []mesh.PolicyRule{{Clauses: []mesh.PolicyClause{{Matches: tc.matches}}}}}
			in := []*mesh.Policy{p}
			if got := authz.Evaluate(through(in, self), caller).Allow; got != tc.allowed {
				t.Errorf("allowed %v, want %v", got, tc.allowed)
			}
			if in[0] != p || len(p.Rules[0].Clauses[0].Matches) != len(tc.matches) {
				t.Error("the policy was changed")
			}
		})
	}
}
