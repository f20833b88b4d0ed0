package relay

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// dup is c as another process would have it.
func dup(t *testing.T, c *net.TCPConn) *net.TCPConn {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	other, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return other.(*net.TCPConn)
}

// next has another relay go on, as another process would, and returns it.
func (r *relayed) next(t *testing.T) *relayed {
	t.Helper()
	n := &relayed{client: r.client, server: r.server, end: make(chan error, 1)}
	n.forth.Store(r.forth.Load())
	n.back.Store(r.back.Load())
	n.relay = New(dup(t, r.relay.a), dup(t, r.relay.b), &n.forth, &n.back)
	r.relay.Leave()
	if err := r.wait(t); !errors.Is(err, ErrLeft) {
		t.Fatalf("a relay that was left ended with %v", err)
	}
	go func() { n.end <- n.relay.Run() }()
	return n
}

func pattern(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(rand.Uint32()) //nolint:gosec // data of a test
	}
	return data
}

// A relay is paused at random moments while both ways are busy, now in small pieces,
// now spliced, and goes on here or with another. Every byte arrives once, in its
// place, and is counted once.
func TestPausedWithBytesInFlight(t *testing.T) {
	r := start(t)
	const size = 16 << 20
	up, down := pattern(size), pattern(size)
	send := func(c *net.TCPConn, data []byte) {
		for len(data) > 0 {
			n := min(len(data), 1+rand.IntN(400<<10)) //nolint:gosec // sizes of a test
			if rand.IntN(3) > 0 {                     //nolint:gosec // as above
				n = min(n, 1500)
			}
			if _, err := c.Write(data[:n]); err != nil {
				t.Error(err)
				return
			}
			data = data[n:]
		}
		_ = c.CloseWrite()
	}
	got := make(chan [32]byte, 2)
	receive := func(c *net.TCPConn) {
		b, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		got <- sha256.Sum256(b)
	}
	go send(r.client, up)
	go send(r.server, down)
	go receive(r.server)
	go receive(r.client)
	rests, changes := 0, 0
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for len(got) < 2 {
		<-tick.C
		if !r.relay.Pause(10 * time.Second) {
			break // it is over
		}
		rests++
		if rests%2 > 0 {
			r.relay.Resume()
			continue
		}
		changes++
		r = r.next(t)
	}
	sums := map[[32]byte]bool{<-got: true, <-got: true}
	if !sums[sha256.Sum256(up)] || !sums[sha256.Sum256(down)] {
		t.Error("other bytes arrived than were sent")
	}
	if err := r.wait(t); err != nil {
		t.Error(err)
	}
	if f, b := r.forth.Load(), r.back.Load(); f != size || b != size {
		t.Errorf("counted %d and %d of %d", f, b, size)
	}
	if changes < 1 {
		t.Errorf("%d rests, %d changes: that is no test", rests, changes)
	}
	t.Logf("%d rests, %d changes", rests, changes)
}

// One way that has ended stays so, and the other goes on.
func TestPausedHalfClosed(t *testing.T) {
	for _, serverFirst := range []bool{false, true} {
		r := start(t)
		first, second := r.client, r.server
		if serverFirst {
			first, second = second, first
		}
		_, _ = io.WriteString(first, "done")
		_ = first.CloseWrite()
		if b, err := io.ReadAll(second); err != nil || string(b) != "done" {
			t.Fatalf("%q %v", b, err)
		}
		for range 2 {
			if !r.relay.Pause(10 * time.Second) {
				t.Fatal("it does not come to rest")
			}
			r = r.next(t)
			if _, err := io.WriteString(second, "x"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(first, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		_ = second.CloseWrite()
		if b, err := io.ReadAll(first); err != nil || len(b) > 0 {
			t.Errorf("%q %v", b, err)
		}
		if err := r.wait(t); err != nil {
			t.Error(err)
		}
		if r.relay.Pause(time.Minute) {
			t.Error("one that is over was paused")
		}
	}
}

// One way has ended, and the server too has said all and closed, which is not read yet:
// who goes on then reads it to its end.
func TestPausedWithTheRestUnread(t *testing.T) {
	r := start(t)
	_ = r.client.CloseWrite()
	if b, err := io.ReadAll(r.server); err != nil || len(b) > 0 {
		t.Fatalf("%q %v", b, err)
	}
	if !r.relay.Pause(10 * time.Second) {
		t.Fatal("it does not come to rest")
	}
	_, _ = io.WriteString(r.server, "the rest")
	_ = r.server.Close()
	r = r.next(t)
	if b, err := io.ReadAll(r.client); err != nil || string(b) != "the rest" {
		t.Errorf("%q %v", b, err)
	}
	if err := r.wait(t); err != nil {
		t.Error(err)
	}
}

// A receiver takes nothing: what was read for it finds room in its socket, and goes
// with that to whoever goes on. The other way goes on, too.
func TestPausedBeforeABlockedReceiver(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes CAP_NET_ADMIN to enlarge a socket as far")
	}
	r := start(t)
	const size = 64 << 20
	data := pattern(size)
	go func() {
		_, _ = r.client.Write(data)
		_ = r.client.CloseWrite()
	}()
	for range 3 {
		// It is blocked when the count stands still.
		for last := uint64(0); ; {
			<-time.After(100 * time.Millisecond)
			now := r.forth.Load()
			if now == last && now > 0 {
				break
			}
			last = now
		}
		if !r.relay.Pause(100 * time.Millisecond) {
			if r.forth.Load() < maxSend { // it is not enlarged without end
				t.Fatal("it does not come to rest")
			}
			break
		}
		r = r.next(t)
		_, _ = io.WriteString(r.server, "back")
		b := make([]byte, 4)
		if _, err := io.ReadFull(r.client, b); err != nil || string(b) != "back" {
			t.Errorf("the other way: %q %v", b, err)
		}
	}
	_ = r.server.CloseWrite()
	got, err := io.ReadAll(r.server)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := r.wait(t); err != nil {
		t.Error(err)
	}
	if n := r.forth.Load(); n != size {
		t.Errorf("counted %d", n)
	}
}

// What is reset while it is at rest is reset, whoever goes on.
func TestResetAtRest(t *testing.T) {
	for _, left := range []bool{false, true} {
		r := start(t)
		if !r.relay.Pause(10 * time.Second) {
			t.Fatal("it does not come to rest")
		}
		Reset(r.client)
		if left {
			r = r.next(t)
		} else {
			r.relay.Resume()
		}
		if _, err := r.server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("left %v: the server saw %v", left, err)
		}
		if err := r.wait(t); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("left %v: it ended with %v", left, err)
		}
	}
}

// Many pauses by many, on a relay that ends meanwhile: nobody waits for ever.
func TestPauseAsItEnds(t *testing.T) {
	for range 200 {
		r := start(t)
		var rested atomic.Int64
		done := make(chan struct{})
		for range 2 {
			go func() {
				for range 3 {
					if r.relay.Pause(10 * time.Second) {
						rested.Add(1)
						r.relay.Resume()
					}
				}
				done <- struct{}{}
			}()
		}
		_ = r.client.CloseWrite()
		_ = r.server.CloseWrite()
		<-done
		<-done
		if err := r.wait(t); err != nil {
			t.Fatal(err)
		}
	}
}
