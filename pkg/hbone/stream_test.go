package hbone

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
)

// A tunnel is a connection at both ends, in which HTTP/2 runs.
func TestTunnelIsAConnection(t *testing.T) {
	r := newRig(t)
	r.handle = func(q *Request) {
		stream, err := q.AcceptStream("service.name=bob")
		if err != nil {
			t.Error(err)
			return
		}
		_ = h2.Server(stream, h2.Config{}, func(s *h2.Stream) {
			_ = s.Respond([]h2.Field{{Name: ":status", Value: "200"}}, h2.More)
			_, _ = io.Copy(s, s)
			_ = s.CloseWrite()
		}, nil)
	}
	s, err := r.pool.Open(t.Context(), r.key, Headers{Authority: Authority{Addr: netip.MustParseAddr("10.0.0.1"), Port: 80}})
	if err != nil {
		t.Fatal(err)
	}
	var conn net.Conn = s.Conn()
	inner, err := h2.Client(conn, h2.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	for range 10 {
		q, err := inner.Open([]h2.Field{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/"}}, h2.More)
		if err != nil {
			t.Fatal(err)
		}
		_ = q.SetReadDeadline(time.Now().Add(20 * time.Second))
		if err := q.Send([]byte("question"), h2.End); err != nil {
			t.Fatal(err)
		}
		if _, err := q.Head(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(q); string(b) != "question" || err != nil {
			t.Fatalf("%q, %v", b, err)
		}
	}
}

// What runs in a tunnel sees its abrupt end as one.
func TestTunnelConnectionIsAborted(t *testing.T) {
	r := newRig(t)
	r.handle = func(q *Request) {
		if stream, err := q.AcceptStream(""); err == nil {
			_, _ = stream.Read(make([]byte, 1))
			stream.Abort()
		}
	}
	s, err := r.pool.Open(t.Context(), r.key, Headers{Authority: Authority{Addr: netip.MustParseAddr("10.0.0.1"), Port: 80}})
	if err != nil {
		t.Fatal(err)
	}
	conn := s.Conn()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, _ = conn.Write([]byte("x"))
	var se *h2.StreamError
	if _, err := conn.Read(make([]byte, 1)); !errors.As(err, &se) || !se.Remote {
		t.Errorf("read %v, want a reset", err)
	}
}
