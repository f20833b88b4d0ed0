package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

const withWaypoint = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: waypoint, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}
spec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], selector: {gateway.networking.k8s.io/gateway-name: waypoint}, ports: [{name: mesh, port: 15008}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
`

// engine keeps what it gets, and wants what that names.
type engine struct {
	t    testing.TB
	want func(typeURL string, names []string)

	mu   sync.Mutex
	have map[string]map[string]*discovery.Resource
	// updates counts resources that came, by type.
	updates map[string]int
}

func (e *engine) ApplyEnvoy(typeURL string, updated []*discovery.Resource, removed []string) map[string]error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.have[typeURL] == nil {
		e.have[typeURL] = map[string]*discovery.Resource{}
	}
	for _, r := range updated {
		e.have[typeURL][r.GetName()] = r
		e.updates[typeURL]++
	}
	for _, name := range removed {
		delete(e.have[typeURL], name)
	}
	switch typeURL {
	case xds.ClusterType:
		var names []string
		for name, r := range e.have[typeURL] {
			var c clusterv3.Cluster
			if err := r.GetResource().UnmarshalTo(&c); err != nil {
				e.t.Error(err)
			}
			if c.GetType() == clusterv3.Cluster_EDS {
				names = append(names, name)
			}
		}
		e.want(xds.EndpointType, names)
	case xds.ListenerType:
		e.want(xds.RouteType, []string{webRoutes})
	}
	return nil
}

const webRoutes = "inbound-vip|80|http|web.shop.svc.cluster.local"

// routes are the prefixes of the service's routes.
func (e *engine) routes() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.have[xds.RouteType][webRoutes]
	if r == nil {
		return "none"
	}
	var c routev3.RouteConfiguration
	if err := r.GetResource().UnmarshalTo(&c); err != nil {
		e.t.Error(err)
	}
	var out []string
	for _, route := range c.GetVirtualHosts()[0].GetRoutes() {
		out = append(out, route.GetMatch().GetPrefix())
	}
	return strings.Join(out, " ")
}

func (e *engine) counts() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]int{}
	for t, n := range e.updates {
		out[t] = n
	}
	return out
}

// waypoint is the client side of a waypoint's pod.
func (p *plane) waypoint() (*engine, *store.Store, *xds.Client) {
	p.t.Helper()
	s, err := store.New(slog.New(slog.DiscardHandler))
	if err != nil {
		p.t.Fatal(err)
	}
	pod := xds.Waypoint{Pod: "waypoint-1", Namespace: "shop", ServiceAccount: "waypoint", Gateway: "waypoint", Node: "n1", Version: "test"}
	e := &engine{t: p.t, have: map[string]map[string]*discovery.Resource{}, updates: map[string]int{}}
	client, err := xds.NewClient(xds.Options{
		Conn: p.dial(p.token("shop", "waypoint", "waypoint-1", "n1")), Applier: s, Envoy: e,
		NodeID: pod.NodeID(), Metadata: pod.Metadata(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	e.want = client.Want
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	p.t.Cleanup(func() { cancel(); <-done })
	return e, s, client
}

const webRule = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec: {hosts: [web], http: [{match: [{uri: {prefix: PREFIX}}], route: [{destination: {host: web}}]}]}
`

// A waypoint gets its configuration and the mesh's workloads; a VirtualService
// that is saved moves one route configuration and nothing else.
func TestWaypointFollowsTheDirectory(t *testing.T) {
	p := newPlane(t)
	p.write("config/cluster.yaml", strings.Split(cluster, "---\napiVersion: v1\nkind: Service")[0]+"---"+withWaypoint)
	e, s, client := p.waypoint()
	p.until("routes", func() bool { return e.routes() == "/" })
	p.until("all that it wants", func() bool { return len(client.State().Awaited) == 0 })
	p.until("workloads", func() bool { return len(s.Snapshot().Endpoints(web)) == 1 })
	if rejected := client.State().Rejected; len(rejected) > 0 {
		t.Errorf("refused: %v", rejected)
	}
	for _, prefix := range []string{"/a", "/b"} {
		before := e.counts()
		p.write("config/route.yaml", strings.Replace(webRule, "PREFIX", prefix, 1))
		p.until("the route", func() bool { return e.routes() == prefix })
		for typeURL, n := range e.counts() {
			if want := before[typeURL]; typeURL != xds.RouteType && n != want {
				t.Errorf("%d resources of %s came with a route", n-want, typeURL)
			}
		}
	}
	p.until("in sync", func() bool { return strings.Contains(p.get("/debug/syncz"), `"waypoint": "shop/waypoint"`) })
	p.write("config/route.yaml", "# nothing\n")
	p.until("no route", func() bool { return e.routes() == "/" })
}

// What a Gateway's annotations ask for in vain stands in its status, until it is
// mended.
func TestBadAnnotationIsSaidOnTheGateway(t *testing.T) {
	p := newPlane(t)
	status := func() string {
		text, err := os.ReadFile(filepath.Join(p.dir, "status", "gateway_gateway.networking.k8s.io_shop_waypoint.yaml"))
		if err != nil {
			return ""
		}
		return string(text)
	}
	bad := strings.Replace(withWaypoint, "namespace: shop}\nspec: {gatewayClassName", "namespace: shop, annotations: {fairlead.dev/waypoint-replicas: many}}\nspec: {gatewayClassName", 1)
	p.write("config/waypoint.yaml", bad)
	p.until("the problem in the status", func() bool {
		s := status()
		return strings.Contains(s, "fairlead.dev/waypoint-replicas") && strings.Contains(s, `"many"`) && strings.Contains(s, "nothing is deployed")
	})
	p.write("config/waypoint.yaml", withWaypoint)
	p.until("a status without it", func() bool {
		s := status()
		return strings.Contains(s, "assigned to service(s) waypoint.shop.svc.cluster.local:15008") && !strings.Contains(s, "replicas")
	})
}
