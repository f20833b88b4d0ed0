package standin

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
	"github.com/fairlead-mesh/fairlead/pkg/control/door"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/push"
	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/sds"
	"github.com/fairlead-mesh/fairlead/pkg/token"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
	realenvoy "github.com/fairlead-mesh/fairlead/test/envoy"
)

var self = mesh.Identity{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "waypoint"}

// cluster is a control plane with one waypoint Gateway, and backends that answer
// with their names.
type cluster struct {
	t       *testing.T
	dir     string
	address string
	// plain and secure are the waypoint's listeners: HTTP, and TLS by our secrets.
	plain, secure netip.AddrPort
	authority     *ca.Authority
	server        *push.Server
	waypoints     *push.Waypoints
	registry      *prometheus.Registry
	stop          func()

	mu       sync.Mutex
	backends map[string]netip.AddrPort
	extra    map[string]proto.Message // listeners
	// badRoutes are names of route configurations that Envoy refuses.
	badRoutes []string
	clusters  []string
	route     string
}

type everybody struct{}

func (everybody) Review(context.Context, string) (token.Caller, error) {
	return token.Caller{Namespace: "shop", ServiceAccount: "waypoint", Pod: "waypoint-1", PodUID: "1", Node: "n1"}, nil
}

type allPods struct{}

func (allPods) Exists(context.Context, token.Caller) (bool, error)           { return true, nil }
func (allPods) OnNode(context.Context, string, string, string) (bool, error) { return false, nil }

func free(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), address: free(t).String(), plain: free(t), secure: free(t), backends: map[string]netip.AddrPort{}}
	var err error
	if c.authority, err = ca.Create(filepath.Join(c.dir, "ca"), "cluster.local"); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"roots.pem": c.authority.RootsPEM(), "token": []byte("secret")} {
		if err := os.WriteFile(filepath.Join(c.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.start()
	return c
}

// start runs the control plane, which knows nothing of an earlier run.
func (c *cluster) start() {
	c.t.Helper()
	log := slog.New(slog.DiscardHandler)
	c.registry = prometheus.NewRegistry()
	var err error
	check := func() {
		if err != nil {
			c.t.Helper()
			c.t.Fatal(err)
		}
	}
	c.waypoints = push.NewWaypoints(log)
	c.publish()
	entrance, err := door.New(door.Options{Turns: 100})
	check()
	c.server, err = push.NewServer(push.Options{Log: push.NewLog(), Reviewer: everybody{}, Waypoints: c.waypoints, Door: entrance, Registry: c.registry, Logger: log})
	check()
	certificates, err := ca.NewService(ca.Options{Authority: func() *ca.Authority { return c.authority }, Reviewer: everybody{}, Pods: allPods{}, Registry: c.registry, Logger: log,
		TrustDomain: func() string { return "cluster.local" }})
	check()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check()
	chain, _, err := c.authority.SignServer(key.Public(), []string{"istiod"}, nil, time.Hour)
	check()
	g := grpc.NewServer(grpc.ForceServerCodecV2(push.Codec()), grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key}},
	})))
	c.server.Register(g)
	certificates.Register(g)
	l, err := net.Listen("tcp", c.address)
	check()
	go func() { _ = g.Serve(l) }()
	c.stop = g.Stop
	c.t.Cleanup(g.Stop)
}

// sent counts the resources' bytes that were sent.
func (c *cluster) sent() int {
	n, err := testutil.GatherAndCount(c.registry, "fairlead_xds_sent_bytes_total")
	if err != nil || n != 1 {
		c.t.Fatal(n, err)
	}
	families, _ := c.registry.Gather()
	for _, f := range families {
		if f.GetName() == "fairlead_xds_sent_bytes_total" {
			return int(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	return -1
}

// configure publishes a cluster of that name, and a route to another or the same.
func (c *cluster) configure(name, route string) {
	c.mu.Lock()
	if _, ok := c.backends[name]; !ok {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			c.t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }), ReadHeaderTimeout: time.Minute}
		go func() { _ = server.Serve(l) }()
		c.t.Cleanup(func() { server.Close() })
		c.backends[name] = l.Addr().(*net.TCPAddr).AddrPort()
	}
	c.clusters, c.route = []string{name}, route
	c.mu.Unlock()
	c.publish()
}

func (c *cluster) publish() {
	c.t.Helper()
	if _, err := c.waypoints.Publish(&model.Model{Waypoints: []*model.Waypoint{
		{Key: model.Key{Namespace: "shop", Name: "waypoint"}, ServiceAccount: "waypoint"},
	}}, c.generate); err != nil {
		c.t.Fatal(err)
	}
}

// envoy is one that was started with our bootstrap.
type envoy struct {
	t                  *testing.T
	cluster            *cluster
	readiness, metrics netip.AddrPort
	certificates       *identity.Manager
	log                *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (c *cluster) envoy() *envoy { return c.envoyIn() }

// envoyIn is one that is started by another program.
func (c *cluster) envoyIn(starter ...string) *envoy {
	c.t.Helper()
	program := realenvoy.Need(c.t)
	log := slog.New(slog.DiscardHandler)
	conn, err := identity.Dial(c.address, "istiod", filepath.Join(c.dir, "roots.pem"), identity.Token{File: filepath.Join(c.dir, "token"), Cluster: "Kubernetes"})
	if err != nil {
		c.t.Fatal(err)
	}
	manager, err := identity.NewManager(identity.Options{CA: identity.NewOwnClient(conn), RootFile: filepath.Join(c.dir, "roots.pem"), Logger: log})
	if err != nil {
		c.t.Fatal(err)
	}
	manager.Acquire(self)
	socket := filepath.Join(c.dir, "s", "sds")
	server, err := sds.Listen(sds.Options{Socket: socket, Identity: self, Certificates: manager, ControlPlane: conn, Logger: log})
	if err != nil {
		c.t.Fatal(err)
	}
	e := &envoy{t: c.t, cluster: c, readiness: free(c.t), metrics: free(c.t), certificates: manager, log: &safeBuffer{}}
	pod := xds.Waypoint{Pod: "waypoint-1", Namespace: "shop", ServiceAccount: "waypoint", Gateway: "waypoint", Node: "n1"}
	bootstrap, err := sds.Bootstrap{
		NodeID: pod.NodeID(), Cluster: "waypoint.shop", Metadata: pod.PlainMetadata(), Socket: socket, Admin: free(c.t), Readiness: e.readiness, Metrics: e.metrics,
	}.JSON()
	if err != nil {
		c.t.Fatal(err)
	}
	file := filepath.Join(c.dir, "bootstrap.json")
	if err := os.WriteFile(file, bootstrap, 0o600); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	args := append(starter, program, "--config-path", file, "--concurrency", "2", "--log-level", "warning", "--disable-hot-restart")
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = e.log, e.log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
		manager.Close()
		conn.Close()
		if c.t.Failed() {
			c.t.Log(e.log.String())
		}
	})
	return e
}
