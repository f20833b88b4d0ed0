package lobby

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// world is a lobby on loopback whose connections are accepted and held.
type world struct {
	*testing.T
	listener net.Listener
	accepted chan net.Conn
}

func newWorld(t *testing.T, places int) *world {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t, Listen(listener, places), make(chan net.Conn)}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := w.listener.Accept()
			if err != nil {
				return
			}
			w.accepted <- conn
		}
	}()
	return w
}

// from connects from an address, and returns both ends.
func (w *world) from(source string) (client, server net.Conn) {
	w.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: 10 * time.Second}
	client, err := d.DialContext(w.Context(), "tcp", w.listener.Addr().String())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = client.Close() })
	return client, <-w.accepted
}

// open tells whether a connection still is.
func (w *world) open(client, server net.Conn) bool {
	w.Helper()
	if _, err := server.Write([]byte{1}); err != nil {
		return false
	}
	_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := io.ReadFull(client, make([]byte, 1))
	if err != nil && !errors.Is(err, io.EOF) {
		w.Error(err)
	}
	return err == nil
}

// Who takes all places keeps nobody out who has few, and loses the oldest first.
func TestTheOneWithMostMakesRoom(t *testing.T) {
	w := newWorld(t, 8)
	type pair struct{ client, server net.Conn }
	var many []pair
	add := func(source string) pair {
		client, server := w.from(source)
		return pair{client, server}
	}
	quiet := add("127.0.0.2")
	for range 20 {
		many = append(many, add("127.0.0.9"))
	}
	late := add("127.0.0.3")
	for name, p := range map[string]pair{"who was there before": quiet, "who comes after": late} {
		if !w.open(p.client, p.server) {
			t.Errorf("%s has no place", name)
		}
	}
	left := 0
	for i, p := range many {
		open := w.open(p.client, p.server)
		if open {
			left++
		}
		if open != (i >= len(many)-6) {
			t.Errorf("connection %d of %d is open: %v", i, len(many), open)
		}
	}
	if left != 6 {
		t.Errorf("%d of the many have places, want 6 of 8", left)
	}
}

// A place is given back once, however the connection ends.
func TestPlacesAreGivenBack(t *testing.T) {
	w := newWorld(t, 2)
	l, _ := w.listener.(*lobby)
	for range 5 {
		_, server := w.from("127.0.0.2")
		_ = server.Close()
		_ = server.Close()
	}
	var servers []net.Conn
	for range 4 {
		_, server := w.from("127.0.0.2")
		servers = append(servers, server)
	}
	for _, s := range servers {
		_ = s.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken != 0 || len(l.guests) != 0 {
		t.Errorf("%d places and %d addresses are left", l.taken, len(l.guests))
	}
}
