package standin

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/push"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	waypointconfig "github.com/fairlead-mesh/fairlead/pkg/control/waypoint"
	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// The pods have addresses of the loopback, so that all can have port 15008.
const (
	waypointAddress = "127.77.8.1"
	objects         = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop, labels: {istio.io/waypoint-for: all}, annotations: {ambient.istio.io/xfcc-include-client-identity: "true"}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: waypoint, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: waypoint, gateway.istio.io/managed: istio.io-mesh-controller}}
spec: {clusterIP: 10.0.0.1, ports: [{name: mesh, port: 15008}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.2, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: any, port: 81, targetPort: 8080}, {name: first, port: 82, targetPort: 8081}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "protocolDetectionTimeout: 200ms"}
---
apiVersion: v1
kind: Service
metadata: {name: taken, namespace: shop}
spec: {clusterIP: 10.0.0.3, selector: {app: taken}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: web, nodeName: n1, containers: [{name: app, image: "app:1"}]}
status: {phase: Running, podIP: 127.77.8.2, podIPs: [{ip: 127.77.8.2}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: taken-1, namespace: shop, labels: {app: taken}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: taken, nodeName: n1, containers: [{name: app, image: "app:1"}]}
status: {phase: Running, podIP: 127.77.8.3, podIPs: [{ip: 127.77.8.3}], conditions: [{type: Ready, status: "True"}]}
`
)

// publishObjects publishes what our translation makes of objects. The waypoint
// listens at an address of its own.
func (c *cluster) publishObjects(text string) {
	c.t.Helper()
	out, err := translate.Translate(source.Parse([]source.File{{Name: "in.yaml", Data: []byte(text)}}, nil), translate.Options{ClusterID: "Kubernetes"})
	if err != nil {
		c.t.Fatal(err)
	}
	translation := waypointconfig.New(out, nil)
	_, err = c.waypoints.Publish(out.Model, func(w *model.Waypoint, consumer push.Consumer) (push.Generated, error) {
		made, err := translation.Resources(w, consumer)
		if err != nil {
			return push.Generated{}, err
		}
		resources := made.All
		l := proto.CloneOf(resources[push.ListenerType]["connect_terminate"].(*listener.Listener))
		l.Address.GetSocketAddress().Address = waypointAddress
		resources = maps.Clone(resources)
		resources[push.ListenerType] = maps.Clone(resources[push.ListenerType])
		resources[push.ListenerType]["connect_terminate"] = l
		return push.Generated{All: resources}, nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// identityOf has the mesh's CA sign for a service account of shop.
func (c *cluster) identityOf(account string) tls.Certificate {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		c.t.Fatal(err)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		c.t.Fatal(err)
	}
	chain, _, err := c.authority.Sign(request, mesh.Identity{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: account}, time.Hour)
	if err != nil {
		c.t.Fatal(err)
	}
	out := tls.Certificate{PrivateKey: key}
	for _, text := range chain {
		if block, _ := pem.Decode([]byte(text)); block != nil {
			out.Certificate = append(out.Certificate, block.Bytes)
		}
	}
	return out
}

// pod is an application behind the tunnel of its node, which proves an account.
// It answers with what it was asked.
func (c *cluster) pod(address, account string) {
	c.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.authority.RootsPEM())
	app, err := net.Listen("tcp", address+":8080")
	if err != nil {
		c.t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s xff=%s xfcc=%s id=%t", address, r.Host, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Client-Cert"), r.Header.Get("X-Request-Id") != "")
	})}
	go func() { _ = server.Serve(app) }()
	first, err := net.Listen("tcp", address+":8081")
	if err != nil {
		c.t.Fatal(err)
	}
	go func() {
		for {
			conn, err := first.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 ready\n"))
			conn.Close()
		}
	}()
	tunnels, err := hbone.NewServer(hbone.ServerOptions{Logger: slog.New(slog.DiscardHandler),
		TLS: &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{c.identityOf(account)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots},
		Handle: func(r *hbone.Request) {
			conn, err := net.Dial("tcp", r.Authority.String())
			if err != nil {
				r.Reject(http.StatusServiceUnavailable)
				return
			}
			var in, out atomic.Uint64
			r.Accept(conn.(*net.TCPConn), "", &in, &out, func(error) {})
		}})
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := net.Listen("tcp", address+":15008")
	if err != nil {
		c.t.Fatal(err)
	}
	go func() { _ = tunnels.Serve(l) }()
	c.t.Cleanup(func() { server.Close(); first.Close(); l.Close() })
}

// call sends a request to an address through the waypoint, as a pod's node would
// that runs the account "client", and gives status and body.
func (c *cluster) call(pool *hbone.Pool, to string) (string, error) {
	authority, err := hbone.ParseAuthority(to)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	s, err := pool.Open(ctx, hbone.Key{Destination: netip.MustParseAddrPort(waypointAddress + ":15008")},
		hbone.Headers{Authority: authority, Baggage: hbone.Baggage{Cluster: "Kubernetes", Namespace: "shop", WorkloadType: "deployment", WorkloadName: "client-app", ServiceName: "client"}.String()})
	if err != nil {
		return "", err
	}
	defer s.Abort()
	conn := s.Conn()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://web.shop/hello", nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("X-Forwarded-Client-Cert", "URI=spiffe://cluster.local/ns/shop/sa/forged")
	if err := request.Write(conn); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body := make([]byte, 4096)
	n, _ := response.Body.Read(body)
	return fmt.Sprintf("%d %s", response.StatusCode, body[:n]), nil
}

// greeting is what a server says that is not asked.
func (c *cluster) greeting(pool *hbone.Pool, to string) (string, error) {
	authority, err := hbone.ParseAuthority(to)
	if err != nil {
		c.t.Fatal(err)
	}
	s, err := pool.Open(c.t.Context(), hbone.Key{Destination: netip.MustParseAddrPort(waypointAddress + ":15008")}, hbone.Headers{Authority: authority})
	if err != nil {
		return "", err
	}
	defer s.Abort()
	_ = s.Conn().SetDeadline(time.Now().Add(20 * time.Second))
	return bufio.NewReader(s.Conn()).ReadString('\n')
}

// What our control plane makes of Kubernetes' and Istio's objects makes a plain
// Envoy a waypoint: tunnels in and out, by service and by pod, with the caller's
// identity and address passed on, its metrics labelled, and who answers checked.
func TestEnvoyIsAWaypoint(t *testing.T) {
	c := newCluster(t)
	c.pod("127.77.8.2", "web")
	c.pod("127.77.8.3", "thief") // holds the address of taken-1 and not its identity
	c.publishObjects(objects)
	e := c.envoy()
	certificate := c.identityOf("client")
	pool, err := hbone.NewPool(hbone.PoolOptions{
		Dial: func(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.77.8.9")}}
			conn, err := d.DialContext(ctx, "tcp", to.String())
			if err != nil {
				return nil, err
			}
			return conn.(*net.TCPConn), nil
		},
		TLS: func(hbone.Key) *tls.Config {
			return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{certificate}, InsecureSkipVerify: true} //nolint:gosec // who answers is not what is tested
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	answers := func(to string) string {
		got, err := c.call(pool, to)
		if err != nil {
			return err.Error()
		}
		return got
	}
	const passed = "200 127.77.8.2 web.shop xff=127.77.8.9 xfcc=URI=spiffe://cluster.local/ns/shop/sa/client id=true"
	e.until("served", func() bool { return answers("10.0.0.2:80") == passed })
	for _, to := range []string{"10.0.0.2:80", "10.0.0.2:81", "127.77.8.2:8080"} {
		if got := answers(to); got != passed {
			t.Errorf("%s: %s, want %s", to, got, passed)
		}
	}
	for _, to := range []string{"10.0.0.3:80", "127.77.8.3:8080"} {
		if got := answers(to); !strings.HasPrefix(got, "503 ") || !strings.Contains(got, "127.77.8.3") && strings.Contains(got, "xff=") {
			t.Errorf("%s, of which another answers: %s, want 503", to, got)
		}
	}
	if got, err := c.greeting(pool, "10.0.0.2:82"); got != "220 ready\n" || err != nil {
		t.Errorf("a server that speaks first: %q, %v", got, err)
	}
	if got := answers("10.0.0.9:80"); strings.HasPrefix(got, "2") {
		t.Errorf("an address that is nobody's: %s", got)
	}
	for _, label := range []string{"istio_requests_total", `source_workload="client-app"`, `source_principal="spiffe://cluster.local/ns/shop/sa/client"`,
		`destination_workload="web-1"`, `destination_service="web.shop.svc.cluster.local"`, `response_code="200"`} {
		e.until(label, func() bool {
			return strings.Contains(e.get("http://"+e.metrics.String()+"/metrics"), label)
		})
	}
}
