package codec

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/test/loopback"
)

// parkable is a server whose connection parks, and its client.
type parkable struct {
	client net.Conn
	in     *bufio.Reader
	server Conn
	parks  chan struct{} // it was parked
	over   chan error    // what the last serve function returned
	ends   atomic.Int32  // calls of what was given to After
}

// live serves in this goroutine until the connection parks, and goes on in others.
func (p *parkable) live(step func() error) {
	err := step()
	var parked *Parked
	if !errors.As(err, &parked) {
		p.over <- err
		return
	}
	if len(parked.ends) == 0 {
		parked.After(func() { p.ends.Add(1) })
	}
	p.parks <- struct{}{}
	parked.Wait(func() { p.live(parked.Resume) })
}

func (p *parkable) parked(t *testing.T) {
	t.Helper()
	select {
	case <-p.parks:
	case <-time.After(10 * time.Second):
		t.Fatal("it does not park")
	}
}

func (p *parkable) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.over:
		if n := p.ends.Load(); n != 1 {
			t.Errorf("its end was told %d times", n)
		}
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
		return nil
	}
}

func (p *parkable) asks(t *testing.T, path string) {
	t.Helper()
	send(t, p.client, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, got := response(t, p.in, "GET"); got != "GET a"+path+" " {
		t.Fatalf("got %q", got)
	}
}

type serveFunc func(Conn, Options, Handler) error

// transports make a server of each kind of connection that parks.
var transports = map[string]func(*testing.T, Options, serveFunc) *parkable{
	"socket": func(t *testing.T, o Options, f serveFunc) *parkable {
		client, server := loopback.Pair(t)
		p := newParkable(client, TCPConn{TCPConn: server, Parking: NewParking(server)})
		go p.live(func() error { return f(p.server, o, echo) })
		return p
	},
	"TLS": func(t *testing.T, o Options, f serveFunc) *parkable {
		client, server := loopback.Pair(t)
		secured := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{identitytest.SelfSigned()}})
		p := newParkable(tls.Client(client, &tls.Config{InsecureSkipVerify: true}), TLSConn{Conn: secured, Parking: NewParking(server)})
		go p.live(func() error {
			if err := secured.HandshakeContext(t.Context()); err != nil {
				return err
			}
			return f(p.server, o, echo)
		})
		return p
	},
	"tunnel": func(t *testing.T, o Options, f serveFunc) *parkable {
		near, far := loopback.Pair(t)
		p := newParkable(nil, nil)
		streams := make(chan *h2.Stream, 1)
		go func() {
			_ = h2.Server(far, h2.Config{}, func(s *h2.Stream) {
				if err := s.Respond([]h2.Field{{Name: ":status", Value: "200"}}, 0); err != nil {
					t.Error(err)
				}
				streams <- s
				p.live(func() error { return f(s, o, echo) })
			}, nil)
		}()
		conn, err := h2.Client(near, h2.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		s, err := conn.Open([]h2.Field{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: "a:80"}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Response(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.client, p.in, p.server = s, bufio.NewReader(s), <-streams
		return p
	},
}

func newParkable(client net.Conn, server Conn) *parkable {
	return &parkable{client: client, in: bufio.NewReader(client), server: server, parks: make(chan struct{}, 1000), over: make(chan error, 1)}
}

// eachTransport runs a test over each.
func eachTransport(t *testing.T, o Options, test func(*testing.T, *parkable)) {
	for name, start := range transports {
		t.Run(name, func(t *testing.T) {
			o := o
			if o.Park == 0 {
				o.Park = 10 * time.Millisecond
			}
			if o.Drain != nil {
				o.Drain = &Drain{}
			}
			p := start(t, o, ServeHTTP)
			_ = p.client.SetDeadline(time.Now().Add(20 * time.Second))
			test(t, p)
		})
	}
}

// A connection that is quiet parks, again and again, and answers what comes.
func TestParkedConnectionsAnswer(t *testing.T) {
	eachTransport(t, Options{}, func(t *testing.T, p *parkable) {
		for range 4 {
			p.asks(t, "/a")
			p.asks(t, "/b")
			p.parked(t)
		}
		if err := p.client.Close(); err != nil {
			t.Fatal(err)
		}
		if err := p.ended(t); err != nil {
			t.Error(err)
		}
	})
}

// Those that have not sent anything park as well, in a version that is not known yet.
func TestParkedBeforeTheFirstRequest(t *testing.T) {
	client, server := loopback.Pair(t)
	p := newParkable(client, TCPConn{TCPConn: server, Parking: NewParking(server)})
	go p.live(func() error { return ServeHTTP(p.server, Options{Park: 10 * time.Millisecond}, echo) })
	p.parked(t)
	c, err := NewHTTP2Client(TCPConn{TCPConn: client}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	stream := c.Open()
	if stream == nil {
		t.Fatal("no stream")
	}
	if err := stream.Send(&message.Request{Method: "GET", Scheme: "http", Authority: "a", Path: "/2"}, true); err != nil {
		t.Fatal(err)
	}
	if body, err := readResponse(stream); err != nil || body != "GET a/2 " {
		t.Fatalf("%q, %v", body, err)
	}
	c.Close()
	client.Close()
	_ = p.ended(t) // how it ends is HTTP/2's
}

func readResponse(s ClientStream) (string, error) {
	if _, err := s.Response(); err != nil {
		return "", err
	}
	return readAll(s)
}

// A head that has begun is waited for in the goroutine, as long as a head may take.
func TestBegunHeadsDoNotPark(t *testing.T) {
	eachTransport(t, Options{HeadTimeout: 200 * time.Millisecond}, func(t *testing.T, p *parkable) {
		p.asks(t, "/")
		p.parked(t)
		send(t, p.client, "GET / HT")
		res, _ := response(t, p.in, "GET")
		if res.StatusCode != 408 {
			t.Errorf("status %d", res.StatusCode)
		}
		if err := p.ended(t); !errors.Is(err, ErrProtocol) {
			t.Error(err)
		}
	})
}

// The idle timeout ends parked connections in order, neither early nor because they
// woke in between.
func TestParkedConnectionsTimeOut(t *testing.T) {
	const idle = 300 * time.Millisecond
	eachTransport(t, Options{IdleTimeout: idle}, func(t *testing.T, p *parkable) {
		for range 2 {
			p.asks(t, "/")
			begin := time.Now()
			p.parked(t)
			if parker := parkerOf(p.server); parker != nil {
				parker.Wake() // for nothing
			}
			p.parked(t)
			if time.Since(begin) > idle {
				t.Skip("this machine is too slow for it")
			}
		}
		begin := time.Now()
		if _, err := p.in.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("it ends with %v", err)
		}
		if err := p.ended(t); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took < idle/3 {
			t.Errorf("it ended after %v", took)
		}
	})
}

// A drain's first step leaves parked connections one more request; its second ends
// them.
func TestParkedConnectionsDrain(t *testing.T) {
	for _, step := range []string{"begin", "close"} {
		for name, start := range transports {
			t.Run(step+" "+name, func(t *testing.T) {
				var drain Drain
				p := start(t, Options{Park: 10 * time.Millisecond, Drain: &drain}, ServeHTTP1)
				_ = p.client.SetDeadline(time.Now().Add(20 * time.Second))
				p.asks(t, "/")
				p.parked(t)
				if step == "begin" {
					drain.Begin()
					send(t, p.client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
					if res, _ := response(t, p.in, "GET"); !res.Close {
						t.Error("the answer does not say that it is the last")
					}
				} else {
					drain.CloseIdle()
				}
				if _, err := p.in.ReadByte(); !errors.Is(err, io.EOF) {
					t.Errorf("it ends with %v", err)
				}
				if err := p.ended(t); err != nil {
					t.Error(err)
				}
				drain.mu.Lock()
				defer drain.mu.Unlock()
				if len(drain.conns) > 0 {
					t.Error("the drain still has it")
				}
			})
		}
	}
}

// Who aborts a parked connection ends it, and who serves it hears of that.
func TestParkedConnectionsAbort(t *testing.T) {
	eachTransport(t, Options{}, func(t *testing.T, p *parkable) {
		p.asks(t, "/")
		p.parked(t)
		p.server.Abort()
		if err := p.ended(t); err == nil {
			t.Error("it ended in order")
		}
		if _, err := p.in.ReadByte(); err == nil {
			t.Error("the client does not see it")
		}
	})
}

// What comes, and the end that is asked for, may meet a connection in any state.
func TestParkingRaces(t *testing.T) {
	for name, start := range transports {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := range 60 {
				var drain Drain
				p := start(t, Options{Park: time.Duration(i%7+1) * 100 * time.Microsecond, Drain: &drain, IdleTimeout: time.Minute}, ServeHTTP1)
				for range 5 {
					p.asks(t, "/"+strings.Repeat("x", i%3))
				}
				switch i % 3 {
				case 0:
					drain.CloseIdle()
				case 1:
					p.server.Abort()
				case 2:
					p.client.Close()
				}
				select {
				case <-p.over:
				case <-time.After(10 * time.Second):
					t.Fatalf("round %d: it does not end", i)
				}
			}
		})
	}
}

// Without a place to park, or when it is not asked for, a connection waits as ever.
func TestNotParkable(t *testing.T) {
	client, server := loopback.Pair(t)
	p := newParkable(client, TCPConn{TCPConn: server})
	go p.live(func() error {
		return ServeHTTP1(p.server, Options{Park: time.Millisecond, IdleTimeout: 100 * time.Millisecond}, echo)
	})
	p.asks(t, "/")
	if err := <-p.over; err != nil {
		t.Error(err)
	}
	if len(p.parks) > 0 {
		t.Error("it parked")
	}
}

// exchanging waits as deep in a stack as an exchange.
//
//go:noinline
func exchanging(at uint8, wait func()) byte {
	var room [exchangeStack]byte
	room[at] = 1
	wait()
	return room[at>>1]
}

// The stacks of those that park go back to the system, though nothing else happens.
func TestParkedConnectionsLeaveNoStacks(t *testing.T) {
	const count = 4000
	for range 2 { // new goroutines have the stacks that those before needed, and these are kept
		var end, deep sync.WaitGroup
		end.Add(1)
		for range count {
			deep.Add(1)
			go func() {
				exchanging(0, func() {
					deep.Done()
					end.Wait()
				})
			}()
		}
		deep.Wait()
		runtime.GC()
		end.Done()
		waitFor(t, "the goroutines go on", func() bool { return runtime.NumGoroutine() < count/8 })
	}
	few := func() bool { return stackBytes() < leftoversFrom+count/8*usualStack }
	if few() {
		t.Skip("the runtime keeps none here")
	}
	transports["socket"](t, Options{Park: time.Millisecond}, ServeHTTP1).parked(t)
	waitFor(t, "the stacks are kept", few)
}
