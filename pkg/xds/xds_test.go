package xds

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/api/security"
	"github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

var netipCompare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestFromWorkload(t *testing.T) {
	got, err := FromWorkload(&workload.Workload{
		Uid: "c//Pod/ns/a", Name: "a", Namespace: "ns", Addresses: [][]byte{{10, 0, 0, 1}, netip.MustParseAddr("::ffff:10.0.0.2").AsSlice()},
		TunnelProtocol: workload.TunnelProtocol_HBONE, WorkloadType: workload.WorkloadType_POD, Capacity: wrapperspb.UInt32(3),
		AuthorizationPolicies: []string{"ns/p"}, Services: map[string]*workload.PortList{"ns/host": {Ports: []*workload.Port{{ServicePort: 80, TargetPort: 8080}}}},
		Waypoint: &workload.GatewayAddress{HboneMtlsPort: 15008, Destination: &workload.GatewayAddress_Hostname{Hostname: &workload.NamespacedHostname{Namespace: "ns", Hostname: "wp"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &mesh.Workload{
		UID: "c//Pod/ns/a", Name: "a", Namespace: "ns", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")},
		TrustDomain: "cluster.local", ServiceAccount: "default", Tunnel: mesh.TunnelHBONE, WorkloadType: "pod", Capacity: 3, Healthy: true,
		Policies: []string{"ns/p"}, Services: map[mesh.ServiceKey][]mesh.Port{{Namespace: "ns", Hostname: "host"}: {{Service: 80, Target: 8080}}},
		Waypoint: &mesh.GatewayAddr{Service: mesh.ServiceKey{Namespace: "ns", Hostname: "wp"}, Port: 15008},
	}
	if diff := cmp.Diff(want, got, netipCompare); diff != "" {
		t.Errorf("workload (-want +got):\n%s", diff)
	}
}

func TestBadResourcesNameTheField(t *testing.T) {
	match := func(m *security.Match) *security.Authorization {
		return &security.Authorization{Name: "p", Namespace: "ns", Groups: []*security.Group{{Rules: []*security.Rules{{Matches: []*security.Match{m}}}}}}
	}
	newer := match(&security.Match{Principals: []*security.StringMatch{{MatchType: &security.StringMatch_Presence{Presence: &emptypb.Empty{}}}}})
	newer.Groups[0].Rules[0].Matches[0].ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
	for want, m := range map[string]proto.Message{
		"uid: is empty":                        &workload.Workload{},
		"addresses[1]: 3 bytes, want 4 or 16":  &workload.Workload{Uid: "u", Addresses: [][]byte{{1, 2, 3, 4}, {1, 2, 3}}},
		"tunnel_protocol: LEGACY_ISTIO_MTLS":   &workload.Workload{Uid: "u", TunnelProtocol: workload.TunnelProtocol_LEGACY_ISTIO_MTLS},
		`services["x"]: want namespace/host`:   &workload.Workload{Uid: "u", Services: map[string]*workload.PortList{"x": {}}},
		"ports[0].target_port: 70000":          &workload.Service{Namespace: "n", Hostname: "h", Ports: []*workload.Port{{ServicePort: 1, TargetPort: 70000}}},
		"waypoint: no destination":             &workload.Service{Namespace: "n", Hostname: "h", Waypoint: &workload.GatewayAddress{}},
		"addresses[0].length":                  &workload.Service{Namespace: "n", Hostname: "h", Addresses: []*workload.NetworkAddress{{Address: []byte{1, 2, 3, 4}, Length: proto.Uint32(33)}}},
		"load_balancing.mode: 9 is unknown":    &workload.Service{Namespace: "n", Hostname: "h", LoadBalancing: &workload.LoadBalancing{Mode: 9}},
		"action: 7 is unknown":                 &security.Authorization{Name: "p", Namespace: "n", Action: 7},
		"principals[0]: unknown kind of match": match(&security.Match{Principals: []*security.StringMatch{{}}}),
		"source_ips[0].length: 40 bits":        match(&security.Match{SourceIps: []*security.Address{{Address: []byte{1, 2, 3, 4}, Length: 40}}}),
		"not_destination_ports[0]: 66000":      match(&security.Match{NotDestinationPorts: []uint32{66000}}),
		"does not know":                        newer,
		"network_mode: 5 is unknown":           &workload.Workload{Uid: "u", NetworkMode: 5},
		"status: 5 is unknown":                 &workload.Workload{Uid: "u", Status: 5},
		"application_tunnel.protocol: 5":       &workload.Workload{Uid: "u", ApplicationTunnel: &workload.ApplicationTunnel{Protocol: 5}},
		"visibility: 5 is unknown":             &workload.Service{Namespace: "n", Hostname: "h", Visibility: 5},
		"ip_families: 9 is unknown":            &workload.Service{Namespace: "n", Hostname: "h", IpFamilies: 9},
		"load_balancing.health_policy: 4":      &workload.Service{Namespace: "n", Hostname: "h", LoadBalancing: &workload.LoadBalancing{HealthPolicy: 4}},
		`extensions: "geo" is not supported`:   match(&security.Match{Extensions: []*security.Extension{{Name: "geo"}}}),
	} {
		var err error
		switch m := m.(type) {
		case *workload.Workload:
			_, err = FromWorkload(m)
		case *workload.Service:
			_, err = FromService(m)
		case *security.Authorization:
			_, err = FromAuthorization(m)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

// server is a control plane that a test scripts.
type server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	requests chan *discovery.DeltaDiscoveryRequest
	send     chan *discovery.DeltaDiscoveryResponse
	hangUp   chan struct{}
}

func (s *server) DeltaAggregatedResources(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			s.requests <- r
		}
	}()
	for {
		select {
		case r := <-s.send:
			if err := stream.Send(r); err != nil {
				return err
			}
		case <-s.hangUp:
			return errors.New("hung up")
		case <-stream.Context().Done():
			return nil
		}
	}
}

type recorder struct {
	mu     sync.Mutex
	deltas []mesh.Delta
	fail   error
}

func (r *recorder) Apply(d mesh.Delta) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deltas = append(r.deltas, d)
	return r.fail
}

func (r *recorder) HasPolicy(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.deltas {
		for _, p := range d.Policies {
			if p.Key() == key {
				return true
			}
		}
	}
	return false
}

func (r *recorder) last() mesh.Delta {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.deltas[len(r.deltas)-1]
}

func start(t *testing.T, o Options) (*Client, *server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{
		requests: make(chan *discovery.DeltaDiscoveryRequest, 100), send: make(chan *discovery.DeltaDiscoveryResponse), hangUp: make(chan struct{}),
	}
	g := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
	go func() { _ = g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	o.Conn, o.Logger, o.NodeID = conn, slog.New(slog.DiscardHandler), "ztunnel~1.1.1.1~a.b~b.svc.cluster.local"
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		conn.Close()
		g.Stop()
	})
	return c, s
}

func (s *server) request(t *testing.T) *discovery.DeltaDiscoveryRequest {
	t.Helper()
	select {
	case r := <-s.requests:
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("no request")
		return nil
	}
}

func address(t *testing.T, name, version string, m proto.Message) *discovery.Resource {
	t.Helper()
	a := &workload.Address{}
	switch m := m.(type) {
	case *workload.Workload:
		a.Type = &workload.Address_Workload{Workload: m}
	case *workload.Service:
		a.Type = &workload.Address_Service{Service: m}
	}
	packed, err := anypb.New(a)
	if err != nil {
		t.Fatal(err)
	}
	return &discovery.Resource{Name: name, Version: version, Resource: packed}
}

func TestConversation(t *testing.T) {
	applied := &recorder{}
	synced := make(chan string, 4)
	c, s := start(t, Options{Applier: applied, Metadata: map[string]any{"NODE_NAME": "n1"}, Synced: func(u string) { synced <- u },
		Known: Versions{AddressType: {"kept": "v0"}}})

	// Policies are asked for before addresses; the node and what is held are told.
	first, second := s.request(t), s.request(t)
	if first.TypeUrl != AuthorizationType || first.Node.GetMetadata().AsMap()["NODE_NAME"] != "n1" || second.TypeUrl != AddressType {
		t.Fatalf("first requests: %v, %v", first, second)
	}
	if diff := cmp.Diff(map[string]string{"kept": "v0"}, second.InitialResourceVersions); diff != "" {
		t.Error(diff)
	}
	if len(first.ResourceNamesSubscribe)+len(second.ResourceNamesSubscribe) != 0 {
		t.Error("not a wildcard subscription")
	}

	// One good, one bad: the good one is taken, the bad one refused by name.
	s.send <- &discovery.DeltaDiscoveryResponse{TypeUrl: AddressType, Nonce: "1", RemovedResources: []string{"kept"}, Resources: []*discovery.Resource{
		address(t, "good", "v1", &workload.Workload{Uid: "good"}),
		address(t, "bad", "v1", &workload.Workload{Uid: "bad", Addresses: [][]byte{{1}}}),
		address(t, "alias", "v1", &workload.Workload{Uid: "another"}),
	}}
	nack := s.request(t)
	if nack.ResponseNonce != "1" || nack.ErrorDetail.GetMessage() != `alias: uid: "another" under another name; bad: addresses[0]: 1 bytes, want 4 or 16` {
		t.Errorf("NACK: %v", nack)
	}
	if got := <-synced; got != AddressType {
		t.Errorf("synced %s", got)
	}
	if n := len(c.State().Rejected); n != 2 {
		t.Errorf("%d rejected resources in the state", n)
	}

	// The next connection tells what is held: not what was refused or removed.
	s.hangUp <- struct{}{}
	s.request(t)
	if again := s.request(t); again.TypeUrl != AddressType || !cmp.Equal(map[string]string{"good": "v1"}, again.InitialResourceVersions) {
		t.Errorf("after a reconnect: %v", again)
	}
	s.send <- &discovery.DeltaDiscoveryResponse{TypeUrl: AddressType, Nonce: "2", Resources: []*discovery.Resource{
		address(t, "bad", "v2", &workload.Workload{Uid: "bad"}), address(t, "alias", "v2", &workload.Workload{Uid: "alias"})}}
	if ack := s.request(t); ack.ErrorDetail != nil || ack.ResponseNonce != "2" {
		t.Errorf("ACK: %v", ack)
	}
	if n := len(c.State().Rejected); n != 0 {
		t.Errorf("%d resources still count as rejected", n)
	}
	// A type that nobody asked for is refused and does not end the stream.
	s.send <- &discovery.DeltaDiscoveryResponse{TypeUrl: "other", Nonce: "3"}
	if r := s.request(t); r.ErrorDetail == nil {
		t.Error("another type was taken")
	}
}

func FuzzDecode(f *testing.F) {
	w, _ := proto.Marshal(&workload.Address{Type: &workload.Address_Workload{Workload: &workload.Workload{Uid: "u", Addresses: [][]byte{{1, 2, 3, 4}}}}})
	p, _ := proto.Marshal(&security.Authorization{Name: "n", Namespace: "s", Groups: []*security.Group{{}}})
	f.Add(true, "u", w)
	f.Add(false, "s/n", p)
	f.Fuzz(func(t *testing.T, isAddress bool, name string, b []byte) {
		u := AuthorizationType
		if isAddress {
			u = AddressType
		}
		decoded := Decode(u, []*discovery.Resource{{Name: name, Resource: &anypb.Any{TypeUrl: u, Value: b}}}, nil)
		delta, rejected := decoded.Delta, decoded.Rejected
		if taken := len(delta.Workloads) + len(delta.Services) + len(delta.Policies); taken+len(rejected) != 1 {
			t.Errorf("taken %d, rejected %d", taken, len(rejected))
		}
		for _, w := range delta.Workloads {
			for _, a := range w.Addrs {
				if !a.IsValid() || a.Is4In6() {
					t.Errorf("address %v", a)
				}
			}
		}
	})
}
