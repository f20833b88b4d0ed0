package push

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/test/condition"
)

// asked sends one request in the manner of istioctl.
func (r *rig) asked(bearer string, q *discovery.DiscoveryRequest) (*discovery.DiscoveryResponse, error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	r.t.Cleanup(cancel)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).StreamAggregatedResources(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+bearer))
	if err != nil {
		r.t.Fatal(err)
	}
	q.Node = &core.Node{Id: "sidecar~10.0.0.1~test-1.istio-system~istio-system.svc.cluster.local"}
	q.ResponseNonce = time.Now().String() // as istioctl's client does
	_ = stream.Send(q)                    // it may have been refused already
	return stream.Recv()
}

// A person's tool sees who is connected and what each acknowledged, and nothing of it
// needs a pod.
func TestInspectorSeesWhoIsInSync(t *testing.T) {
	r := newRig(t)
	r.set([]string{"p"}, []string{"w"})
	a := r.agent("n1")
	a.subscribe(AuthorizationType, AddressType)
	a.ack(a.receive())
	a.receive() // and does not say whether it took this one
	condition.Await(t, "the acknowledgement is seen", func() bool {
		clients := r.server.Clients()
		return len(clients) == 1 && clients[0].Types["policies"].Acked != "" && len(clients[0].Types["addresses"].Waiting) == 1
	})
	got, err := r.asked("istio-system/default", &discovery.DiscoveryRequest{TypeUrl: syncType})
	if err != nil {
		t.Fatal(err)
	}
	var who struct{ Component, ID string }
	if err := json.Unmarshal([]byte(got.GetControlPlane().GetIdentifier()), &who); err != nil || who.Component != "istiod" || who.ID != "replica-1" {
		t.Errorf("the control plane says that it is %v: %v", got.GetControlPlane(), err)
	}
	one := &statusv3.ClientConfig{}
	if len(got.GetResources()) != 1 || got.GetResources()[0].UnmarshalTo(one) != nil {
		t.Fatalf("resources: %v", got.GetResources())
	}
	if one.GetNode().GetId() != "ztunnel-n1.istio-system" || one.GetNode().GetMetadata().GetFields()["NAMESPACE"].GetStringValue() != "istio-system" {
		t.Errorf("node: %v", one.GetNode())
	}
	want := map[string]statusv3.ConfigStatus{AuthorizationType: statusv3.ConfigStatus_SYNCED, AddressType: statusv3.ConfigStatus_STALE}
	for _, c := range one.GetGenericXdsConfigs() {
		if c.GetConfigStatus() != want[c.GetTypeUrl()] {
			t.Errorf("%s is %s, want %s", c.GetTypeUrl(), c.GetConfigStatus(), want[c.GetTypeUrl()])
		}
		delete(want, c.GetTypeUrl())
	}
	if len(want) > 0 {
		t.Errorf("nothing of %v", want)
	}
}

// Our own command line sees what the page /debug/syncz shows.
func TestClientsAreListed(t *testing.T) {
	r := newRig(t)
	r.set([]string{"p"}, []string{"w"})
	a := r.agent("n1")
	a.subscribe(AuthorizationType, AddressType)
	a.ack(a.receive())
	got, err := r.asked("istio-system/default", &discovery.DiscoveryRequest{TypeUrl: ClientsType})
	if err != nil {
		t.Fatal(err)
	}
	var all []Sync
	if len(got.GetResources()) != 1 || json.Unmarshal(got.GetResources()[0].GetValue(), &all) != nil || len(all) != 1 || all[0].Pod != "ztunnel-n1" || all[0].Node != "n1" {
		t.Errorf("resources: %v", got.GetResources())
	}
}

// What a waypoint was sent is shown as Envoy would show it.
func TestInspectorSeesWhatAWaypointWasSent(t *testing.T) {
	r := newRig(t)
	r.started(t)
	got, err := r.asked("istio-system/default", &discovery.DiscoveryRequest{TypeUrl: dumpType, ResourceNames: []string{"one-1.shop"}})
	if err != nil {
		t.Fatal(err)
	}
	clusters := &adminv3.ClustersConfigDump{}
	if len(got.GetResources()) != 3 || got.GetResources()[0].UnmarshalTo(clusters) != nil || len(clusters.GetDynamicActiveClusters()) == 0 {
		t.Errorf("resources: %v", got.GetResources())
	}
}

func TestInspectorIsRefused(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		bearer string
		q      *discovery.DiscoveryRequest
		code   codes.Code
	}{
		"another namespace":        {"shop/default", &discovery.DiscoveryRequest{TypeUrl: syncType}, codes.Unauthenticated},
		"another namespace's list": {"shop/default", &discovery.DiscoveryRequest{TypeUrl: ClientsType}, codes.Unauthenticated},
		"an agent's list":          {"istio-system/ztunnel", &discovery.DiscoveryRequest{TypeUrl: ClientsType}, codes.Unauthenticated},
		"another account":          {"istio-system/fairlead-cni", &discovery.DiscoveryRequest{TypeUrl: syncType}, codes.Unauthenticated},
		"an agent's":               {"istio-system/ztunnel", &discovery.DiscoveryRequest{TypeUrl: dumpType, ResourceNames: []string{"one-1.shop"}}, codes.Unauthenticated},
		"workloads":                {"istio-system/default", &discovery.DiscoveryRequest{TypeUrl: AddressType}, codes.PermissionDenied},
		"all proxies":              {"istio-system/default", &discovery.DiscoveryRequest{TypeUrl: dumpType}, codes.PermissionDenied},
		"who is not there":         {"istio-system/default", &discovery.DiscoveryRequest{TypeUrl: dumpType, ResourceNames: []string{"x.shop"}}, codes.NotFound},
	} {
		if _, err := r.asked(c.bearer, c.q); status.Code(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
}
