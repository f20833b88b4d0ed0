package ztunnel

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func denyClient(name string) *mesh.Policy {
	return &mesh.Policy{
		Name: name, Namespace: "shop", Scope: mesh.ScopeNamespace, Action: mesh.ActionDeny,
		Rules: []mesh.PolicyRule{{Clauses: []mesh.PolicyClause{{Matches: []mesh.PolicyMatch{{
			Principals: []mesh.StringMatch{{Kind: mesh.MatchExact, Value: "cluster.local/ns/shop/sa/client"}},
		}}}}}},
	}
}

// strict is PeerAuthentication STRICT as a control plane sends it.
func strict() *mesh.Policy {
	return &mesh.Policy{
		Name: "istio_converted_static_strict", Namespace: "istio-system", Scope: mesh.ScopeGlobal, Action: mesh.ActionDeny,
		Rules: []mesh.PolicyRule{{Clauses: []mesh.PolicyClause{{Matches: []mesh.PolicyMatch{{NotPrincipals: []mesh.StringMatch{{Kind: mesh.MatchPresence}}}}}}}},
	}
}

func greeted(t *testing.T, c net.Conn) *bufio.Reader {
	t.Helper()
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return r
}

// A policy refuses new connections and ends those open, of the client that it
// names alone; once it is gone all is as before.
func TestPolicyOnLiveConnections(t *testing.T) {
	w, client, _, vip := shop(t)
	w.apply(mesh.Delta{Workloads: []*mesh.Workload{w.workload("friend", 3)}})
	friend := w.start("friend", 3)
	denied, other := client.connect(vip), friend.connect(vip)
	greeted(t, denied)
	r := greeted(t, other)

	begin := time.Now()
	w.apply(mesh.Delta{Policies: []*mesh.Policy{denyClient("deny-client")}})
	expectReset(t, denied)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("closed after %s", took)
	}
	w.log(`direction="inbound"`, `flag="DENY"`, `policy="shop/deny-client"`, `reason="denied by policy"`, `error="connection closed due to policy change"`)
	expectReset(t, client.connect(vip))
	w.log("connection failed", `direction="inbound"`, `flag="DENY"`, `policy="shop/deny-client"`)
	w.log("connection failed", `direction="outbound"`, `flag="DENY"`, "401")

	if _, err := io.WriteString(other, "on\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ReadString('\n'); err != nil || got != "on\n" {
		t.Errorf("who is not denied: %q, %v", got, err)
	}
	w.apply(mesh.Delta{RemovedPolicies: []string{"shop/deny-client"}})
	greeted(t, client.connect(vip))
}

func TestPlaintextByPolicy(t *testing.T) {
	w, _, server, _ := shop(t)
	stranger := func() (*net.TCPConn, error) {
		// The capture's listener stands for the port: its own is the destination.
		c, err := dialFrom(t.Context(), w.addr(77), addrPort(server.sockets.in.Addr()))
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return c, err
	}
	app := w.echo(2, 0)
	server.sockets.mu.Lock()
	server.sockets.dial = func(ctx context.Context) (*net.TCPConn, error) { return dialFrom(ctx, w.addr(77), app) }
	server.sockets.mu.Unlock()
	c, err := stranger()
	if err != nil {
		t.Fatal(err)
	}
	greeted(t, c)
	w.apply(mesh.Delta{Policies: []*mesh.Policy{strict()}})
	expectReset(t, c)
	w.log("connection complete", `direction="inbound"`, `policy="istio-system/istio_converted_static_strict"`, `error="connection closed due to policy change"`)
	if c, err := stranger(); err == nil {
		expectReset(t, c)
	} else if !errors.Is(err, syscall.ECONNRESET) { // it may come before the dial's own end
		t.Error(err)
	}
	w.log("connection failed", `direction="inbound"`, `flag="DENY"`, `policy="istio-system/istio_converted_static_strict"`)
	if got := w.metric("istio_tcp_connections_failed_total", map[string]string{"reporter": "destination", "response_flags": "DENY", "connection_security_policy": "unknown"}); got != 1 {
		t.Errorf("%v refused", got)
	}
}

// A change that comes while the application is being dialled is not missed.
func TestPolicyWhileDialling(t *testing.T) {
	w, client, server, vip := shop(t)
	dialling, cancelled := make(chan struct{}), make(chan struct{})
	server.sockets.mu.Lock()
	server.sockets.dial = func(ctx context.Context) (*net.TCPConn, error) {
		close(dialling)
		<-ctx.Done()
		close(cancelled)
		return nil, context.Cause(ctx)
	}
	server.sockets.mu.Unlock()
	c := client.connect(vip)
	<-dialling
	w.apply(mesh.Delta{Policies: []*mesh.Policy{denyClient("deny-client")}})
	<-cancelled
	expectReset(t, c)
	w.log("connection failed", `direction="inbound"`, `policy="shop/deny-client"`, "policy change")
}

// Connections older than the enrolment: reset where policy denies what is plain.
func TestOlderConnections(t *testing.T) {
	w := newWorld(t)
	w.apply(mesh.Delta{Workloads: []*mesh.Workload{w.workload("server", 2)}})
	sockets := newFakeSockets(t, w.addr(2))
	in := ends{netip.AddrPortFrom(w.addr(2), 8080), netip.AddrPortFrom(w.addr(9), 40000)}
	out := ends{netip.AddrPortFrom(w.addr(2), 41000), netip.AddrPortFrom(w.addr(9), 5432)}
	sockets.older = []ends{in, out}
	w.startWith(w.options, "server", 2, sockets)
	reset := func() []ends {
		sockets.mu.Lock()
		defer sockets.mu.Unlock()
		return append([]ends(nil), sockets.reset...)
	}
	if got := reset(); len(got) != 0 {
		t.Fatalf("reset %v without a policy", got)
	}
	w.apply(mesh.Delta{Policies: []*mesh.Policy{strict()}})
	eventually(t, "the older inbound connection is reset", func() bool { return len(reset()) > 0 })
	if got := reset(); len(got) != 1 || got[0] != in {
		t.Errorf("reset %v, want %v", got, in)
	}
}

// The set of live connections: closed once, with the first reason, whenever.
func TestLiveSet(t *testing.T) {
	s := newLiveSet()
	aborted := 0
	before, ctx := s.add(t.Context(), Live{}, func(*view) error { return errPolicyChange })
	after, _ := s.add(t.Context(), Live{}, func(*view) error { return errPolicyChange })
	never, _ := s.add(t.Context(), Live{}, nil)
	if err := after.carry(func() { aborted++ }); err != nil {
		t.Fatal(err)
	}
	s.revise(&view{})
	s.revise(&view{})
	if aborted != 1 || context.Cause(ctx) != errPolicyChange { //nolint:errorlint // the very one
		t.Errorf("aborted %d times, dial ended by %v", aborted, context.Cause(ctx))
	}
	if err := before.carry(func() { aborted++ }); err != errPolicyChange { //nolint:errorlint // the very one
		t.Errorf("what was closed may carry: %v", err)
	}
	s.closeAll(errStopped)
	for c, want := range map[*liveConn]error{before: errPolicyChange, after: errPolicyChange, never: errStopped} {
		if err := c.end(io.EOF); err != want { //nolint:errorlint // the very one
			t.Errorf("ended by %v, want %v", err, want)
		}
	}
	if len(s.list()) != 0 {
		t.Error("something is left")
	}
}
