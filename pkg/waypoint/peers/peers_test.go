package peers

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// An endpoint that is here before its workload is decided on by the workload's policies,
// and refused while it is not known; what is not in the mesh has none.
func TestEndpointsBeforeTheirWorkloads(t *testing.T) {
	s, err := store.New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	v := NewView(s, "net", mesh.Identity{TrustDomain: "td", Namespace: "a", ServiceAccount: "w"})
	caller := &streaminfo.Connection{Remote: netip.MustParseAddrPort("10.0.0.7:1"), PeerURISAN: "spiffe://td/ns/b/sa/x"}
	open, closed, never := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80"), netip.MustParseAddrPort("10.0.0.3:80")
	answers := map[netip.AddrPort]chan error{}
	for _, to := range []netip.AddrPort{open, closed} {
		answer := make(chan error, 1)
		answers[to] = answer
		go func() { answer <- v.Authorize(caller, to, true) }()
	}
	pod := func(to netip.AddrPort, policies ...string) *mesh.Workload {
		return &mesh.Workload{UID: mesh.WorkloadID(to.String()), Namespace: "a", Network: "net", Addrs: []netip.Addr{to.Addr()}, Policies: policies}
	}
	if err := s.Apply(mesh.Delta{Workloads: []*mesh.Workload{pod(open), pod(closed, "a/p")}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(mesh.Delta{Policies: []*mesh.Policy{{
		Namespace: "a", Name: "p", Scope: mesh.ScopeWorkload, Action: mesh.ActionDeny, Rules: []mesh.PolicyRule{{Clauses: []mesh.PolicyClause{{}}}},
	}}}); err != nil {
		t.Fatal(err)
	}
	if err := <-answers[open]; err != nil {
		t.Error("one without policies:", err)
	}
	if err := <-answers[closed]; err == nil {
		t.Error("a policy that came after its workload did not hold")
	}
	if err := v.Authorize(caller, never, true); err == nil {
		t.Error("one that is not known was let through")
	}
	if err := v.Authorize(caller, never, false); err != nil {
		t.Error("one that is not in the mesh:", err)
	}
}
