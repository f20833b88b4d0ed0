// Package subscriber is a waypoint's side of a control plane's xDS, without the proxy: it keeps
// what comes, wants what that names, and tells tests of it.
package subscriber

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// Waypoint is a pod's subscription. It ends with the test.
type Waypoint struct {
	// Store has the workloads and policies.
	Store *store.Store
	// Client is the subscription itself.
	Client *xds.Client

	t      testing.TB
	routes string

	mu   sync.Mutex
	have map[string]map[string]*discovery.Resource
	came map[string]int
}

// Subscribe begins on a connection that proves who pod is. Of routes it wants those of that
// name, once there is a listener.
func Subscribe(t testing.TB, conn *grpc.ClientConn, pod xds.Waypoint, routes string) *Waypoint {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := store.New(log)
	if err != nil {
		t.Fatal(err)
	}
	w := &Waypoint{Store: s, t: t, routes: routes, have: map[string]map[string]*discovery.Resource{}, came: map[string]int{}}
	w.Client, err = xds.NewClient(xds.Options{Conn: conn, Applier: s, Envoy: w, NodeID: pod.NodeID(), Metadata: pod.Metadata(), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Client.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// ApplyEnvoy takes what comes.
func (w *Waypoint) ApplyEnvoy(typeURL string, updated []*discovery.Resource, removed []string) map[string]error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.have[typeURL] == nil {
		w.have[typeURL] = map[string]*discovery.Resource{}
	}
	for _, r := range updated {
		w.have[typeURL][r.GetName()] = r
		w.came[typeURL]++
	}
	for _, name := range removed {
		delete(w.have[typeURL], name)
	}
	switch typeURL {
	case xds.ClusterType:
		var names []string
		for name, r := range w.have[typeURL] {
			var c clusterv3.Cluster
			if err := r.GetResource().UnmarshalTo(&c); err != nil {
				w.t.Error(err)
			}
			if c.GetType() == clusterv3.Cluster_EDS {
				names = append(names, name)
			}
		}
		w.Client.Want(xds.EndpointType, names)
	case xds.ListenerType:
		w.Client.Want(xds.RouteType, []string{w.routes})
	}
	return nil
}

// Routes are those of its first virtual host, or nil: none came yet.
func (w *Waypoint) Routes() []*routev3.Route {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.have[xds.RouteType][w.routes]
	if r == nil {
		return nil
	}
	var c routev3.RouteConfiguration
	if err := r.GetResource().UnmarshalTo(&c); err != nil {
		w.t.Error(err)
	}
	return c.GetVirtualHosts()[0].GetRoutes()
}

// Came is how many resources of each type came.
func (w *Waypoint) Came() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.came)
}
