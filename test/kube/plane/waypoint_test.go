package plane

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// engine keeps what a waypoint is sent, and wants what that names.
type engine struct {
	t    testing.TB
	want func(typeURL string, names []string)

	mu   sync.Mutex
	have map[string]map[string]*discovery.Resource
	came map[string]int // resources, by type
}

const webRoutes = "inbound-vip|80|http|web.shop.svc.cluster.local"

func (e *engine) ApplyEnvoy(typeURL string, updated []*discovery.Resource, removed []string) map[string]error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.have[typeURL] == nil {
		e.have[typeURL] = map[string]*discovery.Resource{}
	}
	for _, r := range updated {
		e.have[typeURL][r.GetName()] = r
		e.came[typeURL]++
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

// shares are the weights of the first route of the service, by host.
func (e *engine) shares() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.have[xds.RouteType][webRoutes]
	if r == nil {
		return "no routes"
	}
	var c routev3.RouteConfiguration
	if err := r.GetResource().UnmarshalTo(&c); err != nil {
		e.t.Error(err)
	}
	action := c.GetVirtualHosts()[0].GetRoutes()[0].GetRoute()
	if to := action.GetCluster(); to != "" {
		return host(to)
	}
	var out []string
	for _, w := range action.GetWeightedClusters().GetClusters() {
		out = append(out, fmt.Sprint(w.GetWeight().GetValue(), " ", host(w.GetName())))
	}
	return strings.Join(out, ", ")
}

// host is that of a cluster's name.
func host(cluster string) string {
	fqdn := cluster[strings.LastIndexByte(cluster, '|')+1:]
	return strings.TrimSuffix(fqdn, ".shop.svc.cluster.local")
}

func (e *engine) counts() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.came)
}

// waypoint is the client side of a waypoint's pod.
func (p *Plane) waypoint(pod *corev1.Pod) (*engine, *xds.Client) {
	p.t.Helper()
	s, err := store.New(slog.New(slog.DiscardHandler))
	if err != nil {
		p.t.Fatal(err)
	}
	id := xds.Waypoint{Pod: pod.Name, Namespace: pod.Namespace, ServiceAccount: pod.Spec.ServiceAccountName, Gateway: "waypoint", Node: pod.Spec.NodeName, Version: "test"}
	e := &engine{t: p.t, have: map[string]map[string]*discovery.Resource{}, came: map[string]int{}}
	client, err := xds.NewClient(xds.Options{Conn: p.Dial(p.Token(pod)), Applier: s, Envoy: e, NodeID: id.NodeID(), Metadata: id.Metadata(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		p.t.Fatal(err)
	}
	e.want = client.Want
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	p.t.Cleanup(func() { cancel(); <-done })
	return e, client
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
	e, client := p.waypoint(pod)
	p.Until("routes without rules", func() bool { return e.shares() == "web" })
	p.Until("all that it wants", func() bool { return len(client.State().Awaited) == 0 })
	if refused := client.State().Rejected; len(refused) > 0 {
		t.Errorf("refused: %v", refused)
	}
	p.Apply(fmt.Sprintf(byVirtualService, 90, 10))
	p.Until("the canary", func() bool { return e.shares() == "90 web, 10 web-v2" })
	before := e.counts()
	p.Apply(fmt.Sprintf(byVirtualService, 50, 50))
	p.Until("its new share", func() bool { return e.shares() == "50 web, 50 web-v2" })
	for typeURL, n := range e.counts() {
		if typeURL != xds.RouteType && n != before[typeURL] {
			t.Errorf("%d resources of %s came with a share", n-before[typeURL], typeURL)
		}
	}
	p.Kubectl("delete", "virtualservice", "-n", "shop", "web")
	p.Until("no canary", func() bool { return e.shares() == "web" })
	p.Apply(byHTTPRoute)
	p.Until("the canary of the HTTPRoute", func() bool { return e.shares() == "3 web, 1 web-v2" })
}
