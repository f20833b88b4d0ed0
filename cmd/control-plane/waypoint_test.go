package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/xds"
	"github.com/fairlead-mesh/fairlead/test/subscriber"
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

const webRoutes = "inbound-vip|80|http|web.shop.svc.cluster.local"

// prefixes are those of the service's routes.
func prefixes(w *subscriber.Waypoint) string {
	var out []string
	for _, route := range w.Routes() {
		out = append(out, route.GetMatch().GetPrefix())
	}
	return strings.Join(out, " ")
}

// waypoint is the client side of a waypoint's pod.
func (p *plane) waypoint() *subscriber.Waypoint {
	p.t.Helper()
	pod := xds.Waypoint{Pod: "waypoint-1", Namespace: "shop", ServiceAccount: "waypoint", Gateway: "waypoint", Node: "n1", Version: "test"}
	return subscriber.Subscribe(p.t, p.dial(p.token("shop", "waypoint", "waypoint-1", "n1")), pod, webRoutes)
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
	w := p.waypoint()
	p.until("routes", func() bool { return prefixes(w) == "/" })
	p.until("all that it wants", func() bool { return len(w.Client.State().Awaited) == 0 })
	p.until("workloads", func() bool { return len(w.Store.Snapshot().Endpoints(web)) == 1 })
	if rejected := w.Client.State().Rejected; len(rejected) > 0 {
		t.Errorf("refused: %v", rejected)
	}
	for _, prefix := range []string{"/a", "/b"} {
		before := w.Came()
		p.write("config/route.yaml", strings.Replace(webRule, "PREFIX", prefix, 1))
		p.until("the route", func() bool { return prefixes(w) == prefix })
		for typeURL, n := range w.Came() {
			if want := before[typeURL]; typeURL != xds.RouteType && n != want {
				t.Errorf("%d resources of %s came with a route", n-want, typeURL)
			}
		}
	}
	p.until("in sync", func() bool { return strings.Contains(p.get("/debug/syncz"), `"waypoint": "shop/waypoint"`) })
	p.write("config/route.yaml", "# nothing\n")
	p.until("no route", func() bool { return prefixes(w) == "/" })
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
