package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/control/door"
	"github.com/fairlead-mesh/fairlead/pkg/token"
	"github.com/fairlead-mesh/fairlead/test/condition"
)

// reviewer takes "namespace/account/pod/node" for a token, or "namespace/account" for one
// without a pod.
type reviewer struct{}

func (reviewer) Review(_ context.Context, bearer string) (token.Caller, error) {
	p := strings.Split(bearer, "/")
	if len(p) == 2 {
		return token.Caller{}, &token.UnboundError{Namespace: p[0], ServiceAccount: p[1]}
	}
	if len(p) != 4 {
		return token.Caller{}, errors.New("not a token")
	}
	return token.Caller{Namespace: p[0], ServiceAccount: p[1], Pod: p[2], Node: p[3]}, nil
}

// rig is a server on loopback.
type rig struct {
	t         *testing.T
	log       *Log
	waypoints *Waypoints
	world     *generated
	server    *Server
	conn      *grpc.ClientConn
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, log: NewLog(), world: &generated{}}
	r.waypoints = NewWaypoints(slog.New(slog.DiscardHandler))
	entrance, err := door.New(door.Options{Turns: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if r.server, err = NewServer(Options{
		Log: r.log, Reviewer: reviewer{}, Identity: "replica-1", NodeAccounts: []string{"istio-system/ztunnel"}, Waypoints: r.waypoints, Door: entrance,
		Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.ForceServerCodecV2(Codec()))
	r.server.Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	if r.conn, err = grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
	return r
}

// set publishes names as policies and addresses; a value after "=" is the content.
func (r *rig) set(policies, addresses []string) {
	r.t.Helper()
	all := Resources{AuthorizationType: {}, AddressType: {}}
	for typeURL, names := range map[string][]string{AuthorizationType: policies, AddressType: addresses} {
		for _, n := range names {
			name, value, _ := strings.Cut(n, "=")
			all[typeURL][name] = wrapperspb.String(value)
		}
	}
	if _, err := r.log.Set(all); err != nil {
		r.t.Fatal(err)
	}
}

// agent is a client as it is on the wire.
type agent struct {
	t      *testing.T
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	node   *core.Node
	// have is what it holds, by type: versions by name.
	have map[string]map[string]string
}

func (r *rig) agent(node string) *agent {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	r.t.Cleanup(cancel)
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer istio-system/ztunnel/ztunnel-"+node+"/"+node)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return &agent{t: r.t, stream: stream, have: map[string]map[string]string{AuthorizationType: {}, AddressType: {}}, node: &core.Node{
		Id:       "ztunnel~1.1.1.1~ztunnel-" + node + ".istio-system~istio-system.svc.cluster.local",
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"NODE_NAME": structpb.NewStringValue(node)}},
	}}
}

func (a *agent) send(q *discovery.DeltaDiscoveryRequest) {
	a.t.Helper()
	q.Node = a.node
	if err := a.stream.Send(q); err != nil {
		a.t.Fatal(err)
	}
}

// subscribe asks for everything of the types, with what it holds.
func (a *agent) subscribe(types ...string) {
	for _, t := range types {
		a.send(&discovery.DeltaDiscoveryRequest{TypeUrl: t, InitialResourceVersions: maps.Clone(a.have[t])})
	}
}

// receive takes the next response without answering it.
func (a *agent) receive() *discovery.DeltaDiscoveryResponse {
	a.t.Helper()
	m, err := a.stream.Recv()
	if err != nil {
		a.t.Fatal(err)
	}
	if a.have[m.TypeUrl] == nil {
		a.have[m.TypeUrl] = map[string]string{}
	}
	for _, r := range m.Resources {
		a.have[m.TypeUrl][r.Name] = r.Version
	}
	for _, name := range m.RemovedResources {
		delete(a.have[m.TypeUrl], name)
	}
	return m
}

func (a *agent) ack(m *discovery.DeltaDiscoveryResponse) {
	a.send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce})
}

func (a *agent) take() *discovery.DeltaDiscoveryResponse {
	a.t.Helper()
	m := a.receive()
	a.ack(m)
	return m
}

// described is a response in a line.
func described(m *discovery.DeltaDiscoveryResponse) string {
	var names []string
	for _, r := range m.Resources {
		names = append(names, "+"+r.Name)
	}
	for _, n := range m.RemovedResources {
		names = append(names, "-"+n)
	}
	slices.Sort(names)
	return kindOf(m.TypeUrl) + " " + strings.Join(names, " ")
}

func (a *agent) wants(want ...string) {
	a.t.Helper()
	for _, w := range want {
		if got := described(a.take()); got != w {
			a.t.Fatalf("got %q, want %q", got, w)
		}
	}
}

// What a workload names is there before it, and goes after it.
func TestPoliciesBeforeWorkloads(t *testing.T) {
	r := newRig(t)
	r.set([]string{"p"}, []string{"w"})
	a := r.agent("n1")
	a.subscribe(AddressType, AuthorizationType) // in the other order
	a.wants("policies +p", "addresses +w")
	r.set([]string{"p", "q"}, []string{"w=names q"})
	a.wants("policies +q", "addresses +w")
	r.set([]string{"p"}, []string{"w=names p"})
	a.wants("addresses +w", "policies -q")
}

// A reconnect is sent what differs from what the agent holds, and nothing else.
func TestReconnectGetsTheDifference(t *testing.T) {
	r := newRig(t)
	r.set([]string{"p", "gone"}, []string{"same", "changed=1", "also gone"})
	a := r.agent("n1")
	a.subscribe(AuthorizationType, AddressType)
	a.wants("policies +gone +p", "addresses +also gone +changed +same")
	if err := a.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	r.set([]string{"p", "new"}, []string{"same", "changed=2"})
	b := r.agent("n1")
	b.have = a.have
	b.subscribe(AuthorizationType, AddressType)
	got := []string{described(b.take()), described(b.take())}
	for len(b.have[AuthorizationType]) != 2 || len(b.have[AddressType]) != 2 {
		got = append(got, described(b.take()))
	}
	words := strings.Fields(strings.ReplaceAll(strings.Join(got, " "), "also gone", "also_gone"))
	for _, w := range []string{"+changed", "+new", "-gone", "-also_gone"} {
		if !slices.Contains(words, w) {
			t.Errorf("%s was not sent: %v", w, words)
		}
	}
	for _, w := range []string{"+same", "+p"} {
		if slices.Contains(words, w) {
			t.Errorf("%s was sent, and is held: %v", w, words)
		}
	}
}

// A lone change goes at once; of a storm the last state arrives, in few pushes.
func TestStormIsCoalesced(t *testing.T) {
	r := newRig(t)
	a := r.agent("n1")
	a.subscribe(AuthorizationType, AddressType)
	a.wants("policies ", "addresses ")
	const changes = 400
	start := time.Now()
	go func() {
		rate := time.NewTicker(time.Millisecond) // the storm's own
		defer rate.Stop()
		for i := range changes {
			r.set(nil, []string{fmt.Sprintf("w=%d", i)})
			<-rate.C
		}
	}()
	last := ""
	pushes := 0
	for want := encodedVersion(t, "w", fmt.Sprint(changes-1)); last != want; pushes++ {
		a.take()
		last = a.have[AddressType]["w"]
	}
	if most := int(time.Since(start)/interval) + 2; pushes > most {
		t.Errorf("%d pushes in %s, want at most %d", pushes, time.Since(start), most)
	}
}

func encodedVersion(t *testing.T, name, value string) string {
	t.Helper()
	r, err := (&encoder{}).encode(AddressType, name, wrapperspb.String(value), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r.version
}

// What an agent refuses is shown, counted, and sent again.
func TestRefusedIsShownAndSentAgain(t *testing.T) {
	r := newRig(t)
	r.set(nil, []string{"bad", "good"})
	a := r.agent("n1")
	a.subscribe(AuthorizationType, AddressType)
	a.wants("policies ")
	m := a.receive()
	a.send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce, ErrorDetail: &rpcstatus.Status{Message: "bad: no such thing"}})
	condition.Await(t, "the refusal is shown", func() bool {
		for _, c := range r.server.Clients() {
			s := c.Types["addresses"]
			return c.Node == "n1" && slices.Equal(s.Refused, []string{"bad"}) && s.Nack == "bad: no such thing"
		}
		return false
	})
	if n := testutil.ToFloat64(r.server.metrics.nacks.WithLabelValues("addresses")); n != 1 {
		t.Errorf("%v refusals counted", n)
	}
	a.wants("addresses +bad")
	condition.Await(t, "nothing is refused any more", func() bool {
		return len(r.server.Clients()[0].Types["addresses"].Refused) == 0
	})
}

// One change is marshalled once, and what is sent of it is the same for all.
func TestBytesAreShared(t *testing.T) {
	l := NewLog()
	if _, err := l.Set(Resources{AddressType: {"w": wrapperspb.String("1")}}); err != nil {
		t.Fatal(err)
	}
	at := l.seq
	if _, err := l.Set(Resources{AddressType: {"w": wrapperspb.String("2")}}); err != nil {
		t.Fatal(err)
	}
	one, _ := l.sinceLocked(AddressType, at)
	two, _ := l.sinceLocked(AddressType, at)
	if one != two {
		t.Error("two clients at one position have two differences")
	}
	if n := testing.AllocsPerRun(100, func() {
		if d, ok := l.sinceLocked(AddressType, at); !ok || d.empty() {
			t.Error("no difference")
		}
		one.encoded()
	}); n > 0 {
		t.Errorf("%v allocations for one more client", n)
	}
	// What has not changed is not marshalled into something new.
	before := l.types[AddressType]["w"]
	if n, err := l.Set(Resources{AddressType: {"w": wrapperspb.String("2")}}); n != 0 || err != nil || l.types[AddressType]["w"] != before {
		t.Errorf("%d changed, %v", n, err)
	}
}

// Who does not read, or not answer, holds nobody up, and is left when it is too
// far behind.
func TestSlowClientHarmsNobody(t *testing.T) {
	r := newRig(t)
	r.set(nil, []string{"w=0"})
	slow, quick := r.agent("slow"), r.agent("quick")
	for _, a := range []*agent{slow, quick} {
		a.subscribe(AuthorizationType, AddressType)
		a.wants("policies ")
	}
	slow.receive() // and never answers
	quick.wants("addresses +w")
	for i := range 5 {
		r.set(nil, []string{fmt.Sprintf("w=%d", i+1)})
		quick.wants("addresses +w")
	}
	many := map[string]proto.Message{}
	for i := range maxChanges + 1 {
		many[fmt.Sprintf("w%d", i)] = wrapperspb.String("x")
	}
	if _, err := r.log.Set(Resources{AddressType: many}); err != nil {
		t.Fatal(err)
	}
	if _, err := slow.stream.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("too far behind: %v", err)
	}
}

// Who may not ask, or asks for what is not served, is told why.
func TestRefusals(t *testing.T) {
	r := newRig(t)
	r.set(nil, []string{"w"})
	good := "istio-system/ztunnel/ztunnel-n1/n1"
	for _, c := range []struct {
		name, token, node, typeURL string
		names                      []string
		code                       codes.Code
	}{
		{"no token", "", "n1", AddressType, nil, codes.Unauthenticated},
		{"not a token", "x", "n1", AddressType, nil, codes.Unauthenticated},
		{"an application", "shop/web/web-1/n1", "n1", AddressType, nil, codes.PermissionDenied},
		{"another node", good, "n2", AddressType, nil, codes.PermissionDenied},
		{"another type", good, "n1", "type.googleapis.com/envoy.config.cluster.v3.Cluster", nil, codes.PermissionDenied},
		{"a single address", good, "n1", AddressType, []string{"net/10.0.0.1"}, codes.InvalidArgument},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if c.token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
			}
			stream, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).DeltaAggregatedResources(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_ = stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: c.typeURL, ResourceNamesSubscribe: c.names, Node: &core.Node{
				Id:       "ztunnel~1.1.1.1~ztunnel-n1.istio-system~istio-system.svc.cluster.local",
				Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"NODE_NAME": structpb.NewStringValue(c.node)}},
			}}) // it may have been refused already
			if _, err := stream.Recv(); status.Code(err) != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
		})
	}
}

// An agent needs one stream: of too many the oldest ends.
func TestOldestOfTooManyStreamsEnds(t *testing.T) {
	r := newRig(t)
	var all []*agent
	for range maxStreams + 1 {
		a := r.agent("n1")
		a.subscribe(AuthorizationType)
		a.wants("policies ")
		all = append(all, a)
	}
	if _, err := all[0].stream.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the oldest: %v", err)
	}
	r.set([]string{"p"}, nil)
	for _, a := range all[1:] {
		a.wants("policies +p")
	}
}

// BenchmarkOneChange is one changed resource of 30,000, for 2,000 agents.
func BenchmarkOneChange(b *testing.B) {
	l := NewLog()
	all := map[string]proto.Message{}
	for i := range 30_000 {
		all[fmt.Sprintf("w%d", i)] = wrapperspb.String("x")
	}
	if _, err := l.Set(Resources{AddressType: all}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := range b.N {
		at := l.seq
		all["w1"] = wrapperspb.String(fmt.Sprint(i))
		if _, err := l.Set(Resources{AddressType: all}); err != nil {
			b.Fatal(err)
		}
		for range 2000 {
			if d, ok := l.sinceLocked(AddressType, at); !ok || len(d.resources) != 1 {
				b.Fatal("no difference")
			}
		}
	}
}
