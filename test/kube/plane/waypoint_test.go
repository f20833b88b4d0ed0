package plane

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/xds"
	"github.com/fairlead-mesh/fairlead/test/subscriber"
)

const webRoutes = "inbound-vip|80|http|web.shop.svc.cluster.local"

// shares are the weights of the first route of the service, by host.
func shares(w *subscriber.Waypoint) string {
	routes := w.Routes()
	if len(routes) == 0 {
		return "no routes"
	}
	action := routes[0].GetRoute()
	if to := action.GetCluster(); to != "" {
		return host(to)
	}
	var out []string
	for _, c := range action.GetWeightedClusters().GetClusters() {
		out = append(out, fmt.Sprint(c.GetWeight().GetValue(), " ", host(c.GetName())))
	}
	return strings.Join(out, ", ")
}

// host is that of a cluster's name.
func host(cluster string) string {
	fqdn := cluster[strings.LastIndexByte(cluster, '|')+1:]
	return strings.TrimSuffix(fqdn, ".shop.svc.cluster.local")
}

// waypoint is the client side of a waypoint's pod.
func (p *Plane) waypoint(pod *corev1.Pod) *subscriber.Waypoint {
	p.t.Helper()
	id := xds.Waypoint{Pod: pod.Name, Namespace: pod.Namespace, ServiceAccount: pod.Spec.ServiceAccountName, Gateway: "waypoint", Node: pod.Spec.NodeName, Version: "test"}
	return subscriber.Subscribe(p.t, p.Dial(p.Token(pod)), id, webRoutes)
}

const canary = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web-v2, namespace: shop}, spec: {selector: {app: web, version: v2}, ports: [{name: http, port: 80, targetPort: 8080}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: shop}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
`

const byVirtualService = `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: web, namespace: shop}, spec: {hosts: [web], http: [{route: [{destination: {host: web}, weight: %d}, {destination: {host: web-v2}, weight: %d}]}]}}`

const byHTTPRoute = `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: web, namespace: shop}, spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80, weight: 3}, {name: web-v2, port: 80, weight: 1}]}]}}`

// A waypoint that a Gateway asks for is told of the mesh's routes: a VirtualService, and
// then an HTTPRoute, whose shares move one route configuration and nothing else.
func TestObjectsInRoutesOut(t *testing.T) {
	p, _, _ := begin(t, "routes")
	p.Apply(definitions(t, "istio"))
	p.Apply(definitions(t, "gateway-api"))
	p.Kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	p.Apply(canary)
	p.Until("the waypoint's service", func() bool {
		out, err := p.Cluster.Kubectl(t.Context(), "get", "service", "-n", "shop", "waypoint", "-o", "name")
		return err == nil && strings.Contains(out, "waypoint")
	})
	pod := p.Pod("shop", "waypoint-1", "waypoint", "n1", "10.1.0.9", map[string]string{"gateway.networking.k8s.io/gateway-name": "waypoint"}, nil)
	w := p.waypoint(pod)
	p.Until("routes without rules", func() bool { return shares(w) == "web" })
	p.Until("all that it wants", func() bool { return len(w.Client.State().Awaited) == 0 })
	if refused := w.Client.State().Rejected; len(refused) > 0 {
		t.Errorf("refused: %v", refused)
	}
	p.Apply(fmt.Sprintf(byVirtualService, 90, 10))
	p.Until("the canary", func() bool { return shares(w) == "90 web, 10 web-v2" })
	before := w.Came()
	p.Apply(fmt.Sprintf(byVirtualService, 50, 50))
	p.Until("its new share", func() bool { return shares(w) == "50 web, 50 web-v2" })
	for typeURL, n := range w.Came() {
		if typeURL != xds.RouteType && n != before[typeURL] {
			t.Errorf("%d resources of %s came with a share", n-before[typeURL], typeURL)
		}
	}
	p.Kubectl("delete", "virtualservice", "-n", "shop", "web")
	p.Until("no canary", func() bool { return shares(w) == "web" })
	p.Apply(byHTTPRoute)
	p.Until("the canary of the HTTPRoute", func() bool { return shares(w) == "3 web, 1 web-v2" })
}
