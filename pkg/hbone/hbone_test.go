package hbone

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/test/condition"
)

var (
	alice = mesh.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "alice"}
	bob   = mesh.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "bob"}
)

// rig is a pool of alice's and a server of bob's, with an echo behind it.
type rig struct {
	pool    *Pool
	server  *Server
	key     Key
	manager *identity.Manager
	dials   atomic.Int64
	seen    chan *Request
	status  atomic.Int64   // what to reject with, or 0
	handle  func(*Request) // instead of relaying to the echo, or nil; set before the first stream
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{seen: make(chan *Request, 10_000)}
	var err error
	r.manager, err = identity.NewManager(identity.Options{CA: identitytest.New(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.manager.Close)
	r.manager.Acquire(alice)
	r.manager.Acquire(bob)
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { echo.Close() })
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	r.server, err = NewServer(ServerOptions{TLS: r.manager.ServerTLS(bob), Logger: slog.New(slog.DiscardHandler), Handle: func(q *Request) {
		r.seen <- q
		if s := r.status.Load(); s != 0 {
			q.Reject(int(s))
			return
		}
		if r.handle != nil {
			r.handle(q)
			return
		}
		c, err := net.Dial("tcp", echo.Addr().String())
		if err != nil {
			q.Reject(503)
			return
		}
		var a, b atomic.Uint64
		q.Accept(c.(*net.TCPConn), "service.name=bob", &a, &b, func(error) {})
	}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { _ = r.server.Serve(l) }()
	r.key = Key{Source: alice, Destination: addrPort(l.Addr()), Expected: bob.String()}
	r.pool, err = NewPool(PoolOptions{
		Dial: func(ctx context.Context, dst netip.AddrPort) (*net.TCPConn, error) {
			r.dials.Add(1)
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", dst.String())
			if err != nil {
				return nil, err
			}
			return c.(*net.TCPConn), nil
		},
		TLS: func(k Key) *tls.Config { return r.manager.ClientTLS(k.Source, SplitExpected(k.Expected)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.pool.Close)
	return r
}

// connect opens a stream and returns the application's end of it.
func (r *rig) connect(t testing.TB) (net.Conn, error) {
	t.Helper()
	s, err := r.pool.Open(t.Context(), r.key, Headers{Authority: Authority{Addr: netip.MustParseAddr("10.0.0.1"), Port: 80}, Baggage: "k8s.cluster.name=c", Forwarded: Forwarded(netip.MustParseAddrPort("10.0.0.9:1"), "svc.ns")})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	app, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	inner, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		var a, b atomic.Uint64
		s.Relay(inner.(*net.TCPConn), &a, &b, func(error) {})
	}()
	return app, nil
}

func echoes(c net.Conn, text string) error {
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	_ = c.(*net.TCPConn).CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	b, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(b, []byte(text)) {
		err = fmt.Errorf("%q came back", b)
	}
	return err
}

func TestStreamsShareATunnel(t *testing.T) {
	r := newRig(t)
	var group sync.WaitGroup
	for range 200 {
		group.Go(func() {
			c, err := r.connect(t)
			if err == nil {
				err = echoes(c, "hello")
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := r.dials.Load(); n > 4 {
		t.Errorf("%d connections for 200 streams", n)
	}
	q := <-r.seen
	if got := identity.Peer(*q.TLS); got != alice {
		t.Errorf("the server saw %v", got)
	}
	if q.Authority.String() != "10.0.0.1:80" || !slices.Equal(q.Baggage, []string{"k8s.cluster.name=c"}) || ForwardedHost(q.Forwarded) != "svc.ns" {
		t.Errorf("request %+v", q)
	}
}

func TestRefusalsAreTold(t *testing.T) {
	r := newRig(t)
	for _, status := range []int{400, 401, 503} {
		r.status.Store(int64(status))
		_, err := r.connect(t)
		var se *StatusError
		if !errors.As(err, &se) || se.Status != status {
			t.Errorf("%d: %v", status, err)
		}
	}
	r.status.Store(0)
	if c, err := r.connect(t); err != nil || echoes(c, "x") != nil {
		t.Errorf("after refusals: %v", err)
	}
	if n := r.dials.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestWrongPeerAndUnreachable(t *testing.T) {
	r := newRig(t)
	r.key.Expected = alice.String()
	if _, err := r.connect(t); !errors.Is(err, ErrTLS) || !errors.Is(err, identity.ErrUnexpectedPeer) {
		t.Errorf("another identity: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.key.Destination = addrPort(l.Addr())
	l.Close()
	if _, err := r.connect(t); !errors.Is(err, ErrDial) {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestDrainLetsStreamsEnd(t *testing.T) {
	r := newRig(t)
	c, err := r.connect(t)
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	go func() {
		r.server.Drain(t.Context())
		close(drained)
	}()
	// The stream goes on; a new one is refused.
	for deadline := time.Now().Add(20 * time.Second); ; {
		other, err := r.connect(t)
		if err != nil {
			break
		}
		other.Close()
		if time.Now().After(deadline) {
			t.Fatal("a draining server takes streams")
		}
	}
	if err := echoes(c, "still here"); err != nil {
		t.Errorf("a stream of a draining server: %v", err)
	}
	select {
	case <-drained:
	case <-time.After(20 * time.Second):
		t.Error("the drain does not end")
	}
}

// An agent is replaced while tunnels to it are made: who waits for such a tunnel gets
// another, of the next agent. The old one finishes the handshakes that it has begun,
// and says then that it takes no streams; one of before closed them without a word.
func TestHandshakesOutliveADrain(t *testing.T) {
	for name, silent := range map[string]bool{"told": false, "without a word": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			next := r.key.Destination
			r.key.Destination = addrPort(l.Addr())
			o := r.server.o
			o.Failed = func(_ netip.AddrPort, err error) { t.Errorf("a handshake was broken off: %v", err) }
			old, err := NewServer(o)
			if err != nil {
				t.Fatal(err)
			}
			begun := make(chan *net.TCPConn)
			dial := r.pool.o.Dial
			var once sync.Once
			r.pool.o.Dial = func(ctx context.Context, _ netip.AddrPort) (c *net.TCPConn, err error) {
				dst := next
				once.Do(func() { dst = addrPort(l.Addr()) })
				if c, err = dial(ctx, dst); err == nil && dst != next {
					s, err := l.Accept()
					if err != nil {
						return nil, err
					}
					begun <- s.(*net.TCPConn)
				}
				return c, err
			}
			const waiting = 20
			failed := make(chan error, waiting)
			for range waiting {
				go func() {
					c, err := r.connect(t)
					if err == nil {
						err = echoes(c, "hello")
					}
					failed <- err
				}()
			}
			c := <-begun
			drained := make(chan struct{})
			if silent {
				c.Close()
				close(drained)
			} else {
				old.admit(c) // accepted, and it drains before the first byte
				old.work.Add(1)
				go func() { defer close(drained); old.Drain(t.Context()) }()
				condition.Await(t, "it drains", func() bool { old.mu.Lock(); defer old.mu.Unlock(); return old.draining })
				go func() { defer old.work.Done(); old.serve(c) }()
			}
			for range waiting {
				if err := <-failed; err != nil {
					t.Error(err)
				}
			}
			<-drained
		})
	}
}

func TestSilentPeersAreBoundedAndHarmNobody(t *testing.T) {
	r := newRig(t)
	for range 300 { // more than there may be handshakes
		c, err := net.Dial("tcp", r.key.Destination.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if c, err := r.connect(t); err != nil || echoes(c, "x") != nil {
		t.Errorf("behind silent peers: %v", err)
	}
}

func TestParseAuthority(t *testing.T) {
	for s, ok := range map[string]bool{
		"10.0.0.1:80": true, "[fd00::1]:80": true, "web.shop.svc.cluster.local:8080": true, "a:1": true,
		"": false, "10.0.0.1": false, "10.0.0.1:0": false, "10.0.0.1:65536": false, "10.0.0.1:080": false, "10.0.0.1:+80": false, "fd00::1:80": false,
		"[10.0.0.1]:80": false, "[fd00::1%eth0]:80": false, "a b:80": false, "-a.b:80": false, "a..b:80": false, "a/b:80": false, "[fd00::1:80": false,
	} {
		a, err := ParseAuthority(s)
		if (err == nil) != ok {
			t.Errorf("%q: %v, %v", s, a, err)
		}
		if err == nil && a.String() != s {
			t.Errorf("%q became %q", s, a)
		}
	}
}

func TestBaggage(t *testing.T) {
	b := Baggage{"c", "ns", "deployment", "web", "web", "v1", "r", "z"}
	want := "k8s.cluster.name=c,k8s.namespace.name=ns,k8s.deployment.name=web,service.name=web,service.version=v1,cloud.region=r,cloud.availability_zone=z"
	if got := b.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := (Baggage{ServiceName: "a,b=c"}).String(); got != "service.name=a%2Cb%3Dc" {
		t.Errorf("%q", got)
	}
}

func FuzzAuthority(f *testing.F) {
	f.Add("10.0.0.1:80")
	f.Add("[::ffff:10.0.0.1]:1")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAuthority(s)
		if err != nil {
			return
		}
		if b, err := ParseAuthority(a.String()); err != nil || a != b {
			t.Errorf("%q: %v, then %v, %v", s, a, b, err)
		}
	})
}

func FuzzForwarded(f *testing.F) {
	f.Add(`for="10.0.0.1:80";host=svc.ns`)
	f.Fuzz(func(_ *testing.T, s string) { ForwardedHost(s) })
}

// One peer has at most half of the connections, and what it gives back it may have
// again.
func TestConnectionsOfOnePeer(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(ServerOptions{TLS: r.manager.ServerTLS(bob), Handle: func(*Request) {}, MaxConnections: 8, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	connect := func(from string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		err = tls.Client(c, r.manager.ClientTLS(alice, []string{bob.String()})).Handshake()
		// The server may be through later: of those that are not, some make room.
		condition.Await(t, "the handshake is over", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.pending) == 0 })
		return c, err
	}
	var one []net.Conn
	for range 4 {
		c, err := connect("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		one = append(one, c)
	}
	if _, err := connect("127.0.0.1"); err == nil {
		t.Error("one peer has more than half")
	}
	if _, err := connect("127.0.0.2"); err != nil {
		t.Error("another peer is kept out:", err)
	}
	for _, c := range one {
		c.Close()
	}
	for end := time.Now().Add(20 * time.Second); s.Active() > 1 && time.Now().Before(end); {
		<-time.After(time.Millisecond)
	}
	if _, err := connect("127.0.0.1"); err != nil {
		t.Error("what was given back is not to be had again:", err)
	}
	l.Close()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	s.Drain(ended)
	if err := <-served; err != nil {
		t.Error(err)
	}
}
