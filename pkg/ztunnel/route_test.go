package ztunnel

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func na(s string) mesh.NetworkAddr { return mesh.NetworkAddr{Addr: netip.MustParseAddr(s)} }

func pod(name, addr string, edit ...func(*mesh.Workload)) *mesh.Workload {
	w := &mesh.Workload{
		UID: mesh.WorkloadID(name), Name: name, Namespace: "ns", TrustDomain: "cluster.local", ServiceAccount: name, Healthy: true, Capacity: 1,
		Tunnel: mesh.TunnelHBONE, Services: map[mesh.ServiceKey][]mesh.Port{},
	}
	if addr != "" {
		w.Addrs = []netip.Addr{netip.MustParseAddr(addr)}
	}
	for _, e := range edit {
		e(w)
	}
	return w
}

func plainTCP(w *mesh.Workload) { w.Tunnel = mesh.TunnelNone }

func of(key mesh.ServiceKey) func(*mesh.Workload) {
	return func(w *mesh.Workload) { w.Services[key] = nil }
}

func key(hostname string) mesh.ServiceKey {
	return mesh.ServiceKey{Namespace: "ns", Hostname: hostname}
}

func TestDecide(t *testing.T) {
	s, err := store.New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	service := func(name, vip string, edit ...func(*mesh.Service)) *mesh.Service {
		svc := &mesh.Service{Key: key(name), Name: name, Ports: []mesh.Port{{Service: 80, Target: 8080}}, VIPs: []mesh.NetworkAddr{na(vip)}}
		for _, e := range edit {
			e(svc)
		}
		return svc
	}
	gateway := &mesh.GatewayAddr{Service: key("waypoint"), Port: 15008}
	withWaypoint := func(w *mesh.Workload) { w.Waypoint = gateway }
	client := pod("client", "10.0.0.1")
	waypoint := pod("waypoint", "10.0.0.9", of(key("waypoint")))
	if err := s.Apply(mesh.Delta{
		Workloads: []*mesh.Workload{
			client, waypoint,
			pod("hbone", "10.0.1.1", of(key("tunnelled"))), pod("tcp", "10.0.1.2", plainTCP, of(key("plain"))),
			pod("host", "10.0.1.3", func(w *mesh.Workload) { w.HostNetwork = true }),
			pod("far", "10.0.1.4", func(w *mesh.Workload) { w.Network = "far" }, of(key("far"))),
			pod("bound", "10.0.1.5", withWaypoint), pod("named", "", plainTCP, of(key("named")), func(w *mesh.Workload) { w.Hostname = "db.example.com" }),
			pod("by-address", "10.0.1.6", func(w *mesh.Workload) { w.Waypoint = &mesh.GatewayAddr{Addr: na("10.0.0.9"), Port: 15008} }),
			pod("by-vip", "10.0.1.7", func(w *mesh.Workload) { w.Waypoint = &mesh.GatewayAddr{Addr: na("10.1.0.9"), Port: 15008} }),
			pod("not-found", "10.0.1.8", func(w *mesh.Workload) { w.Waypoint = &mesh.GatewayAddr{Service: key("nobody"), Port: 15008} }),
			pod("dual", "fd00::2", of(key("dual")), func(w *mesh.Workload) { w.Addrs = append(w.Addrs, netip.MustParseAddr("10.0.1.9")) }),
		},
		Services: []*mesh.Service{
			service("tunnelled", "10.1.0.1", func(s *mesh.Service) { s.SubjectAltNames = []string{"spiffe://cluster.local/ns/other/sa/x"} }),
			service("plain", "10.1.0.2"), service("empty", "10.1.0.3"), service("far", "10.1.0.4"), service("named", "10.1.0.5"),
			service("through", "10.1.0.6", func(s *mesh.Service) { s.Waypoint = gateway }),
			service("passthrough", "10.1.0.7", func(s *mesh.Service) { s.Balancing.Mode = mesh.BalancePassthrough }),
			service("dual", "fd00:1::8"),
			service("weighted", "10.1.0.8", func(s *mesh.Service) {
				s.Waypoint = &mesh.GatewayAddr{Service: key("nobody"), Port: 15008}
				s.WeightedWaypoints = []mesh.WeightedWaypoint{{Waypoint: *s.Waypoint}, {Waypoint: *gateway, Weight: 100}}
			}),
			{Key: key("waypoint"), VIPs: []mesh.NetworkAddr{na("10.1.0.9")}, Ports: []mesh.Port{{Service: 15008, Target: 15008}}},
		},
	}); err != nil {
		t.Fatal(err)
	}

	type result struct {
		Kind, Destination, Authority, Workload, Service string
		Expected                                        []string
	}
	id := func(name string) []string { return []string{"spiffe://cluster.local/ns/ns/sa/" + name} }
	for name, c := range map[string]struct {
		from *mesh.Workload
		to   string
		want result
		err  error
	}{
		"outside the mesh":     {client, "192.0.2.1:443", result{Kind: "tcp", Destination: "192.0.2.1:443"}, nil},
		"client not known":     {nil, "10.0.1.1:80", result{"hbone", "10.0.1.1:15008", "10.0.1.1:80", "hbone", "", id("hbone")}, nil},
		"pod":                  {client, "10.0.1.1:80", result{"hbone", "10.0.1.1:15008", "10.0.1.1:80", "hbone", "", id("hbone")}, nil},
		"plain pod":            {client, "10.0.1.2:80", result{"tcp", "10.0.1.2:80", "", "tcp", "", nil}, nil},
		"host network":         {client, "10.0.1.3:80", result{Kind: "tcp", Destination: "10.0.1.3:80"}, nil},
		"other network's":      {client, "10.0.1.4:80", result{Kind: "tcp", Destination: "10.0.1.4:80"}, nil},
		"oneself":              {client, "10.0.0.1:80", result{"hbone", "10.0.0.1:15008", "10.0.0.1:80", "client", "", id("client")}, nil},
		"service":              {client, "10.1.0.1:80", result{"hbone", "10.0.1.1:15008", "10.0.1.1:8080", "hbone", "tunnelled", append(id("hbone"), "spiffe://cluster.local/ns/other/sa/x")}, nil},
		"service's wrong port": {client, "10.1.0.1:81", result{Service: "tunnelled"}, store.ErrNoPort},
		"plain service":        {client, "10.1.0.2:80", result{"tcp", "10.0.1.2:8080", "", "tcp", "plain", nil}, nil},
		"empty service":        {client, "10.1.0.3:80", result{Service: "empty"}, store.ErrNoEndpoint},
		"far service":          {client, "10.1.0.4:80", result{Workload: "far", Service: "far"}, errNetwork},
		"named endpoint":       {client, "10.1.0.5:80", result{"tcp", "invalid AddrPort", "", "named", "named", nil}, nil},
		"service waypoint":     {client, "10.1.0.6:80", result{"hbone", "10.0.0.9:15008", "10.1.0.6:80", "waypoint", "through", id("waypoint")}, nil},
		"from the waypoint":    {waypoint, "10.1.0.6:80", result{Service: "through"}, store.ErrNoEndpoint},
		"weighted waypoint":    {client, "10.1.0.8:80", result{"hbone", "10.0.0.9:15008", "10.1.0.8:80", "waypoint", "weighted", id("waypoint")}, nil},
		"passthrough service":  {client, "10.1.0.7:80", result{"tcp", "10.1.0.7:80", "", "", "passthrough", nil}, nil},
		"pod waypoint":         {client, "10.0.1.5:80", result{"hbone", "10.0.0.9:15008", "10.0.1.5:80", "waypoint", "", id("waypoint")}, nil},
		"pod, from waypoint":   {waypoint, "10.0.1.5:80", result{"hbone", "10.0.1.5:15008", "10.0.1.5:80", "bound", "", id("bound")}, nil},
		"waypoint by address":  {client, "10.0.1.6:80", result{"hbone", "10.0.0.9:15008", "10.0.1.6:80", "waypoint", "", id("waypoint")}, nil},
		"waypoint by VIP":      {client, "10.0.1.7:80", result{"hbone", "10.0.0.9:15008", "10.0.1.7:80", "waypoint", "", id("waypoint")}, nil},
		"waypoint not found":   {client, "10.0.1.8:80", result{}, errWaypoint},
		"IPv6 service":         {client, "[fd00:1::8]:80", result{"hbone", "[fd00::2]:15008", "[fd00::2]:8080", "dual", "dual", id("dual")}, nil},
	} {
		r, err := Decide(s.Snapshot(), c.from, "", ap(c.to))
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
			continue
		}
		got := result{Expected: r.Expected}
		if err == nil {
			got.Kind, got.Destination = "tcp", r.Destination.String()
		}
		if r.Tunnel {
			got.Kind, got.Authority = "hbone", r.Authority.String()
		}
		if r.Workload != nil {
			got.Workload = r.Workload.Name
		}
		if r.Service != nil {
			got.Service = r.Service.Name
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}
