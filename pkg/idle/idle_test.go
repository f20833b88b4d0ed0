package idle

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/loopback"
)

type waiter chan struct{}

func (w waiter) Ready() { close(w) }

func raw(t *testing.T, c *net.TCPConn) syscall.RawConn {
	t.Helper()
	r, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func woken(t *testing.T, w waiter) {
	t.Helper()
	select {
	case <-w:
	case <-time.After(10 * time.Second):
		t.Fatal("not woken")
	}
}

// A parked socket wakes for bytes, for bytes that were there before, for the end
// and for a reset, each time anew.
func TestWait(t *testing.T) {
	near, far := loopback.Pair(t)
	r := raw(t, near)
	buf := make([]byte, 10)
	for round := range 3 {
		w := waiter(make(chan struct{}))
		if round == 1 { // there before
			if _, err := far.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Wait(r, w); err != nil {
			t.Fatal(err)
		}
		if round != 1 {
			if _, err := far.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		woken(t, w)
		if n, err := near.Read(buf); n != 1 || err != nil {
			t.Fatalf("read: %d, %v", n, err)
		}
	}
	for _, end := range []func(*net.TCPConn){
		func(c *net.TCPConn) { _ = c.CloseWrite() },
		func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() },
	} {
		near, far := loopback.Pair(t)
		w := waiter(make(chan struct{}))
		if _, err := Wait(raw(t, near), w); err != nil {
			t.Fatal(err)
		}
		end(far)
		woken(t, w)
	}
}

// What was cancelled is not called, and nothing of it is kept.
func TestCancel(t *testing.T) {
	near, far := loopback.Pair(t)
	w := waiter(make(chan struct{}))
	ticket, err := Wait(raw(t, near), w)
	if err != nil {
		t.Fatal(err)
	}
	Cancel(ticket)
	again := waiter(make(chan struct{}))
	if _, err := Wait(raw(t, near), again); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	woken(t, again)
	select {
	case <-w:
		t.Error("a cancelled waiter was called")
	default:
	}
	s, _ := process()
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.waiting); n != 0 {
		t.Errorf("%d waiters are kept", n)
	}
}

// A socket that cannot be waited for is an error, and nothing is kept of it.
func TestWaitOnClosed(t *testing.T) {
	near, _ := loopback.Pair(t)
	r := raw(t, near)
	near.Close()
	if _, err := Wait(r, waiter(make(chan struct{}))); err == nil {
		t.Error("a closed socket was taken")
	}
}
