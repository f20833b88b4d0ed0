package codec

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/test/loopback"
)

// dial is a client's connection to a server that is a script.
func dial(t testing.TB, o Options) (*HTTP1Client, *net.TCPConn) {
	t.Helper()
	client, server := loopback.Pair(t)
	_ = server.SetDeadline(time.Now().Add(20 * time.Second))
	return NewHTTP1Client(TCPConn{TCPConn: client}, o), server
}

func get(path string) *message.Request {
	return &message.Request{Method: "GET", Authority: "a", Path: path}
}

// readAll is the body.
func readAll(r Reader) (string, error) {
	var b bytes.Buffer
	for {
		data, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
		b.Write(data)
	}
}

// expect reads what a client sent.
func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("the server got %q (%v), want %q", got[:n], err, want)
	}
}

func TestClient(t *testing.T) {
	c, server := dial(t, Options{})
	for i := range 3 {
		s := c.Open()
		if err := s.Send(get("/x"), true); err != nil {
			t.Fatal(err)
		}
		expect(t, server, "GET /x HTTP/1.1\r\nhost: a\r\n\r\n")
		send(t, server, "HTTP/1.1 103 Early Hints\r\nlink: b\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n")
		r, err := s.Response()
		if err != nil || r.Status != 103 || r.Fields.Get("link") != "b" {
			t.Fatalf("%+v, %v", r, err)
		}
		if r, err = s.Response(); err != nil || r.Status != 200 || !s.HasBody() {
			t.Fatalf("%+v, %v", r, err)
		}
		if body, err := readAll(s); err != nil || body != "ok" || s.Trailers().Get("x") != "y" {
			t.Fatalf("%q, %v, %v", body, err, s.Trailers())
		}
		s.Close()
		if !c.Usable() || c.Served() != i+1 {
			t.Fatalf("after %d exchanges: not usable", i+1)
		}
	}
}

func TestClientSends(t *testing.T) {
	for _, test := range []struct {
		name    string
		request message.Request
		body    string
		want    string
	}{
		{"length", message.Request{Method: "POST", Authority: "a", Path: "/", ContentLength: 2}, "ab", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab"},
		{"chunked", message.Request{Method: "POST", Authority: "a", Path: "/", ContentLength: -1}, "ab", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"},
		{"none", message.Request{Method: "POST", Authority: "a", Path: "/"}, "", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"},
		{"upgrade", message.Request{Method: "GET", Authority: "a", Path: "/", Upgrade: "websocket"}, "", "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"},
		{"CONNECT", message.Request{Method: "CONNECT", Authority: "a:80"}, "", "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, server := dial(t, Options{})
			s := c.Open()
			if err := s.Send(&test.request, test.body == ""); err != nil {
				t.Fatal(err)
			}
			if test.body != "" {
				if _, err := s.Write([]byte(test.body)); err != nil {
					t.Fatal(err)
				}
				if err := s.Finish(nil); err != nil {
					t.Fatal(err)
				}
			}
			expect(t, server, test.want)
		})
	}
}

// A connection is used again only when the exchange was complete and both sides
// want it.
func TestClientsUseConnectionsOnce(t *testing.T) {
	for _, test := range []struct{ name, answer string }{
		{"close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"more than was asked for", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n"},
		{"a body that was not read", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"},
		{"a protocol error", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, server := dial(t, Options{})
			s := c.Open()
			if err := s.Send(get("/"), true); err != nil {
				t.Fatal(err)
			}
			send(t, server, test.answer)
			_, _ = s.Response()
			s.Close()
			if c.Usable() {
				t.Error("it is usable")
			}
		})
	}
}

func TestStaleConnections(t *testing.T) {
	exchange := func(c *HTTP1Client, server *net.TCPConn) {
		s := c.Open()
		_ = s.Send(get("/"), true)
		expect(t, server, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
		send(t, server, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
		if _, err := s.Response(); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); {
			if time.Now().After(end) {
				t.Fatal(what)
			}
			<-time.After(time.Millisecond)
		}
	}
	t.Run("closed while idle is seen", func(t *testing.T) {
		c, server := dial(t, Options{})
		exchange(c, server)
		server.Close()
		until("it stays usable", func() bool { return !c.Usable() })
	})
	t.Run("bytes that nobody asked for are seen", func(t *testing.T) {
		c, server := dial(t, Options{})
		exchange(c, server)
		send(t, server, "HTTP/1.1 200 OK\r\n")
		until("it stays usable", func() bool { return !c.Usable() })
	})
	t.Run("closed without an answer is refused", func(t *testing.T) {
		c, server := dial(t, Options{})
		exchange(c, server)
		s := c.Open()
		_ = s.Send(get("/"), true)
		server.Close()
		if _, err := s.Response(); !errors.Is(err, ErrRefused) || errors.Is(err, ErrReset) {
			t.Errorf("got %v", err)
		}
		s.Close()
		if c.Usable() {
			t.Error("it stays usable")
		}
	})
	t.Run("a new one is not", func(t *testing.T) {
		c, server := dial(t, Options{})
		s := c.Open()
		_ = s.Send(get("/"), true)
		server.Close()
		if _, err := s.Response(); !errors.Is(err, ErrReset) || errors.Is(err, ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("nor one that began to answer", func(t *testing.T) {
		c, server := dial(t, Options{})
		exchange(c, server)
		s := c.Open()
		_ = s.Send(get("/"), true)
		expect(t, server, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
		send(t, server, "HTTP/1.1 2")
		server.Close()
		if _, err := s.Response(); !errors.Is(err, ErrReset) || errors.Is(err, ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
}
