package ztunnel

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// nextAgent is the same pod under another agent, with metrics and a state of its own.
func (w *world) nextAgent(name string, o Options) (*testPod, *prometheus.Registry) {
	w.t.Helper()
	before := w.pods[name]
	sockets := &fakeSockets{t: w.t, addr: before.addr, origins: before.sockets.origins}
	for from, into := range map[net.Listener]*net.Listener{before.sockets.outbound: &sockets.outbound, before.sockets.in: &sockets.in, before.sockets.tunnel: &sockets.tunnel} {
		f, err := from.(*net.TCPListener).File()
		if err != nil {
			w.t.Fatal(err)
		}
		if *into, err = net.FileListener(f); err != nil {
			w.t.Fatal(err)
		}
		_ = f.Close()
	}
	registry := prometheus.NewRegistry()
	recorder, err := telemetry.NewRecorder(registry, telemetry.NewAccessLog(telemetry.FormatText, w.lines))
	if err != nil {
		w.t.Fatal(err)
	}
	o.Recorder = recorder
	p, err := New(o, PodInfo{UID: name, Namespace: "shop", Name: name, ServiceAccount: name, Addrs: []netip.Addr{before.addr}, TakenOver: true}, sockets)
	if err != nil {
		w.t.Fatal(err)
	}
	pod := &testPod{Proxy: p, sockets: sockets, addr: before.addr}
	pod.stop = func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		p.Drain(ctx)
	}
	w.pods[name+" of the next agent"] = pod
	return pod, registry
}

// rested is the pod's plaintext connection, at rest, as the next agent receives it.
func rested(t *testing.T, p *testPod) (*Plaintext, Carried, [2]*net.TCPConn) {
	t.Helper()
	var all []*Plaintext
	eventually(t, "a plaintext connection", func() bool { all, _ = p.Plaintexts(); return len(all) == 1 })
	c, fds, ok := all[0].Rest(10 * time.Second)
	if !ok {
		t.Fatal("it does not come to rest")
	}
	var ends [2]*net.TCPConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		conn, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		ends[i] = conn.(*net.TCPConn)
	}
	return all[0], c, ends
}

func ask(t *testing.T, c net.Conn, r *bufio.Reader, line string) {
	t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ReadString('\n'); err != nil || got != line+"\n" {
		t.Fatalf("%q came back: %q, %v", line, got, err)
	}
}

// Connections without a tunnel, out and in, go on with the next agent when the first
// one is gone: counted as opened by the first, as closed by the next, each byte once.
func TestPlaintextGoesOnWithTheNextAgent(t *testing.T) {
	for _, direction := range []telemetry.Direction{telemetry.Outbound, telemetry.Inbound} {
		t.Run(direction.String(), func(t *testing.T) {
			w, client, server, _ := shop(t)
			var c *net.TCPConn
			pod := client
			if direction == telemetry.Outbound {
				c = client.connect(w.echo(50, 0))
			} else {
				pod = server
				c = w.plainTo(server)
			}
			r := greeted(t, c)
			ask(t, c, r, "with the first")
			next, registry := w.nextAgent(pod.info.Name, w.options)
			first, carried, ends := rested(t, pod)
			resumption, err := next.Resume(carried, ends[0], ends[1])
			if err != nil {
				t.Fatal(err)
			}
			first.Leave()
			resumption.Begin()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			pod.Drain(ctx) // the first agent's end
			ask(t, c, r, "with the next")
			live := next.Connections()
			if len(live) != 1 || live[0] != first.live.Live {
				t.Errorf("live: %+v, want %+v", live, first.live.Live)
			}
			if strings.Contains(w.access.String(), "connection complete") {
				t.Errorf("a record before its end: %s", w.access)
			}
			_ = c.CloseWrite()
			if _, err := io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it ends", func() bool { return len(next.Connections()) == 0 })
			w.log("connection complete", `direction="`+direction.String()+`"`)
			asked := float64(len("with the first\nwith the next\n"))
			both := &world{t: t, registry: registry}
			for name, want := range map[string][2]float64{
				"istio_tcp_connections_opened_total": {1, 0}, "istio_tcp_connections_closed_total": {0, 1}, "istio_tcp_connections_failed_total": {0, 0},
				"istio_tcp_sockets_open": {0, 0}, "istio_tcp_received_bytes_total": {15, asked - 15},
			} {
				if a, b := w.metric(name, nil), both.metric(name, nil); a != want[0] || b != want[1] {
					t.Errorf("%s: %v and %v, want %v", name, a, b, want)
				}
			}
		})
	}
}

// plainTo is a connection of a stranger to the pod's application.
func (w *world) plainTo(pod *testPod) *net.TCPConn {
	w.t.Helper()
	app := w.store.Snapshot().Service(mesh.ServiceKey{Namespace: "shop", Hostname: "server.shop.svc.cluster.local"}).Ports[0].Target
	pod.sockets.mu.Lock()
	pod.sockets.dial = func(ctx context.Context) (*net.TCPConn, error) {
		return dialFrom(ctx, pod.addr, netip.AddrPortFrom(pod.addr, app))
	}
	pod.sockets.mu.Unlock()
	c, err := dialFrom(w.t.Context(), w.addr(60), addrPort(pod.sockets.in.Addr()))
	if err != nil {
		w.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	w.t.Cleanup(func() { c.Close() })
	return c
}

// The next agent has heard of a policy that the first has not.
func TestPlaintextIsDecidedOnByTheNextAgent(t *testing.T) {
	w, _, server, _ := shop(t)
	c := w.plainTo(server)
	greeted(t, c)
	first, carried, ends := rested(t, server)
	o := w.options
	o.State = denying{w.store}
	next, registry := w.nextAgent("server", o)
	resumption, err := next.Resume(carried, ends[0], ends[1])
	if err != nil {
		t.Fatal(err)
	}
	first.Leave()
	resumption.Begin()
	expectReset(t, c)
	w.log(`direction="inbound"`, `flag="DENY"`)
	if got := (&world{t: t, registry: registry}).metric("istio_tcp_connections_closed_total", map[string]string{"response_flags": "DENY"}); got != 1 {
		t.Errorf("%v closed by policy", got)
	}
}

// denying is a state in which plaintext is denied.
type denying struct{ State }

func (d denying) WaitPolicies(ctx context.Context, self *mesh.Workload) (s *store.Snapshot, policies []*mesh.Policy, missing []string) {
	s, policies, missing = d.State.WaitPolicies(ctx, self)
	return s, append(policies, strict()), missing
}

// What the next agent does not take goes on here, and what was to be closed meanwhile
// is closed then.
func TestPlaintextComesBack(t *testing.T) {
	w, client, _, _ := shop(t)
	c := client.connect(w.echo(50, 0))
	r := greeted(t, c)
	next, _ := w.nextAgent("client", w.options)
	first, carried, ends := rested(t, client)
	resumption, err := next.Resume(carried, ends[0], ends[1])
	if err != nil {
		t.Fatal(err)
	}
	resumption.Drop()
	first.GoOn()
	ask(t, c, r, "with the first")
	if n := len(next.Connections()) + len(next.outgoing); n != 0 {
		t.Errorf("the next has %d of it", n)
	}
	// An agent that ends takes none.
	next.stop()
	first, carried, ends = rested(t, client)
	if _, err := next.Resume(carried, ends[0], ends[1]); !errors.Is(err, errStopped) {
		t.Errorf("one that has ended: %v", err)
	}
	ends[0].Close()
	ends[1].Close()
	client.live.closeAll(errPolicyChange)
	first.GoOn()
	expectReset(t, c)
	w.log(`direction="outbound"`, "policy change")
}
