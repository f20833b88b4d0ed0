package xds

import (
	"errors"
	"slices"
	"sync"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/anypb"
)

// engine wants an endpoint set for each cluster and a route for each listener,
// and refuses what is called bad.
type engine struct {
	client *Client

	mu   sync.Mutex
	have map[string]map[string]bool
}

func (e *engine) ApplyEnvoy(typeURL string, updated []*discovery.Resource, removed []string) map[string]error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.have == nil {
		e.have = map[string]map[string]bool{}
	}
	if e.have[typeURL] == nil {
		e.have[typeURL] = map[string]bool{}
	}
	var refused map[string]error
	for _, r := range updated {
		if r.GetName() == "bad" {
			refused = map[string]error{"bad": errors.New("filter_chains[3].filters[0]: unknown filter")}
			continue
		}
		e.have[typeURL][r.GetName()] = true
	}
	for _, name := range removed {
		delete(e.have[typeURL], name)
	}
	names := map[string]string{ClusterType: EndpointType, ListenerType: RouteType}
	if named := names[typeURL]; named != "" {
		var wanted []string
		for name := range e.have[typeURL] {
			wanted = append(wanted, "of-"+name)
		}
		e.client.Want(named, wanted)
	}
	return refused
}

func envoyResources(typeURL, version string, names ...string) (out []*discovery.Resource) {
	for _, n := range names {
		out = append(out, &discovery.Resource{Name: n, Version: version, Resource: &anypb.Any{TypeUrl: typeURL}})
	}
	return out
}

func (s *server) wants(t *testing.T, typeURL string, names ...string) *discovery.DeltaDiscoveryRequest {
	t.Helper()
	r := s.request(t)
	slices.Sort(r.ResourceNamesSubscribe)
	if r.TypeUrl != typeURL || !slices.Equal(r.ResourceNamesSubscribe, names) {
		t.Fatalf("request %v, want one of %s for %q", r, typeURL, names)
	}
	return r
}

// What a cluster names is asked for before the cluster is acknowledged; what is
// refused is named; a reconnect tells what is held; what is gone is let go of.
func TestWaypointConversation(t *testing.T) {
	e := &engine{}
	c, s := start(t, Options{Applier: &recorder{}, Envoy: e})
	e.client = c // before anything is sent to it
	for _, u := range []string{AuthorizationType, AddressType, ClusterType, ListenerType} {
		s.wants(t, u)
	}
	s.send <- &discovery.DeltaDiscoveryResponse{TypeUrl: ClusterType, Nonce: "1", Resources: envoyResources(ClusterType, "v1", "a", "b")}
	s.wants(t, EndpointType, "of-a", "of-b")
	if r := s.wants(t, ClusterType); r.ResponseNonce != "1" || r.ErrorDetail != nil {
		t.Errorf("ACK: %v", r)
	}
	if diff := cmp.Diff([]string{"endpoints of-a", "endpoints of-b"}, c.State().Awaited); diff != "" {
		t.Error(diff)
	}
	s.send <- &discovery.DeltaDiscoveryResponse{TypeUrl: EndpointType, Nonce: "2", Resources: envoyResources(EndpointType, "e1", "of-a"), RemovedResources: []string{"of-b"}}
	s.wants(t, EndpointType)
	if got := c.State().Awaited; len(got) > 0 {
		t.Errorf("still awaited: %q", got)
	}
	s.send <- &discovery.DeltaDiscoveryResponse{TypeUrl: ListenerType, Nonce: "3", Resources: envoyResources(ListenerType, "v1", "l", "bad")}
	s.wants(t, RouteType, "of-l")
	if r := s.wants(t, ListenerType); r.ErrorDetail.GetMessage() != "bad: filter_chains[3].filters[0]: unknown filter" {
		t.Errorf("NACK: %v", r)
	}
	if got := c.State().Rejected["listener bad"]; got != "filter_chains[3].filters[0]: unknown filter" {
		t.Errorf("shown as %q", got)
	}

	s.hangUp <- struct{}{}
	for _, u := range []string{AuthorizationType, AddressType} {
		s.wants(t, u)
	}
	if r := s.wants(t, ClusterType); !cmp.Equal(r.InitialResourceVersions, map[string]string{"a": "v1", "b": "v1"}) {
		t.Errorf("clusters held: %v", r)
	}
	if r := s.wants(t, EndpointType, "of-a", "of-b"); !cmp.Equal(r.InitialResourceVersions, map[string]string{"of-a": "e1"}) {
		t.Errorf("endpoints held: %v", r)
	}
	if r := s.wants(t, ListenerType); !cmp.Equal(r.InitialResourceVersions, map[string]string{"l": "v1"}) {
		t.Errorf("listeners held: %v", r)
	}
	s.wants(t, RouteType, "of-l")

	s.send <- &discovery.DeltaDiscoveryResponse{TypeUrl: ClusterType, Nonce: "4", RemovedResources: []string{"b"}}
	if r := s.wants(t, EndpointType); !slices.Equal(r.ResourceNamesUnsubscribe, []string{"of-b"}) {
		t.Errorf("let go of %v", r)
	}
	s.wants(t, ClusterType)
	// It crossed the server's update: it is not for the engine any more.
	s.send <- &discovery.DeltaDiscoveryResponse{TypeUrl: EndpointType, Nonce: "5", Resources: envoyResources(EndpointType, "e2", "of-b")}
	s.wants(t, EndpointType)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.have[EndpointType]["of-b"] {
		t.Error("an endpoint set of a cluster that is gone was applied")
	}
	if _, known := c.Versions()[EndpointType]["of-b"]; known {
		t.Error("it counts as held")
	}
}

// The names that a waypoint goes by are istiod's.
func TestWaypointNode(t *testing.T) {
	w := Waypoint{Pod: "wp-1", Namespace: "shop", ServiceAccount: "wp", Gateway: "wp", Addresses: []string{"10.0.0.9", "fd00::9"}, Node: "n1", ClusterID: "Kubernetes", Version: "v1"}
	if got := w.NodeID(); got != "waypoint~10.0.0.9~wp-1.shop~shop.svc.cluster.local" {
		t.Errorf("id %q", got)
	}
	got := w.Metadata()
	for key, want := range map[string]any{"INSTANCE_IPS": "10.0.0.9,fd00::9", "NODE_NAME": "n1", "FAIRLEAD_VERSION": "v1", "ISTIO_VERSION": IstioVersion, "NETWORK": nil} {
		if got[key] != want {
			t.Errorf("%s = %v, want %v", key, got[key], want)
		}
	}
}
