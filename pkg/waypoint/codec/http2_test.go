package codec

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/test/loopback"
)

var _ Conn = (*h2.Stream)(nil) // a tunnel carries what a socket does

func TestRequestsOfHTTP2(t *testing.T) {
	head := func(more ...h2.Field) []h2.Field {
		return append([]h2.Field{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "a"}, {Name: ":path", Value: "/x"}}, more...)
	}
	for _, test := range []struct {
		name    string
		fields  []h2.Field
		hasBody bool
		want    message.Request
		waits   bool
	}{
		{"plain", head(h2.Field{Name: "x", Value: "y"}), false,
			message.Request{Method: "GET", Scheme: "https", Authority: "a", Path: "/x", Fields: message.Fields{{Name: "x", Value: "y"}}}, false},
		{"crumbs of a cookie", head(h2.Field{Name: "cookie", Value: "a=b"}, h2.Field{Name: "x", Value: "y"}, h2.Field{Name: "cookie", Value: "c=d"}), false,
			message.Request{Method: "GET", Scheme: "https", Authority: "a", Path: "/x", Fields: message.Fields{{Name: "cookie", Value: "a=b; c=d"}, {Name: "x", Value: "y"}}}, false},
		{"host for :authority", []h2.Field{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/"}, {Name: "host", Value: "b"}}, false,
			message.Request{Method: "GET", Scheme: "http", Authority: "b", Path: "/"}, false},
		{"host beside :authority", head(h2.Field{Name: "host", Value: "b"}), false,
			message.Request{Method: "GET", Scheme: "https", Authority: "a", Path: "/x"}, false},
		{"a length", head(h2.Field{Name: "content-length", Value: "3"}), true,
			message.Request{Method: "GET", Scheme: "https", Authority: "a", Path: "/x", ContentLength: 3, Fields: message.Fields{{Name: "content-length", Value: "3"}}}, false},
		{"no length", head(), true,
			message.Request{Method: "GET", Scheme: "https", Authority: "a", Path: "/x", ContentLength: -1}, false},
		{"100-continue", head(h2.Field{Name: "expect", Value: "100-continue"}), true,
			message.Request{Method: "GET", Scheme: "https", Authority: "a", Path: "/x", ContentLength: -1}, true},
		{"extended CONNECT", []h2.Field{{Name: ":method", Value: "CONNECT"}, {Name: ":protocol", Value: "websocket"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/"}, {Name: ":authority", Value: "a"}}, true,
			message.Request{Method: "GET", Scheme: "http", Authority: "a", Path: "/", Upgrade: "websocket"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got message.Request
			waits, ok := requestOf(test.fields, test.hasBody, &got)
			test.want.Version = message.HTTP2
			fields, want := got.Fields, test.want.Fields
			got.Fields, test.want.Fields = nil, nil
			if !ok || waits != test.waits || !equalRequests(&got, &test.want) || !slices.Equal(fields, want) {
				t.Errorf("got %+v %v (waits %v, ok %v), want %+v %v", got, fields, waits, ok, test.want, want)
			}
		})
	}
}

func equalRequests(a, b *message.Request) bool {
	return a.Version == b.Version && a.Method == b.Method && a.Scheme == b.Scheme && a.Authority == b.Authority &&
		a.Path == b.Path && a.Upgrade == b.Upgrade && a.ContentLength == b.ContentLength
}

// What HTTP/1 could not carry is refused, so that nothing is smuggled into it.
func TestTargetsOfHTTP2(t *testing.T) {
	open := openClient(t, message.HTTP2, func(e Exchange) { t.Errorf("served: %q %q", e.Request().Authority, e.Request().Path) })
	for _, target := range [][2]string{{"a", "/ HTTP/1.1"}, {"a", "/x#y"}, {"a", "/\xe9"}, {"a b", "/"}, {"u@a", "/"}, {"a/b", "/"}, {"a", "*x"}} {
		s := open()
		if err := s.Send(&message.Request{Method: "GET", Scheme: "http", Authority: target[0], Path: target[1]}, true); err != nil {
			t.Fatal(err)
		}
		_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
		if r, err := s.Response(); err == nil && r.Status != 400 || err != nil && !errors.Is(err, ErrReset) {
			t.Errorf("%q: %+v, %v", target, r, err)
		}
		s.Close()
	}
}

func TestErrorsOfHTTP2(t *testing.T) {
	t.Run("a reset", func(t *testing.T) {
		open := openClient(t, message.HTTP2, func(e Exchange) { e.Reset() })
		s := open()
		defer s.Close()
		if err := s.Send(request("GET", "/", 0), true); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Response(); !errors.Is(err, ErrReset) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a connection that is over", func(t *testing.T) {
		near, far := loopback.Pair(t)
		c, err := NewHTTP2Client(TCPConn{TCPConn: near}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		far.Close()
		<-c.Done()
		if c.Usable() {
			t.Error("it is usable")
		}
		if err := c.Open().Send(request("GET", "/", 0), true); !errors.Is(err, ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a deadline", func(t *testing.T) {
		leave := make(chan struct{})
		open := openClient(t, message.HTTP2, func(Exchange) { <-leave })
		defer close(leave)
		s := open()
		defer s.Close()
		_ = s.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if err := s.Send(request("GET", "/", 0), true); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Response(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestDrainOfHTTP2(t *testing.T) {
	var drain Drain
	near, far := loopback.Pair(t)
	done := make(chan error, 1)
	entered, leave := make(chan struct{}), make(chan struct{})
	go func() {
		done <- ServeHTTP2(TCPConn{TCPConn: far}, Options{Drain: &drain}, func(e Exchange) {
			close(entered)
			<-leave
			_ = e.Respond(&message.Response{Status: 200}, true)
		})
	}()
	c, err := NewHTTP2Client(TCPConn{TCPConn: near}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Open()
	if err := s.Send(request("GET", "/", 0), true); err != nil {
		t.Fatal(err)
	}
	<-entered
	drain.Begin()
	waitFor(t, "new exchanges are taken", func() bool { return !c.Usable() })
	close(leave)
	if r, err := s.Response(); err != nil || r.Status != 200 {
		t.Errorf("%+v, %v", r, err)
	}
	s.Close()
	<-done
}

// HTTP/1 within a tunnel's stream is as over a socket, and so is its end.
func TestHTTP1InATunnel(t *testing.T) {
	near, far := loopback.Pair(t)
	gone := make(chan bool, 2)
	go func() {
		_ = h2.Server(far, h2.Config{}, func(s *h2.Stream) {
			if s.Respond([]h2.Field{{Name: ":status", Value: "200"}}, 0) != nil {
				return
			}
			_ = ServeHTTP1(s, Options{}, func(e Exchange) {
				if e.Request().Path == "/gone" {
					gone <- e.Gone()
					waitFor(t, "the client is still there", e.Gone)
					gone <- true
					return
				}
				echo(e)
			})
		}, nil)
	}()
	conn, err := h2.Client(near, h2.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := conn.Open([]h2.Field{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: "a:80"}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Response(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := NewHTTP1Client(stream, Options{})
	body := bytes.Repeat([]byte("x"), 100_000)
	for range 3 {
		s := c.Open()
		if err := s.Send(request("POST", "/", int64(len(body))), false); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(body); err != nil {
			t.Fatal(err)
		}
		if err := s.Finish(nil); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Response(); err != nil || r.Status != 200 {
			t.Fatalf("%+v, %v", r, err)
		}
		if got, err := readAll(s); err != nil || got != "POST a.example:80/ "+string(body) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		s.Close()
		if !c.Usable() {
			t.Fatal("not usable")
		}
	}
	s := c.Open()
	if err := s.Send(request("GET", "/gone", 0), true); err != nil {
		t.Fatal(err)
	}
	if <-gone {
		t.Error("it is gone before it left")
	}
	s.Close()
	<-gone
}
