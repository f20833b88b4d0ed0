package ztunnel

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// A world is two pods with real proxies, real certificates and real TCP, on
// addresses of 127/8 in the place of network namespaces.
type world struct {
	t        *testing.T
	store    *store.Store
	certs    *identity.Manager
	ca       *identitytest.CA
	registry *prometheus.Registry
	access   *lockedBuffer
	lines    *telemetry.LineWriter
	options  Options
	net      [2]byte // of 127.x.y.0/24
	pods     map[string]*testPod
}

type testPod struct {
	*Proxy
	sockets *fakeSockets
	addr    netip.Addr
	stop    func()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var worlds struct {
	sync.Mutex
	n int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	before := runtime.NumGoroutine()
	w := &world{t: t, ca: identitytest.New(), registry: prometheus.NewRegistry(), access: &lockedBuffer{}, pods: map[string]*testPod{}}
	worlds.Lock()
	worlds.n++
	w.net = [2]byte{byte(10 + os.Getpid()%200), byte(worlds.n)}
	worlds.Unlock()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if w.store, err = store.New(log); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(root, w.ca.RootPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	if w.certs, err = identity.NewManager(identity.Options{CA: w.ca, RootFile: root, Logger: log}); err != nil {
		t.Fatal(err)
	}
	if w.lines, err = telemetry.NewLineWriter(w.access, w.registry); err != nil {
		t.Fatal(err)
	}
	recorder, err := telemetry.NewRecorder(w.registry, telemetry.NewAccessLog(telemetry.FormatText, w.lines))
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	close(ready)
	w.options = Options{State: w.store, Certificates: w.certs, Recorder: recorder, Logger: log, Ready: ready, TrustDomain: "cluster.local"}
	t.Cleanup(func() {
		for _, p := range w.pods {
			p.stop()
		}
		w.certs.Close()
		w.lines.Close()
		eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before })
	})
	return w
}

func (w *world) addr(host byte) netip.Addr {
	return netip.AddrFrom4([4]byte{127, w.net[0], w.net[1], host})
}

// workload is a captured pod as the control plane has it.
func (w *world) workload(name string, host byte) *mesh.Workload {
	return &mesh.Workload{
		UID: mesh.WorkloadID("Kubernetes//Pod/shop/" + name), Name: name, Namespace: "shop", TrustDomain: "cluster.local", ServiceAccount: name,
		Addrs: []netip.Addr{w.addr(host)}, Cluster: "Kubernetes", Node: "n1", Locality: mesh.Locality{Region: "r1", Zone: "z1"}, Tunnel: mesh.TunnelHBONE,
		WorkloadName: name, WorkloadType: "deployment", CanonicalName: name, CanonicalRevision: "v1", Healthy: true, Capacity: 1,
		Services: map[mesh.ServiceKey][]mesh.Port{},
	}
}

func (w *world) apply(d mesh.Delta) {
	w.t.Helper()
	if err := w.store.Apply(d); err != nil {
		w.t.Fatal(err)
	}
}

// start enrols a pod.
func (w *world) start(name string, host byte) *testPod {
	w.t.Helper()
	return w.startWith(w.options, name, host, newFakeSockets(w.t, w.addr(host)))
}

func (w *world) startWith(o Options, name string, host byte, sockets *fakeSockets) *testPod {
	w.t.Helper()
	p, err := New(o, PodInfo{UID: name, Namespace: "shop", Name: name, ServiceAccount: name, Addrs: []netip.Addr{w.addr(host)}}, sockets)
	if err != nil {
		w.t.Fatal(err)
	}
	pod := &testPod{Proxy: p, sockets: sockets, addr: w.addr(host)}
	pod.stop = func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		p.Drain(ctx)
	}
	w.pods[name] = pod
	return pod
}

// log waits for an access record that holds all of want, and returns it.
func (w *world) log(want ...string) string {
	w.t.Helper()
	found := ""
	defer func() {
		if found == "" {
			w.t.Logf("the records:\n%s", w.access)
		}
	}()
	eventually(w.t, fmt.Sprintf("an access record with %q", want), func() bool {
	lines:
		for line := range strings.Lines(w.access.String()) {
			for _, s := range want {
				if !strings.Contains(line, s) {
					continue lines
				}
			}
			found = strings.TrimSuffix(line, "\n")
			return true
		}
		return false
	})
	return found
}

// metric is the sum of the series of name whose labels are as wanted.
func (w *world) metric(name string, labels map[string]string) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			have := map[string]string{}
			for _, l := range m.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			for k, v := range labels {
				if have[k] != v {
					continue series
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			stacks := make([]byte, 1<<16)
			t.Fatalf("not within 10 s: %s\n%s", what, stacks[:runtime.Stack(stacks, true)])
		case <-tick.C:
		}
	}
}

// fakeSockets stands in for a pod's namespace.
type fakeSockets struct {
	t                    *testing.T
	addr                 netip.Addr
	outbound, in, tunnel net.Listener

	mu      sync.Mutex
	origins map[string]netip.AddrPort
	older   []ends
	reset   []ends
	// dial, if set, replaces DialApp.
	dial func(ctx context.Context) (*net.TCPConn, error)
}

var _ PodSockets = (*fakeSockets)(nil)

func newFakeSockets(t *testing.T, addr netip.Addr) *fakeSockets {
	t.Helper()
	s := &fakeSockets{t: t, addr: addr, origins: map[string]netip.AddrPort{}}
	for into, port := range map[*net.Listener]uint16{&s.outbound: 15001, &s.in: 0, &s.tunnel: hbone.Port} {
		l, err := net.Listen("tcp", netip.AddrPortFrom(addr, port).String())
		if err != nil {
			t.Fatal(err)
		}
		*into = l
	}
	t.Cleanup(func() { s.outbound.Close(); s.in.Close(); s.tunnel.Close() })
	return s
}

func (s *fakeSockets) Outbound() net.Listener     { return s.outbound }
func (s *fakeSockets) InboundPlain() net.Listener { return s.in }
func (s *fakeSockets) InboundHBONE() net.Listener { return s.tunnel }

func (s *fakeSockets) OriginalDestination(c *net.TCPConn) (netip.AddrPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dst, ok := s.origins[c.RemoteAddr().String()]
	if !ok {
		return dst, fmt.Errorf("%s was not captured", c.RemoteAddr())
	}
	return dst, nil
}

func (s *fakeSockets) Dial(ctx context.Context, dst netip.AddrPort) (*net.TCPConn, error) {
	return dialFrom(ctx, s.addr, dst)
}

func (s *fakeSockets) DialApp(ctx context.Context, client netip.Addr, dst netip.AddrPort) (*net.TCPConn, error) {
	s.mu.Lock()
	dial := s.dial
	s.mu.Unlock()
	if dial != nil {
		return dial(ctx)
	}
	return dialFrom(ctx, client, dst)
}

func dialFrom(ctx context.Context, from netip.Addr, dst netip.AddrPort) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	c, err := d.DialContext(ctx, "tcp", dst.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func (s *fakeSockets) SetTCPOnly(bool) error { return nil }

func (s *fakeSockets) DestroySockets(_ context.Context, match func(local, remote netip.AddrPort) bool) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.older {
		if match(e.local, e.remote) {
			s.reset = append(s.reset, e)
			n++
		}
	}
	return n, nil
}

// connect is what the pod's application does: a connection to dst that is
// captured on its way.
func (p *testPod) connect(dst netip.AddrPort) *net.TCPConn {
	p.sockets.t.Helper()
	c, err := p.tryConnect(dst)
	if err != nil {
		p.sockets.t.Fatal(err)
	}
	return c
}

// tryConnect is for a connection that may be reset before connect returns.
func (p *testPod) tryConnect(dst netip.AddrPort) (*net.TCPConn, error) {
	// Bound before it connects, so that its origin is known before it is accepted.
	var local net.Addr
	p.sockets.mu.Lock()
	defer p.sockets.mu.Unlock()
	c, err := dialFrom(context.Background(), p.addr, addrPort(p.sockets.outbound.Addr()))
	if err != nil {
		return nil, err
	}
	local = c.LocalAddr()
	p.sockets.origins[local.String()] = dst
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	p.sockets.t.Cleanup(func() { c.Close() })
	return c, nil
}

// echo serves an application that sends back what it gets, after a greeting: the
// address that it sees. Half-closes are answered in kind.
func (w *world) echo(host byte, port uint16) netip.AddrPort {
	w.t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(w.addr(host), port).String())
	if err != nil {
		w.t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				greeting := "you are " + addrPort(c.RemoteAddr()).Addr().String() + "\n"
				_, _ = io.WriteString(c, greeting)
				_, _ = io.Copy(c, c)
			})
		}
	})
	w.t.Cleanup(func() { l.Close() })
	return addrPort(l.Addr())
}
