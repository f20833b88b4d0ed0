package h2

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/loopback"
)

// parkedPair is a relayed stream whose sockets have both been quiet until they
// parked.
type parkedPair struct {
	conn           *Conn // the client's
	client, server *net.TCPConn
	ended          chan error // of each relay
	sockets        []*socket
}

func newParked(t *testing.T) *parkedPair {
	t.Helper()
	p := &parkedPair{ended: make(chan error, 4)}
	streams := make(chan *Stream, 1)
	app, inner := loopback.Pair(t)
	p.server = app
	var counts [4]atomic.Uint64
	p.conn = tunnel(t, Config{}, func(s *Stream) {
		_ = s.Respond([]Field{{Name: ":status", Value: "200"}}, 0)
		streams <- s
		s.Relay(inner, &counts[0], &counts[1], func(err error) { p.ended <- err })
	})
	s, err := p.conn.Open(connect, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Response(t.Context()); err != nil {
		t.Fatal(err)
	}
	outer, near := loopback.Pair(t)
	p.client = outer
	go s.Relay(near, &counts[2], &counts[3], func(err error) { p.ended <- err })
	for _, s := range []*Stream{s, <-streams} {
		for deadline := time.Now().Add(30 * time.Second); ; {
			s.mu.Lock()
			k := s.sink
			parked := k != nil && k.parked
			s.mu.Unlock()
			if parked {
				p.sockets = append(p.sockets, k)
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("a quiet socket does not park")
			}
		}
	}
	for _, c := range []*net.TCPConn{p.client, p.server} {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	return p
}

// over waits for the ends of both relays.
func (p *parkedPair) over(t *testing.T) (errs []error) {
	t.Helper()
	for range 2 {
		select {
		case err := <-p.ended:
			errs = append(errs, err)
		case <-time.After(30 * time.Second):
			t.Fatal("a relay does not end")
		}
	}
	select {
	case err := <-p.ended:
		t.Fatalf("a relay ended twice: %v", err)
	default:
	}
	return errs
}

func say(t *testing.T, from, to *net.TCPConn, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		t.Fatalf("%q, %v; want %q", got, err, text)
	}
}

func TestParkedWakes(t *testing.T) {
	p := newParked(t)
	say(t, p.client, p.server, "question")
	say(t, p.server, p.client, "answer")
	// In order: each side's end is passed on, whoever is parked.
	if err := p.client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := p.server.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("read %d, %v; want the end", n, err)
	}
	say(t, p.server, p.client, "after the end")
	p.server.Close()
	if n, err := p.client.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("read %d, %v; want the end", n, err)
	}
	for _, err := range p.over(t) {
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	}
}

func TestParkedIsReset(t *testing.T) {
	for name, end := range map[string]func(*parkedPair){
		"by its application": func(p *parkedPair) { _ = p.server.SetLinger(0); p.server.Close() },
		"by the proxy":       func(p *parkedPair) { p.sockets[0].s.Reset(CodeConnect) },
		"by the tunnel's server, with NO_ERROR before the end of its bytes": func(p *parkedPair) { p.sockets[1].s.Reset(CodeNo) },
		"with the tunnel": func(p *parkedPair) { p.conn.nc.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			p := newParked(t)
			end(p)
			if _, err := p.client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %v, want a reset", err)
			}
			for _, err := range p.over(t) {
				if err == nil {
					t.Error("an abrupt end was taken for one in order")
				}
			}
		})
	}
}
