package codec

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/test/loopback"
)

func TestSniff(t *testing.T) {
	for _, test := range []struct {
		name  string
		parts []string
		want  Protocol
		end   bool // the client sends no more
	}{
		{"HTTP/1.1", []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n"}, HTTP1, false},
		{"HTTP/1.0 in pieces", []string{"PO", "ST /", "abc HTTP/1.0", "\r\n"}, HTTP1, false},
		{"HTTP/2", []string{h2.Preface}, HTTP2, false},
		{"HTTP/2 in pieces", []string{"PRI * HT", "TP/2.0\r\n\r\nSM\r\n\r\n"}, HTTP2, false},
		{"a server that speaks first", nil, TCP, false},
		{"another protocol", []string{"SSH-2.0-x\r\n"}, TCP, false},
		{"a command of memcached", []string{"get /key\r\n"}, TCP, false},
		{"a command of memcached, with another key", []string{"set key 0 0 5\r\n"}, TCP, false},
		{"HTTP/0.9 with a name", []string{"GET admin\r\n"}, HTTP1, false},
		{"HTTP/0.9 with another method", []string{"DELETE /a\r\n"}, HTTP1, false},
		{"spaces of Python's", []string{"\xa0\x0cGET\x0b/a", "\x1fHTTP/1.1\x85\r\n"}, HTTP1, false},
		{"a control character in a target", []string{"GET /a?\x01", " HTTP/1.1\r\n"}, HTTP1, false},
		{"a control character in a version", []string{"GET /a HTTP/1.1\x00\r\n"}, HTTP1, false},
		{"a version in lower case", []string{"GET a http/1.1\r\n"}, HTTP1, false},
		{"a version that is none", []string{"get /a x\r\n"}, HTTP1, false},
		{"a version that is none, of a whole address", []string{"GET a:/b x\r\n"}, HTTP1, false},
		{"a line that the end ends", []string{"GET /a HTTP/1.1"}, HTTP1, true},
		{"half a preface, and the end", []string{"PRI * HTTP/2.0"}, HTTP1, true},
		{"an empty line first", []string{"\r\n\nGET / HTTP/1.1\r\n"}, HTTP1, false},
		{"spaces first, and tabs", []string{" \tGET\t/\tHTTP/1.1\t\r\n"}, HTTP1, false},
		{"a method that nobody knows, in pieces", []string{"FO", "O / HTTP/1.1\r\n"}, HTTP1, false},
		{"a version that nobody knows", []string{"GET / HTTP/1.9\r\n"}, HTTP1, false},
		{"HTTP/0.9", []string{"GET /a\r\n"}, HTTP1, false},
		{"a line without end", []string{"GET /", strings.Repeat("a", maxSniffed)}, HTTP1, false},
		{"empty lines without end", []string{strings.Repeat("\r\n", maxSniffed)}, HTTP1, false},
		{"a line of a method, then zeros", []string{"GET \x00"}, TCP, false},
		{"RTSP", []string{"DESCRIBE rtsp://a RTSP/1.0\r\n"}, TCP, false},
		{"JSON", []string{`{"a": 1}`}, TCP, false},
		{"zeros", []string{"\x00\x00"}, TCP, false},
		{"the start of a method, and no more", []string{"GE"}, TCP, false},
		{"the start of a method, and the end", []string{"GE"}, TCP, true},
		{"TLS that is none", []string{"\x16\x03\x01\x00\x05hello"}, TCP, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, server := loopback.Pair(t)
			var all string
			go func() {
				for _, part := range test.parts {
					_, _ = io.WriteString(client, part)
				}
				if test.end {
					_ = client.CloseWrite()
				}
			}()
			for _, part := range test.parts {
				all += part
			}
			s, conn, err := Sniff(TCPConn{TCPConn: server}, 100*time.Millisecond)
			if err != nil || s.Protocol != test.want {
				t.Fatalf("%+v, %v; want %v", s, err, test.want)
			}
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			got := make([]byte, len(all))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != all {
				t.Errorf("left to read: %q, %v", got, err)
			}
			if test.end {
				if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Errorf("the end: %v", err)
				}
			}
		})
	}
}

func TestSniffTLS(t *testing.T) {
	client, server := loopback.Pair(t)
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: "b.example", NextProtos: []string{"h2", "x"}, InsecureSkipVerify: true}).Handshake()
	}()
	s, conn, err := Sniff(TCPConn{TCPConn: server}, 10*time.Second)
	if err != nil || s.Protocol != TLS || s.ServerName != "b.example" || !slices.Equal(s.ALPN, []string{"h2", "x"}) {
		t.Fatalf("%+v, %v", s, err)
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(conn, first); err != nil || first[0] != 0x16 {
		t.Errorf("left to read: %x, %v", first, err)
	}
}

// What was sniffed is served.
func TestSniffedConnections(t *testing.T) {
	client, server := loopback.Pair(t)
	send(t, client, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	_, conn, err := Sniff(TCPConn{TCPConn: server}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- ServeHTTP1(conn, Options{}, echo) }()
	got, err := io.ReadAll(client)
	if err != nil || string(got) != "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nGET a/ " {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// HTTP/2 that was sniffed within a tunnel is served.
func TestSniffedTunnels(t *testing.T) {
	near, far := loopback.Pair(t)
	go func() {
		_ = h2.Server(far, h2.Config{}, func(s *h2.Stream) {
			if s.Respond([]h2.Field{{Name: ":status", Value: "200"}}, 0) != nil {
				return
			}
			sniffed, conn, err := Sniff(s, 10*time.Second)
			if err != nil || sniffed.Protocol != HTTP2 {
				t.Errorf("%+v, %v", sniffed, err)
				return
			}
			_ = ServeHTTP2(conn, Options{}, origin(t))
		}, nil)
	}()
	tunnel, err := h2.Client(near, h2.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tunnel.Close)
	stream, err := tunnel.Open([]h2.Field{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: "a:80"}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Response(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := NewHTTP2Client(stream, Options{})
	if err != nil {
		t.Fatal(err)
	}
	bodies(t, c.Open)
	trailers(t, c.Open)
}

// Either version is served where both may come, and what is neither is refused.
func TestEitherVersion(t *testing.T) {
	start := func(t *testing.T) *net.TCPConn {
		near, far := loopback.Pair(t)
		go func() { _ = ServeHTTP(TCPConn{TCPConn: far}, Options{HeadTimeout: 5 * time.Second}, origin(t)) }()
		_ = near.SetDeadline(time.Now().Add(20 * time.Second))
		return near
	}
	t.Run("HTTP/1", func(t *testing.T) {
		near := start(t)
		for range 2 {
			send(t, near, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
			if _, got := response(t, bufio.NewReader(near), "POST"); got != "abc" {
				t.Errorf("got %q", got)
			}
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		c, err := NewHTTP2Client(TCPConn{TCPConn: start(t)}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		bodies(t, c.Open)
	})
	t.Run("neither", func(t *testing.T) {
		near := start(t)
		send(t, near, "PRI * HTTP/3.0\r\n\r\n")
		if res, _ := response(t, bufio.NewReader(near), "GET"); res.StatusCode != 400 {
			t.Errorf("status %d", res.StatusCode)
		}
	})
	t.Run("HTTP/2 after HTTP/1", func(t *testing.T) {
		near := start(t)
		send(t, near, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"+h2.Preface)
		r := bufio.NewReader(near)
		response(t, r, "GET")
		if res, _ := response(t, r, "GET"); res.StatusCode != 400 {
			t.Errorf("status %d", res.StatusCode)
		}
	})
}
