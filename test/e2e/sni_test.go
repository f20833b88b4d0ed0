package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

const sniCluster = twoNodes + `---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  nodeName: n1
  containers: [{name: app, image: curlimages/curl}]
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: shop}
spec:
  selector: {app: red}
  ports: [{name: tls, port: 443}]
---
apiVersion: v1
kind: Service
metadata: {name: blue, namespace: shop}
spec:
  selector: {app: blue}
  ports: [{name: tls, port: 443}]
`

const sniRoute = `apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: by-name, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop, port: 443}]
  hostnames: [blue.example.com, "*.blue.example.com"]
  rules: [{backendRefs: [{name: blue, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: the-rest, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop, port: 443}]
  hostnames: ["*.example.com"]
  rules: [{backendRefs: [{name: shop, port: 443}]}]
`

const sniVirtualService = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: by-name, namespace: shop}
spec:
  hosts: [shop]
  tls:
  - match: [{port: 443, sniHosts: [red.example.com]}]
    route: [{destination: {host: shop, port: {number: 443}}}]
  - match: [{port: 443, sniHosts: [blue.example.com, "*.blue.example.com"]}]
    route: [{destination: {host: blue, port: {number: 443}}}]
`

// TestWaypointRoutesTLSByName holds that connections go to the service that the name in
// their ClientHello asks for, by a TLSRoute and by a VirtualService, with TLS from end
// to end: the client sees the certificate of the server, and the waypoint none of the bytes.
func TestWaypointRoutesTLSByName(t *testing.T) {
	build(t)
	engines(t, routesTLSByName)
}

func routesTLSByName(t *testing.T, engine string) {
	yaml := sniCluster + waypointOf("waypoint", ", annotations: {fairlead.dev/waypoint-engine: "+engine+"}", "")
	for _, name := range []string{"red", "blue"} {
		yaml += fmt.Sprintf("---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: shop, labels: {app: %s}}\nspec:\n  nodeName: n2\n  containers: [{name: app, image: curlimages/curl}]\n", name, name)
	}
	l := newLab(t, yaml)
	client := l.inside(t, "shop/client")
	for _, name := range []string{"red", "blue"} {
		l.greets(t, name)
	}
	address := l.clusterIP(t, "shop", "shop") + ":443"
	// greeting is what the server for a name says, or why there is none.
	greeting := func(name string) string {
		c, err := dialFrom(client, address, 5*time.Second)
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		hello := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // whose certificate it is does not matter here
		said, err := io.ReadAll(hello)
		if err != nil {
			return err.Error()
		}
		return string(said)
	}
	for _, by := range []struct{ kind, yaml string }{{"TLSRoute", sniRoute}, {"VirtualService", sniVirtualService}} {
		l.write(t, "routes.yaml", by.yaml)
		for name, want := range map[string]string{"red.example.com": "red", "blue.example.com": "blue", "deep.blue.example.com": "blue"} {
			eventually(t, by.kind+": "+name+" is "+want, func() bool { return greeting(name) == want+" was asked for "+name })
		}
		if got := greeting("elsewhere.test"); !strings.Contains(got, "reset") {
			t.Errorf("%s: a name that no rule has: %q, want a reset", by.kind, got)
		}
	}
	l.remove(t, "routes.yaml")
	eventually(t, "without routes the service has all", func() bool { return greeting("blue.example.com") == "red was asked for blue.example.com" })
	if engine != "fairlead" {
		return
	}
	// Seen by the waypoint as connections, not as requests.
	waypoint := l.settled(t, "waypoint", 1)[0]
	metrics := l.run(t, "lab", "exec", "--name", l.name, "shop/"+waypoint, "--", "curl", "-s", "localhost:15020/stats/prometheus")
	if !regexp.MustCompile(`(?m)^istio_tcp_connections_opened_total\{.*destination_service_name="shop".*reporter="waypoint".*\} [1-9]`).MatchString(metrics) || strings.Contains(metrics, "istio_requests_total{") {
		t.Errorf("the waypoint's metrics:\n%s", metrics)
	}
}

// greets has a pod serve TLS on 443: it says who it is and what it was asked for, and closes.
func (l *lab) greets(t *testing.T, pod string) {
	t.Helper()
	unused := httptest.NewUnstartedServer(nil) // for its certificate
	unused.StartTLS()
	certificates := unused.TLS.Certificates
	unused.Close()
	listener := listenIn(t, l.inside(t, "shop/"+pod), ":443")
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				s := tls.Server(c, &tls.Config{Certificates: certificates, MinVersion: tls.VersionTLS12})
				defer s.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				if s.Handshake() == nil {
					fmt.Fprintf(s, "%s was asked for %s", pod, s.ConnectionState().ServerName)
				}
			}()
		}
	}()
}
