package push

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/test/condition"
)

// generated makes the configuration that a test says, by waypoint: names by type,
// a value after "=" is the content.
type generated struct {
	mu    sync.Mutex
	all   map[string]map[string][]string
	calls []string
}

func (g *generated) generate(w *model.Waypoint, c Consumer) (Generated, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	call, suffix := w.Key.Name, ""
	if c.Istio {
		call, suffix = call+" for Istio", "-istio"
	}
	if c.Own {
		call += " of ours"
	}
	g.calls = append(g.calls, call)
	out := Resources{}
	for typeURL, names := range g.all[w.Key.Name] {
		out[typeURL] = map[string]proto.Message{}
		for _, n := range names {
			name, value, _ := strings.Cut(n, "=")
			out[typeURL][name+suffix] = wrapperspb.String(value)
		}
	}
	return Generated{All: out}, nil
}

func (g *generated) asked() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.calls)
}

// configure publishes a waypoint's clusters, endpoints, listeners and routes.
func (r *rig) configure(waypoint string, clusters, endpoints, listeners, routes []string) {
	r.t.Helper()
	r.world.mu.Lock()
	if r.world.all == nil {
		r.world.all = map[string]map[string][]string{}
	}
	r.world.all[waypoint] = map[string][]string{ClusterType: clusters, EndpointType: endpoints, ListenerType: listeners, RouteType: routes}
	r.world.mu.Unlock()
	if _, err := r.waypoints.Publish(&model.Model{Waypoints: []*model.Waypoint{
		{Key: model.Key{Namespace: "shop", Name: "one"}, ServiceAccount: "one"},
		{Key: model.Key{Namespace: "shop", Name: "other"}, ServiceAccount: "other"},
		{Key: model.Key{Namespace: "shop", Name: "twin-a"}, ServiceAccount: "twins"},
		{Key: model.Key{Namespace: "shop", Name: "twin-b"}, ServiceAccount: "twins"},
	}}, r.world.generate); err != nil {
		r.t.Fatal(err)
	}
}

// waypoint is a client of an account of namespace shop.
func (r *rig) waypoint(account string, meta map[string]any) *agent {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	r.t.Cleanup(cancel)
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer shop/"+account+"/"+account+"-1/n1")
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	fields, err := structpb.NewStruct(meta)
	if err != nil {
		r.t.Fatal(err)
	}
	return &agent{t: r.t, stream: stream, have: map[string]map[string]string{}, node: &core.Node{
		Id: "waypoint~10.0.0.9~" + account + "-1.shop~shop.svc.cluster.local", Metadata: fields,
	}}
}

// ask subscribes to names.
func (a *agent) ask(typeURL string, names ...string) {
	a.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names})
}

// started is a waypoint that has everything of the configuration given.
func (r *rig) started(t *testing.T) *agent {
	t.Helper()
	r.configure("one", []string{"c1"}, []string{"e1"}, []string{"l"}, []string{"r=c1"})
	a := r.waypoint("one", nil)
	a.subscribe(ClusterType)
	m := a.receive()
	a.ask(EndpointType, "e1") // as Envoy does, before it answers
	a.ack(m)
	a.wants("endpoints +e1")
	a.subscribe(ListenerType)
	a.wants("listeners +l")
	a.ask(RouteType, "r")
	a.wants("routes +r")
	return a
}

// A cluster has its endpoints before a route names it, and goes when none does.
func TestRoutesMoveAfterTheirClustersAreReady(t *testing.T) {
	r := newRig(t)
	a := r.started(t)
	r.configure("one", []string{"c2"}, []string{"e2"}, []string{"l"}, []string{"r=c2"})
	m := a.receive()
	if got := described(m); got != "clusters +c2" {
		t.Fatalf("first came %q", got)
	}
	a.ask(EndpointType, "e2")
	a.ack(m)
	m = a.receive()
	if got := described(m); got != "endpoints +e2" {
		t.Fatalf("then came %q", got)
	}
	condition.Await(t, "nothing more is sent before the endpoints are taken", func() bool {
		s := r.server.Clients()[0].Types
		return len(s["routes"].Waiting) == 0 && len(s["endpoints"].Waiting) == 1 && s["routes"].Behind > 0
	})
	a.ack(m)
	a.wants("routes +r")
	got := []string{described(a.take()), described(a.take())}
	if want := []string{"endpoints -e1", "clusters -c1"}; !slices.Equal(got, want) {
		t.Errorf("last came %q, want %q", got, want)
	}
}

// A changed route moves one resource, at once.
func TestOneRouteMovesAlone(t *testing.T) {
	r := newRig(t)
	a := r.started(t)
	r.configure("one", []string{"c1"}, []string{"e1"}, []string{"l"}, []string{"r=c1 and more"})
	a.wants("routes +r")
	r.configure("one", []string{"c1"}, []string{"e1", "nobody asks for"}, []string{"l"}, []string{"r=c1", "nor for this"})
	a.wants("routes +r")
}

// Each waypoint has its own, in its own form, made when it is there to take it.
func TestConfigurationIsPerGatewayAndForm(t *testing.T) {
	r := newRig(t)
	for _, w := range []string{"one", "other", "twin-a", "twin-b"} {
		r.configure(w, []string{"of-" + w}, nil, nil, nil)
	}
	if got := r.world.asked(); len(got) > 0 {
		t.Errorf("made for nobody: %v", got)
	}
	for _, c := range []struct {
		account string
		meta    map[string]any
		want    string
	}{
		{"one", nil, "clusters +of-one"},
		{"other", map[string]any{"NODE_NAME": "n1"}, "clusters +of-other"},
		{"one", map[string]any{"ISTIO_VERSION": "1.31.0"}, "clusters +of-one-istio"},
		{"one", map[string]any{"ISTIO_VERSION": "1.31.0", "FAIRLEAD_VERSION": "1"}, "clusters +of-one"},
		{"twins", map[string]any{"LABELS": map[string]any{labelGatewayName: "twin-b"}}, "clusters +of-twin-b"},
	} {
		a := r.waypoint(c.account, c.meta)
		a.subscribe(ClusterType)
		a.wants(c.want)
	}
	if got, want := r.world.asked(), []string{"one", "other", "one for Istio", "one of ours", "twin-b"}; !slices.Equal(got, want) {
		t.Errorf("made: %v, want %v", got, want)
	}
}

// Nobody gets what is not his.
func TestWaypointRefusals(t *testing.T) {
	r := newRig(t)
	r.configure("one", []string{"c"}, nil, nil, nil)
	for name, c := range map[string]struct {
		account, id, node, label string
	}{
		"no waypoint's account":     {"web", "waypoint~1~web-1.shop~x", "n1", ""},
		"another's Gateway":         {"one", "waypoint~1~one-1.shop~x", "n1", "other"},
		"which of two is not said":  {"twins", "waypoint~1~twins-1.shop~x", "n1", ""},
		"another pod":               {"one", "waypoint~1~one-2.shop~x", "n1", ""},
		"another node":              {"one", "waypoint~1~one-1.shop~x", "n2", ""},
		"as if it were a nodeagent": {"one", "ztunnel~1~one-1.shop~x", "n1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			meta := map[string]any{"NODE_NAME": c.node}
			if c.label != "" {
				meta["LABELS"] = map[string]any{labelGatewayName: c.label}
			}
			a := r.waypoint(c.account, meta)
			a.node.Id = c.id
			_ = a.stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: ClusterType, Node: a.node}) // it may have been refused already
			if _, err := a.stream.Recv(); status.Code(err) != codes.PermissionDenied {
				t.Errorf("%v, want a refusal", err)
			}
		})
	}
}

// A waypoint is told of workloads and policies as a node agent is.
func TestWaypointsKnowTheMesh(t *testing.T) {
	r := newRig(t)
	r.configure("one", nil, nil, nil, nil)
	r.set([]string{"p"}, []string{"w"})
	a := r.waypoint("one", nil)
	a.subscribe(AddressType, AuthorizationType)
	a.wants("policies +p", "addresses +w")
}

// An Envoy that is sent a cluster anew waits for endpoints which it has asked for before,
// and acknowledges neither until they come.
func TestClusterSentAgainBringsItsEndpoints(t *testing.T) {
	r := newRig(t)
	r.configure("one", []string{"c1", "c2"}, []string{"c1", "c2"}, []string{"l"}, nil)
	a := r.waypoint("one", nil)
	a.subscribe(ClusterType)
	m := a.receive()
	a.ask(EndpointType, "c1", "c2")
	a.ack(m)
	a.wants("endpoints +c1 +c2")
	r.configure("one", []string{"c1=ring hash", "c2"}, []string{"c1", "c2"}, []string{"l"}, nil)
	if got := described(a.receive()); got != "clusters +c1=ring hash" && got != "clusters +c1" {
		t.Fatalf("first came %q", got)
	}
	a.wants("endpoints +c1") // without an answer
}

// What comes back with names and versions is sent what differs.
func TestWaypointReconnects(t *testing.T) {
	r := newRig(t)
	a := r.started(t)
	if err := a.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	condition.Await(t, "the stream has ended", func() bool { return len(r.server.Clients()) == 0 })
	r.configure("one", []string{"c1"}, []string{"e1=moved"}, []string{"l"}, []string{"r=c1"})
	b := r.waypoint("one", nil)
	b.have = a.have
	b.subscribe(ClusterType)
	b.wants("clusters ")
	for _, c := range []struct{ typeURL, name, want string }{{EndpointType, "e1", "endpoints +e1"}, {RouteType, "r", "routes "}} {
		b.send(&discovery.DeltaDiscoveryRequest{TypeUrl: c.typeURL, ResourceNamesSubscribe: []string{c.name}, InitialResourceVersions: a.have[c.typeURL]})
		b.wants(c.want)
	}
}

// A refused listener is shown with its reason, counted, and sent again.
func TestRefusedListenerIsShown(t *testing.T) {
	r := newRig(t)
	r.configure("one", nil, nil, []string{"good", "main_internal"}, nil)
	a := r.waypoint("one", nil)
	a.subscribe(ListenerType)
	m := a.receive()
	const reason = "main_internal: filter_chains[2]: no such filter"
	a.send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce, ErrorDetail: &rpcstatus.Status{Message: reason}})
	condition.Await(t, "the refusal is shown", func() bool {
		for _, c := range r.server.Clients() {
			s := c.Types["listeners"]
			return c.Waypoint == "shop/one" && slices.Equal(s.Refused, []string{"main_internal"}) && s.Nack == reason
		}
		return false
	})
	if n := testutil.ToFloat64(r.server.metrics.nacks.WithLabelValues("listeners")); n != 1 {
		t.Errorf("%v refusals counted", n)
	}
	a.wants("listeners +main_internal")
}

// A waypoint whose Gateway goes keeps what it has.
func TestGatewayGone(t *testing.T) {
	r := newRig(t)
	a := r.started(t)
	if _, err := r.waypoints.Publish(&model.Model{}, r.world.generate); err != nil {
		t.Fatal(err)
	}
	if c := r.server.Clients()[0]; !c.Gone || c.Waypoint != "shop/one" {
		t.Errorf("shown as %+v", c)
	}
	r.configure("one", []string{"c1"}, []string{"e1"}, []string{"l"}, []string{"r=back"})
	a.wants("routes +r")
}

// What came before is not marshalled again.
func TestUnchangedMessagesAreNotLookedAt(t *testing.T) {
	l := newLog(envoyTypes)
	l.encoder.keep = true
	m := wrapperspb.String("x")
	if _, err := l.Set(Resources{RouteType: {"r": m}}); err != nil {
		t.Fatal(err)
	}
	m.Value = "changed behind the log's back, to see whether it looks"
	if n, err := l.Set(Resources{RouteType: {"r": m}}); n != 0 || err != nil {
		t.Errorf("%d changed, %v", n, err)
	}
	if n, err := l.Set(Resources{RouteType: {"r": wrapperspb.String("y")}}); n != 1 || err != nil {
		t.Errorf("%d changed, %v", n, err)
	}
}

// Where what was set last is known to differ in some messages, only these are looked at;
// where it is not what was set last, all are.
func TestOnlyWhatIsSaidToHaveChangedIsLookedAt(t *testing.T) {
	l := newLog(envoyTypes)
	l.encoder.keep = true
	of := func(values ...string) Resources {
		out := Resources{RouteType: {}}
		for i, v := range values {
			out[RouteType][fmt.Sprint("r", i)] = wrapperspb.String(v)
		}
		return out
	}
	first, other := of("a", "b", "c"), of("x")
	for _, step := range []struct {
		g    Generated
		want int
	}{
		{Generated{All: first}, 3},
		{Generated{All: of("a", "not said", "d", "e"), Before: first, Changed: Resources{RouteType: {"r2": wrapperspb.String("d"), "r3": wrapperspb.String("e")}}}, 2},
		{Generated{All: other, Before: first, Changed: Resources{}}, 4}, // one changes and three go
		{Generated{All: of("x"), Before: other, Changed: Resources{}}, 0},
	} {
		if n, err := l.follow(step.g); n != step.want || err != nil {
			t.Errorf("%v: %d changed, want %d; %v", step.g.All, n, step.want, err)
		}
	}
}

// The form without differences: all clusters or listeners in each response, and
// of endpoints and routes those that changed.
func TestStateOfTheWorld(t *testing.T) {
	r := newRig(t)
	r.configure("one", []string{"c1", "c2"}, []string{"e1"}, []string{"l"}, []string{"r"})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer shop/one/one-1/n1")
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	send := func(typeURL, nonce string, names ...string) {
		t.Helper()
		if err := stream.Send(&discovery.DiscoveryRequest{
			Node: &core.Node{Id: "waypoint~10.0.0.9~one-1.shop~x"}, TypeUrl: typeURL, ResponseNonce: nonce, VersionInfo: nonce, ResourceNames: names,
		}); err != nil {
			t.Fatal(err)
		}
	}
	take := func(typeURL string, want ...string) {
		t.Helper()
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, packed := range m.Resources {
			var value wrapperspb.StringValue
			if err := proto.Unmarshal(packed.Value, &value); err != nil || packed.TypeUrl != typeURL {
				t.Fatalf("%v, %v", packed, err)
			}
			got = append(got, value.Value)
		}
		slices.Sort(got)
		if m.TypeUrl != typeURL || !slices.Equal(got, want) {
			t.Fatalf("%s %q, want %s %q", m.TypeUrl, got, typeURL, want)
		}
		names := map[string][]string{EndpointType: {"e1"}, RouteType: {"r"}}
		send(typeURL, m.Nonce, names[typeURL]...)
	}
	send(ClusterType, "")
	take(ClusterType, "", "")
	send(EndpointType, "", "e1")
	take(EndpointType, "")
	send(ListenerType, "")
	take(ListenerType, "")
	send(RouteType, "", "r")
	take(RouteType, "")
	r.configure("one", []string{"c1", "c2=changed", "c3=new"}, []string{"e1"}, []string{"l"}, []string{"r=changed", "other"})
	take(ClusterType, "", "changed", "new")
	take(RouteType, "changed")
	r.configure("one", []string{"c3=new"}, []string{"e1"}, []string{"l"}, []string{"r=changed"})
	take(ClusterType, "new")
}

// One bad route configuration does not keep others of its response from a client
// that takes all or nothing.
func TestOneBadRouteHarmsNoOther(t *testing.T) {
	r := newRig(t)
	r.configure("one", nil, nil, nil, []string{"a", "bad", "c"})
	a := r.waypoint("one", nil)
	nack := func(m *discovery.DeltaDiscoveryResponse) {
		t.Helper()
		a.send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce, ErrorDetail: &rpcstatus.Status{Message: "missing ]: [a"}})
	}
	a.ask(RouteType, "a", "bad", "c")
	m := a.receive()
	if got := described(m); got != "routes +a +bad +c" {
		t.Fatalf("first came %q", got)
	}
	nack(m)
	a.wants("routes +a")
	m = a.receive()
	if got := described(m); got != "routes +bad" {
		t.Fatalf("then came %q", got)
	}
	nack(m)
	a.wants("routes +c")
	condition.Await(t, "the bad one alone counts as refused", func() bool {
		return slices.Equal(r.server.Clients()[0].Types["routes"].Refused, []string{"bad"})
	})
	r.configure("one", nil, nil, nil, []string{"a", "bad=mended", "c"})
	a.wants("routes +bad")
	condition.Await(t, "nothing is refused", func() bool { return len(r.server.Clients()[0].Types["routes"].Refused) == 0 })
}

// What cannot be encoded keeps all that came with it from being published, whatever
// comes after it: types are set in any order.
func TestAllOrNothingIsSet(t *testing.T) {
	for range 50 {
		l := newLog(envoyTypes)
		n, err := l.Set(Resources{
			ClusterType:  {"bad": &clusterv3.Cluster{Name: "\xff"}},
			EndpointType: {"good": &endpointv3.ClusterLoadAssignment{ClusterName: "good"}},
		})
		if err == nil || n != 0 || len(l.types[EndpointType]) > 0 {
			t.Fatalf("%d changes, error %v, endpoints %v", n, err, l.types[EndpointType])
		}
	}
}
