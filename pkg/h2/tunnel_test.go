package h2

import (
	"errors"
	"io"
	"testing"
	"time"
)

// soon waits for a condition.
func soon(ok func() bool) bool {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if ok() {
			return true
		}
	}
	return false
}

// A stream is a connection, in which another HTTP/2 connection runs.
func TestConnectionInAStream(t *testing.T) {
	outer := tunnel(t, Config{}, func(s *Stream) {
		_ = s.Respond(fields(":status", "200"), 0)
		_ = Server(s, Config{}, consume, nil)
	})
	s := mustOpen(t, outer, connect, 0)
	mustHead(t, s, "200")
	_ = s.SetDeadline(time.Time{})
	inner, err := Client(s, Config{})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		r := mustOpen(t, inner, get(), 0)
		if err := r.Send(data(300_000), End); err != nil {
			t.Fatal(err)
		}
		mustHead(t, r, "200")
	}
	inner.Close()
	if !soon(func() bool { open, _ := outer.Load(); return open == 0 }) {
		t.Error("the tunnel stays after what ran in it")
	}
}

// WebSocket's way over HTTP/2 (RFC 8441): the client sees that it may, and has a
// connection.
func TestExtendedConnect(t *testing.T) {
	c := tunnel(t, Config{ExtendedConnect: true}, func(s *Stream) {
		_ = s.Respond(fields(":status", "200"), 0)
		_, _ = io.Copy(s, s)
		_ = s.CloseWrite()
	})
	if !soon(c.ExtendedConnect) {
		t.Fatal("the setting does not come")
	}
	s := mustOpen(t, c, fields(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/chat"), 0)
	mustHead(t, s, "200")
	_, _ = s.Write([]byte("hello"))
	b := make([]byte, 5)
	if _, err := io.ReadFull(s, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	_ = s.Close()
	if !soon(func() bool { open, _ := c.Load(); return open == 0 }) {
		t.Error("a closed stream stays")
	}
}

// Closing a tunnel lets the other end read all, then its end; aborting does not.
func TestCloseAndAbort(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*Stream)
		want error
	}{
		"close": {func(s *Stream) { _ = s.Close() }, io.EOF},
		"abort": {func(s *Stream) { s.Abort() }, &StreamError{Code: CodeConnect, Remote: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan error, 1)
			conn := tunnel(t, Config{}, func(s *Stream) {
				_ = s.Respond(fields(":status", "200"), 0)
				n, err := io.Copy(io.Discard, s)
				if err == nil {
					err = io.EOF
					if n != 100_000 {
						t.Errorf("%d bytes", n)
					}
				}
				got <- err
			})
			s := mustOpen(t, conn, connect, 0)
			mustHead(t, s, "200")
			_, _ = s.Write(data(100_000))
			c.end(s)
			err := <-got
			var se, want *StreamError
			if errors.As(c.want, &want) {
				if !errors.As(err, &se) || *se != *want {
					t.Errorf("ended with %v, want %v", err, c.want)
				}
			} else if !errors.Is(err, c.want) {
				t.Errorf("ended with %v, want %v", err, c.want)
			}
		})
	}
}
