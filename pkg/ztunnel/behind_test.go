package ztunnel

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// What a waypoint has decided on is not decided on again, and nothing else is taken for
// it: neither its identity from elsewhere, nor another's from its address, nor a
// waypoint whose control plane does not say that it decides.
func TestBehindAWaypoint(t *testing.T) {
	s, err := store.New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	byName := &mesh.GatewayAddr{Service: key("waypoint"), Port: 15008}
	byVIP := &mesh.GatewayAddr{Addr: na("10.1.0.9"), Port: 15008}
	authorizes := func(w *mesh.Workload) { w.WaypointAuthorizes = true }
	waypoint := pod("waypoint", "10.0.0.9", of(key("waypoint")))
	own := pod("own", "10.0.0.2", authorizes, func(w *mesh.Workload) { w.Waypoint = byVIP })
	service := pod("service", "10.0.0.3", authorizes, of(key("web")))
	unsaid := pod("unsaid", "10.0.0.4", of(key("web")))
	none := pod("none", "10.0.0.5", authorizes)
	// Another namespace has put the pod behind a service of its own.
	foreign := mesh.ServiceKey{Namespace: "other", Hostname: "web.other.svc.cluster.local"}
	claimed := pod("claimed", "10.0.0.6", authorizes, of(key("web")), of(foreign))
	theirs := mesh.ServiceKey{Namespace: "other", Hostname: "waypoint.other.svc.cluster.local"}
	evil := pod("evil", "10.0.0.8", of(theirs), func(w *mesh.Workload) { w.Namespace = "other" })
	if err := s.Apply(mesh.Delta{
		Workloads: []*mesh.Workload{waypoint, own, service, unsaid, none, claimed, evil, pod("client", "10.0.0.1")},
		Services: []*mesh.Service{
			{Key: key("waypoint"), Name: "waypoint", VIPs: []mesh.NetworkAddr{na("10.1.0.9")}},
			{Key: key("web"), Name: "web", Waypoint: byName},
			{Key: theirs, Name: "waypoint"},
			{Key: foreign, Name: "web", Waypoint: &mesh.GatewayAddr{Service: theirs, Port: 15008}},
		},
	}); err != nil {
		t.Fatal(err)
	}
	deny := []*mesh.Policy{{Namespace: "ns", Name: "deny", Action: mesh.ActionDeny, Rules: []mesh.PolicyRule{{}}}}
	id := func(account string) mesh.Identity {
		return mesh.Identity{TrustDomain: "cluster.local", Namespace: "ns", ServiceAccount: account}
	}
	for _, c := range []struct {
		name  string
		self  *mesh.Workload
		peer  mesh.Identity
		from  string
		allow bool
	}{
		{"of a service's waypoint", service, id("waypoint"), "10.0.0.9", true},
		{"of the pod's own waypoint, by its address", own, id("waypoint"), "10.0.0.9", true},
		{"its identity from elsewhere", service, id("waypoint"), "10.0.0.1", false},
		{"another's identity from its address", service, id("client"), "10.0.0.9", false},
		{"no identity from its address", service, mesh.Identity{}, "10.0.0.9", false},
		{"a client", service, id("client"), "10.0.0.1", false},
		{"a control plane that does not say so", unsaid, id("waypoint"), "10.0.0.9", false},
		{"its waypoint, though another namespace claims the pod", claimed, id("waypoint"), "10.0.0.9", true},
		{"the waypoint of another namespace that claims the pod", claimed, evil.Identity(), "10.0.0.8", false},
		{"a waypoint that is not the pod's", none, id("waypoint"), "10.0.0.9", false},
	} {
		conn := authz.Conn{Source: c.peer, SourceIP: netip.MustParseAddr(c.from), Destination: netip.AddrPortFrom(c.self.Addrs[0], 8080)}
		if d := decide(s.Snapshot(), c.self, deny, conn); d.Allow != c.allow {
			t.Errorf("%s: %+v, want allow %t", c.name, d, c.allow)
		}
	}
}
