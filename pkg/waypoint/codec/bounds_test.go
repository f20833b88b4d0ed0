package codec

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/test/loopback"
)

// inUse is what the process holds, after a collection.
func inUse() uint64 {
	for range 4 { // the pools are emptied by the second, stacks are halved by each
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// An idle connection costs a few KiB: no buffer, whatever it carried before.
func TestIdleConnectionsAreSmall(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has its own memory")
	}
	const count = 500
	clients := make([]*net.TCPConn, count)
	before := inUse()
	for i := range clients {
		clients[i], _ = serve(t, Options{}, echo)
		send(t, clients[i], asked+"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 100_000))
		r := bufio.NewReader(clients[i])
		response(t, r, "GET")
		response(t, r, "POST")
	}
	each := float64(inUse()-before) / count
	t.Logf("%.0f bytes for each idle connection and its client's end", each)
	if each > 12<<10 {
		t.Errorf("%.0f bytes for each idle connection, want at most 12 KiB", each)
	}
	runtime.KeepAlive(clients)
}

// A client that sends its head slowly, or never ends it, is answered and closed,
// while others are served.
func TestSlowClientsEnd(t *testing.T) {
	o := Options{HeadTimeout: 100 * time.Millisecond}
	var slow []*net.TCPConn
	for range 50 {
		c, _ := serve(t, o, echo)
		send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n")
		slow = append(slow, c)
	}
	c, _ := serve(t, o, echo)
	r := bufio.NewReader(c)
	for range 100 {
		send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, got := response(t, r, "GET"); got != "GET a/ " {
			t.Fatalf("another client got %q", got)
		}
	}
	for _, c := range slow {
		if res, _ := response(t, bufio.NewReader(c), "GET"); res.StatusCode != 408 {
			t.Errorf("status %d", res.StatusCode)
		}
	}
}

// What a client sends against "connection: close" is never served.
func TestNothingIsServedAfterClose(t *testing.T) {
	served := 0
	c, done := serve(t, Options{}, func(e Exchange) {
		served++
		echo(e)
	})
	send(t, c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
	r := bufio.NewReader(c)
	response(t, r, "GET")
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("after close: %q, %v", rest, err)
	}
	c.Close()
	<-done
	if served != 1 {
		t.Errorf("%d requests were served", served)
	}
}

// A connection carries as many requests as it may.
func TestMaxRequests(t *testing.T) {
	c, done := serve(t, Options{MaxRequests: 2}, echo)
	send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
	r := bufio.NewReader(c)
	if res, _ := response(t, r, "GET"); res.Close {
		t.Error("it closes after the first")
	}
	if res, _ := response(t, r, "GET"); !res.Close {
		t.Error("it does not say that it closes after the second")
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the second: %v", err)
	}
	<-done
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal(what)
		}
		<-time.After(time.Millisecond)
	}
}

// A client that goes while its request is worked on is noticed without reading.
func TestGone(t *testing.T) {
	for _, test := range []struct {
		name  string
		leave func(*net.TCPConn)
	}{
		{"closed", func(c *net.TCPConn) { c.Close() }},
		{"reset", func(c *net.TCPConn) { TCPConn{TCPConn: c}.Abort() }},
		{"half-closed", func(c *net.TCPConn) { _ = c.CloseWrite() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			entered, left := make(chan bool), make(chan struct{})
			c, done := serve(t, Options{}, func(e Exchange) {
				entered <- e.Gone()
				<-left
				waitFor(t, "the client is still there", e.Gone)
				e.Reset()
			})
			send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if <-entered {
				t.Error("it is gone before it left")
			}
			test.leave(c)
			close(left)
			<-done
		})
	}
}

// An exchange that its handler did not complete is a reset, not an end that could
// be taken for the whole.
func TestAbandonedExchanges(t *testing.T) {
	for _, test := range []struct {
		name string
		h    Handler
	}{
		{"no response", func(Exchange) {}},
		{"half a body", func(e Exchange) {
			_ = e.Respond(&message.Response{Status: 200, ContentLength: 10}, false)
			_, _ = e.Write([]byte("12345"))
			_ = e.Flush()
		}},
		{"half a chunked body", func(e Exchange) {
			_ = e.Respond(&message.Response{Status: 200, ContentLength: -1}, false)
			_, _ = e.Write([]byte("12345"))
			_ = e.Flush()
		}},
		{"a body without its end", func(e Exchange) {
			_ = e.Respond(&message.Response{Status: 200, ContentLength: 10}, false)
			_, _ = e.Write([]byte("12345"))
			if err := e.Finish(nil); err == nil {
				t.Error("a body that is too short is finished")
			}
		}},
		{"reset", func(e Exchange) { e.Reset() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, done := serve(t, Options{}, test.h)
			send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			<-done
			if _, err := io.ReadAll(c); err == nil {
				t.Error("the client sees an orderly end")
			}
		})
	}
}

// A deadline ends a wait, which may be taken up again.
func TestDeadlines(t *testing.T) {
	c, server := dial(t, Options{})
	s := c.Open()
	defer s.Close()
	if err := s.Send(get("/"), true); err != nil {
		t.Fatal(err)
	}
	for _, far := range []bool{false, true} {
		deadline := time.Now().Add(20 * time.Millisecond)
		if far { // a far one, then a near one
			_ = s.SetReadDeadline(time.Now().Add(time.Hour))
		}
		_ = s.SetReadDeadline(deadline)
		if _, err := s.Response(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().Before(deadline) {
			t.Fatalf("got %v", err)
		}
	}
	// A near one, then a far one: the near one does not fire.
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	go func() {
		<-time.After(60 * time.Millisecond)
		_, _ = io.WriteString(server, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
	}()
	if r, err := s.Response(); err != nil || r.Status != 200 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// A peer that does not read ends a write at its deadline.
func TestWriteDeadline(t *testing.T) {
	client, server := loopback.Pair(t)
	defer client.Close()
	var out output
	out.init(TCPConn{TCPConn: server})
	out.begin(3, 0) // until the end
	_ = out.want(time.Now().Add(50 * time.Millisecond))
	var err error
	for range 1000 {
		if _, err = out.write(make([]byte, 1<<20)); err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
