package relay

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/loopback"
)

type relayed struct {
	client, server *net.TCPConn
	forth, back    atomic.Uint64
	relay          *Relay
	end            chan error
}

func start(t *testing.T) *relayed {
	client, a := loopback.Pair(t)
	b, server := loopback.Pair(t)
	r := &relayed{client: client, server: server, end: make(chan error, 1)}
	for _, c := range []*net.TCPConn{client, server} {
		_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	}
	r.relay = New(a, b, &r.forth, &r.back)
	go func() { r.end <- r.relay.Run() }()
	return r
}

func (r *relayed) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.end:
		return err
	case <-time.After(90 * time.Second):
		t.Fatal("the relay did not end")
		return nil
	}
}

// Small pieces, a bulk that is spliced, and both again: not a byte is lost, each
// way, after the other way has ended.
func TestBytesAndHalfClose(t *testing.T) {
	for _, size := range []int{0, 1, chunk, chunk*busyAfter + 1, 3*spliceStep + 17, 10 << 20} {
		r := start(t)
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rand.Uint32()) //nolint:gosec // data of a test
		}
		send := func(c *net.TCPConn) {
			_, _ = c.Write(data)
			_ = c.CloseWrite()
		}
		go send(r.client)
		got, err := io.ReadAll(r.server)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("size %d: forth: %d bytes, %v", size, len(got), err)
		}
		go send(r.server)
		got, err = io.ReadAll(r.client)
		if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
			t.Fatalf("size %d: back: %d bytes, %v", size, len(got), err)
		}
		if err := r.wait(t); err != nil {
			t.Errorf("size %d: %v", size, err)
		}
		if f, b := r.forth.Load(), r.back.Load(); f != uint64(size) || b != uint64(size) {
			t.Errorf("size %d: counted %d and %d", size, f, b)
		}
	}
}

func TestResetStaysReset(t *testing.T) {
	for _, half := range []bool{false, true} {
		r := start(t)
		_, _ = r.client.Write([]byte("hello"))
		if _, err := io.ReadFull(r.server, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if half { // the other direction has ended in order before
			_ = r.server.CloseWrite()
			if _, err := r.client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		Reset(r.client)
		_, err := io.Copy(io.Discard, r.server)
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("half-closed %v: the server saw %v", half, err)
		}
		if err := r.wait(t); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("half-closed %v: the relay ended with %v", half, err)
		}
	}
}

// Closing a side from outside ends the relay, with a reset on the other.
func TestClosedFromOutside(t *testing.T) {
	client, a := loopback.Pair(t)
	b, server := loopback.Pair(t)
	var forth, back atomic.Uint64
	end := make(chan error, 1)
	go func() { end <- New(a, b, &forth, &back).Run() }()
	Reset(a, b)
	for _, c := range []*net.TCPConn{client, server} {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("saw %v", err)
		}
	}
	if err := <-end; err == nil {
		t.Error("no error")
	}
}

// A reader that stops holds the writer up, and no more is kept than sockets keep.
func TestBackpressure(t *testing.T) {
	r := start(t)
	_ = r.client.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	n, err := r.client.Write(make([]byte, 256<<20))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("wrote %d bytes to a reader that does not read: %v", n, err)
	}
	Reset(r.server)
	_ = r.wait(t)
}
