package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint"
	upstream "github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// live is a waypoint's engine that tells which resources it has taken.
type live struct {
	*waypoint.Engine
	t     testing.TB
	mu    sync.Mutex
	taken map[string]int // by name: how often
	some  chan struct{}
}

func (l *live) ApplyEnvoy(typeURL string, updated []*discovery.Resource, removed []string) map[string]error {
	refused := l.Engine.ApplyEnvoy(typeURL, updated, removed)
	for name, err := range refused {
		if err != nil {
			l.t.Errorf("%s: %v", name, err)
		}
	}
	l.mu.Lock()
	for _, r := range updated {
		l.taken[r.GetName()]++
	}
	close(l.some)
	l.some = make(chan struct{})
	l.mu.Unlock()
	return refused
}

// await waits until a resource was taken more often than before.
func (l *live) await(name string, before int) {
	deadline := time.After(60 * time.Second)
	for {
		l.mu.Lock()
		n, some := l.taken[name], l.some
		l.mu.Unlock()
		if n > before {
			return
		}
		select {
		case <-some:
		case <-deadline:
			l.t.Fatalf("%s did not come", name)
		}
	}
}

func (l *live) count(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken[name]
}

type noRecorders struct{}

func (noRecorders) HTTP(waypoint.HTTPLoggers) ([]hcm.Recorder, error) { return nil, nil }
func (noRecorders) TCP(waypoint.TCPLoggers) ([]hcm.Recorder, error)   { return nil, nil }

// engine is the waypoint of a namespace, all of it but what carries traffic.
func (p *plane) engine(namespace string) *live {
	p.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	clusters, err := upstream.NewManager(upstream.Options{Logger: logger,
		Dial: func(context.Context, netip.AddrPort) (codec.Conn, error) {
			return nil, errors.New("nothing is sent here")
		}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(clusters.Close)
	l := &live{t: p.t, taken: map[string]int{}, some: make(chan struct{})}
	var client *xds.Client
	l.Engine, err = waypoint.New(waypoint.Options{Clusters: clusters, Recorders: noRecorders{}, Logger: logger, TunnelTLS: &tls.Config{MinVersion: tls.VersionTLS13},
		Want:   func(typeURL string, names []string) { client.Want(typeURL, names) },
		Listen: func(string) (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }})
	if err != nil {
		p.t.Fatal(err)
	}
	s, err := store.New(logger)
	if err != nil {
		p.t.Fatal(err)
	}
	pod := xds.Waypoint{Pod: "waypoint-1", Namespace: namespace, ServiceAccount: "waypoint", Gateway: "waypoint", Node: "n1", Version: "test"}
	client, err = xds.NewClient(xds.Options{
		Conn: p.dial(p.token(namespace, "waypoint", "waypoint-1", "n1")), Applier: s, Envoy: l,
		NodeID: pod.NodeID(), Metadata: pod.Metadata(), Logger: logger,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	p.t.Cleanup(func() { cancel(); <-done })
	return l
}

// save is how an editor saves: beside, then in its place.
func (p *plane) save(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".next")
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		p.t.Fatal(err)
	}
}

// shape is a mesh of one waypoint, each object in a file of its own.
type shape struct {
	name                 string
	namespaces, services int // services of each namespace
	routes               int // of each service
	gatewayAPI           bool
}

func (s shape) host(i int) (namespace, name string) {
	return fmt.Sprintf("n%d", i/s.services), fmt.Sprintf("s%d", i%s.services)
}

func (s shape) write(p *plane) {
	p.write("config/gateway.yaml", `{apiVersion: v1, kind: Node, metadata: {name: n1}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: n0}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: waypoint, namespace: n0, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}, spec: {clusterIP: 10.97.0.1, ports: [{port: 15008}]}}
`)
	for n := range s.namespaces {
		p.write(fmt.Sprintf("config/n%d/namespace.yaml", n), fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: n%d, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: n0}}}\n", n))
	}
	for i := range s.namespaces * s.services {
		namespace, name := s.host(i)
		p.write(fmt.Sprintf("config/%s/service-%s.yaml", namespace, name), fmt.Sprintf(
			"{apiVersion: v1, kind: Service, metadata: {name: %s, namespace: %s}, spec: {clusterIP: 10.96.%d.%d, selector: {app: %s}, ports: [{name: http, port: 80, targetPort: 8080}]}}\n", name, namespace, i/250, i%250+1, name))
		p.write(s.pod(i, true))
		for r := range s.routes {
			p.write(s.route(i, r, 0))
		}
	}
}

func (s shape) pod(i int, ready bool) (file, text string) {
	namespace, name := s.host(i)
	return fmt.Sprintf("config/%s/pod-%s.yaml", namespace, name), fmt.Sprintf(
		"{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: %s, labels: {app: %s}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {nodeName: n1, serviceAccountName: %s, containers: [{name: app, image: echo}]}, status: {phase: Running, podIP: 10.100.%d.%d, podIPs: [{ip: 10.100.%d.%d}], conditions: [{type: Ready, status: %q}]}}\n",
		name, namespace, name, name, i/250, i%250+1, i/250, i%250+1, map[bool]string{true: "True", false: "False"}[ready])
}

func (s shape) route(i, r, version int) (file, text string) {
	namespace, name := s.host(i)
	file = fmt.Sprintf("config/%s/route-%s-%d.yaml", namespace, name, r)
	path := fmt.Sprintf("/r%d/v%d", r, version)
	if s.gatewayAPI {
		return file, fmt.Sprintf("{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: %s-%d, namespace: %s}, spec: {parentRefs: [{group: '', kind: Service, name: %s}], rules: [{matches: [{path: {type: PathPrefix, value: %s}}], backendRefs: [{name: %s, port: 80}]}]}}\n", name, r, namespace, name, path, name)
	}
	return file, fmt.Sprintf("{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: %s-%d, namespace: %s}, spec: {hosts: [%s], http: [{match: [{uri: {prefix: %s}}], route: [{destination: {host: %s}}]}]}}\n", name, r, namespace, name, path, name)
}

// resource is the name of a service's cluster, endpoints and routes.
func (s shape) resource(i int) string {
	namespace, name := s.host(i)
	return fmt.Sprintf("inbound-vip|80|http|%s.%s.svc.cluster.local", name, namespace)
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func rss() string {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// BenchmarkChange is one file that is saved among thousands, until a waypoint's
// engine serves by it: the control plane and the waypoint in one process, with
// everything between them. It tells the processor time and allocations of both,
// which other programs do not disturb, and how long it took.
func BenchmarkChange(b *testing.B) {
	for _, s := range []shape{
		{name: "3000 services", namespaces: 1, services: 3000, routes: 1},
		{name: "3000 services, HTTPRoute", namespaces: 1, services: 3000, routes: 1, gatewayAPI: true},
		{name: "50 namespaces", namespaces: 50, services: 60, routes: 1},
		{name: "one service", namespaces: 1, services: 1, routes: 3000},
		{name: "one service, HTTPRoute", namespaces: 1, services: 1, routes: 3000, gatewayAPI: true},
	} {
		b.Run(s.name, func(b *testing.B) {
			p := emptyPlane(b)
			s.write(p)
			p.start()
			e := p.engine("n0")
			all := s.namespaces * s.services
			for i := range all {
				e.await(s.resource(i), 2) // its cluster, endpoints and routes
			}
			for n, before := -1, -2; n != before; { // statuses are written beside
				before = n
				<-time.After(time.Second)
				files, _ := os.ReadDir(filepath.Join(p.dir, "status"))
				n = len(files)
			}
			runtime.GC()
			b.Logf("memory of both: %s", rss())
			version := 0
			b.Run("route", func(b *testing.B) {
				measure(b, func(i int) {
					version++
					i = i * 7 % (all * s.routes)
					at, before := i/s.routes, e.count(s.resource(i/s.routes))
					p.save(s.route(at, i%s.routes, version))
					e.await(s.resource(at), before)
				})
			})
			b.Run("route under churn", func(b *testing.B) {
				defer s.churn(p)()
				measure(b, func(i int) {
					version++
					i = i * 11 % (all * s.routes)
					at, before := i/s.routes, e.count(s.resource(i/s.routes))
					p.save(s.route(at, i%s.routes, version))
					e.await(s.resource(at), before)
				})
			})
			b.Run("pod", func(b *testing.B) {
				measure(b, func(i int) {
					version++
					at := i * 7 % all
					before := e.count(s.resource(at))
					p.save(s.pod(at, e.odd(at)))
					e.await(s.resource(at), before)
				})
			})
			p.stop()
		})
	}
}

// churn changes routes that nobody waits for, one every 50 ms, until stop is called.
func (s shape) churn(p *plane) (stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			j := (i*7 + 3) % (s.namespaces * s.services * s.routes)
			p.save(s.route(j/s.routes, j%s.routes, 1_000_000+i))
		}
	}()
	return func() { close(ended); <-done }
}

// odd flips with each call for a service.
func (l *live) odd(i int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := fmt.Sprint("pod ", i)
	l.taken[name]++
	return l.taken[name]%2 == 0
}

// measure does a change every 50 ms.
func measure(b *testing.B, change func(i int)) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	b.ReportAllocs()
	var took []time.Duration
	used := cpu()
	i := 0
	for b.Loop() {
		i++
		<-tick.C
		start := time.Now()
		change(i)
		took = append(took, time.Since(start))
	}
	b.ReportMetric(float64((cpu()-used).Microseconds())/float64(i)/1000, "cpu-ms/op")
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(0, "ns/op")
}
