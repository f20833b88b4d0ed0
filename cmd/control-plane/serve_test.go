package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"

	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

const cluster = `
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: app, image: echo}]}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
`

// plane is a control plane under test, run in this process.
type plane struct {
	t              testing.TB
	dir, roots     string
	address, admin string
	key            *ecdsa.PrivateKey
	stop           context.CancelFunc
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newPlane(t testing.TB) *plane {
	t.Helper()
	p := emptyPlane(t)
	p.write("config/cluster.yaml", cluster)
	p.start()
	return p
}

// emptyPlane has no objects, and does not run yet.
func emptyPlane(t testing.TB) *plane {
	t.Helper()
	p := &plane{t: t, dir: t.TempDir(), address: freePort(t), admin: freePort(t)}
	p.roots = filepath.Join(p.dir, "roots.pem")
	var err error
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(p.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	p.write("keys.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	return p
}

func (p *plane) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plane) start() {
	p.t.Helper()
	c := config{
		configDir: filepath.Join(p.dir, "config"), stateDir: filepath.Join(p.dir, "state"), statusDir: filepath.Join(p.dir, "status"), deployDir: filepath.Join(p.dir, "deploy"), advertise: p.address, waypointImage: "waypoint",
		tokenKeys: filepath.Join(p.dir, "keys.pem"), rootCertOut: p.roots, listen: p.address, adminAddress: p.admin, clusterID: "Kubernetes",
		nodeAccounts: []string{"istio-system/ztunnel"}, dnsNames: []string{"istiod.istio-system.svc"}, logLevel: "info",
	}
	if err := c.complete(); err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan error, 1)
	p.stop = func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	}
	go func() { done <- serve(ctx, c, level.New(slog.LevelInfo), slog.New(slog.DiscardHandler)) }()
	p.t.Cleanup(func() { cancel() })
}

// token is signed for a service account, in a pod on a node.
func (p *plane) token(namespace, account, pod, node string) string {
	p.t.Helper()
	signed, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"aud": []string{"istio-ca"}, "sub": "system:serviceaccount:" + namespace + ":" + account, "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": namespace, "serviceaccount": map[string]any{"name": account, "uid": "1"},
			"pod": map[string]any{"name": pod, "uid": "2"}, "node": map[string]any{"name": node}},
	}).SignedString(p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	path := filepath.Join(p.t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(signed), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

func (p *plane) dial(tokenFile string) *grpc.ClientConn {
	p.t.Helper()
	p.until("root certificate", func() bool { _, err := os.Stat(p.roots); return err == nil })
	conn, err := identity.Dial(p.address, "istiod.istio-system.svc", p.roots, identity.Token{File: tokenFile, Cluster: "Kubernetes"})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	return conn
}

func (p *plane) until(what string, condition func() bool) {
	p.t.Helper()
	deadline := time.After(30 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			p.t.Fatalf("waited in vain: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (p *plane) get(path string) string {
	response, err := http.Get("http://" + p.admin + path)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	b, _ := io.ReadAll(response.Body)
	return fmt.Sprint(response.StatusCode, " ", string(b))
}

// agent is the client side of a node, as the node agent has it.
func (p *plane) agent(tokenFile, node, pod string, known xds.Versions) (*store.Store, *xds.Client) {
	p.t.Helper()
	s, err := store.New(slog.New(slog.DiscardHandler))
	if err != nil {
		p.t.Fatal(err)
	}
	client, err := xds.NewClient(xds.Options{
		Conn: p.dial(tokenFile), Applier: s, NodeID: "ztunnel~1.1.1.1~" + pod + ".istio-system~istio-system.svc.cluster.local",
		Metadata: map[string]any{"NODE_NAME": node}, Known: known, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	p.t.Cleanup(func() { cancel(); <-done })
	return s, client
}

var web = mesh.ServiceKey{Namespace: "shop", Hostname: "web.shop.svc.cluster.local"}

func TestAgentFollowsTheDirectory(t *testing.T) {
	p := newPlane(t)
	s, client := p.agent(p.token("istio-system", "ztunnel", "ztunnel-n1", "n1"), "n1", "ztunnel-n1", nil)
	p.until("the service and its endpoint", func() bool { return len(s.Snapshot().Endpoints(web)) == 1 && s.Snapshot().Service(web) != nil })
	if w := s.Snapshot().Endpoints(web)[0]; w.Tunnel != mesh.TunnelHBONE || w.Identity().String() != "spiffe://cluster.local/ns/shop/sa/web" {
		t.Errorf("workload %+v", w)
	}

	// A saved policy arrives, and never after the workload that names it.
	const policy = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, action: DENY, rules: [{from: [{source: {namespaces: [evil]}}]}]}
`
	p.write("config/policy.yaml", policy)
	p.until("the policy", func() bool {
		snapshot := s.Snapshot()
		w := snapshot.Endpoints(web)[0]
		policies, missing := snapshot.Policies(w)
		if len(missing) > 0 {
			t.Fatalf("the workload names %v before it arrived", missing)
		}
		return len(policies) == 1
	})
	p.until("in sync", func() bool { return strings.Contains(p.get("/debug/syncz"), `"behind": 0`) })

	// A file that breaks keeps its last good objects, and says where it is wrong.
	p.write("config/policy.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny, namespace: shop}\nspec: {acton: DENY}\n")
	p.until("the error", func() bool { return strings.Contains(p.get("/debug/config"), "policy.yaml:4") })
	if policies, _ := s.Snapshot().Policies(s.Snapshot().Endpoints(web)[0]); len(policies) != 1 {
		t.Errorf("the last good policy is gone")
	}
	p.write("config/policy.yaml", policy)
	p.until("no error", func() bool { return !strings.Contains(p.get("/debug/config"), "policy.yaml:4") })

	// A restart sends differences only to those who say what they hold.
	versions := client.Versions()
	p.stop()
	p.start()
	p.until("serving again", func() bool { return strings.HasPrefix(p.get("/healthz/ready"), "200") })
	p.until("connected again", func() bool { return strings.Contains(p.get("/debug/syncz"), `"node": "n1"`) })
	if !bytes.Contains([]byte(fmt.Sprint(versions)), []byte(web.String())) {
		t.Errorf("versions held: %v", versions)
	}
	fresh, _ := p.agent(p.token("istio-system", "ztunnel", "ztunnel-n1", "n1"), "n1", "ztunnel-n1", versions)
	p.until("second client", func() bool { return strings.Count(p.get("/debug/syncz"), `"node": "n1"`) >= 2 })
	p.until("its answer", func() bool { return fresh.Snapshot().Generation() > 0 })
	if n := len(fresh.Snapshot().Workloads()); n != 0 {
		t.Errorf("%d workloads were sent to a client that holds them", n)
	}
}

func TestWhoMayAskForWorkloads(t *testing.T) {
	p := newPlane(t)
	for name, c := range map[string]struct{ token, node, pod, want string }{
		"an app":                     {p.token("shop", "web", "web", "n1"), "n1", "web", "is no node agent's"},
		"an agent for another node":  {p.token("istio-system", "ztunnel", "ztunnel-n1", "n1"), "n2", "ztunnel-n1", "NODE_NAME"},
		"an agent under another pod": {p.token("istio-system", "ztunnel", "ztunnel-n1", "n1"), "n1", "ztunnel-n2", "node id"},
	} {
		t.Run(name, func(t *testing.T) {
			s, client := p.agent(c.token, c.node, c.pod, nil)
			p.until("the refusal", func() bool { err := client.State().Err; return err != nil && strings.Contains(err.Error(), c.want) })
			if n := len(s.Snapshot().Workloads()); n != 0 {
				t.Errorf("it was sent %d workloads", n)
			}
		})
	}
}

func TestCertificatesForPodsOfTheNode(t *testing.T) {
	p := newPlane(t)
	manager, err := identity.NewManager(identity.Options{
		CA: identity.NewClient(p.dial(p.token("istio-system", "ztunnel", "ztunnel-n1", "n1"))), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	here := mesh.Identity{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "web"}
	elsewhere := mesh.Identity{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "other"}
	manager.Acquire(here)
	manager.Acquire(elsewhere)
	p.until("the certificate", func() bool { c, err := manager.Get(t.Context(), here); return err == nil && c != nil })
	p.until("the refusal", func() bool {
		for _, s := range manager.Status() {
			if s.Identity == elsewhere && s.Failure != nil {
				return strings.Contains(s.Failure.Error(), "no pod of shop/other is on node n1")
			}
		}
		return false
	})
}

func TestBadCommandLine(t *testing.T) {
	for want, args := range map[string][]string{
		"exactly one of --config-dir, --kubeconfig and --in-cluster": {},
		"no such file":                  {"--config-dir", "/nonexistent", "--state-dir", "x", "--token-keys", "x"},
		"needs --ca-cert, --ca-key and": {"--config-dir", ".", "--state-dir", "x", "--token-keys", "x", "--ca-cert", "x"},
		"want namespace/name":           {"--config-dir", ".", "--state-dir", "x", "--token-keys", "x", "--node-accounts", "x"},
		"unknown flag":                  {"--confg-dir", "."},
	} {
		cmd := command()
		cmd.SetArgs(args)
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		err := cmd.ExecuteContext(t.Context())
		if !run.IsUsage(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}
