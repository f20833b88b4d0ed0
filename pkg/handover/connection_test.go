package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// between are two agents' ends of the socket after the node was handed over.
func between(t *testing.T) (*Giver, *Taker) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		ends[i] = c.(*net.UnixConn)
	}
	t.Cleanup(func() { ends[0].Close(); ends[1].Close() })
	return newGiver(ends[0]), &Taker{conn: ends[1], gives: true}
}

// wire is a connection's two sockets, in one.
func wire(t *testing.T, number int) (Connection, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return Connection{}, nil
	}
	far := os.NewFile(uintptr(fds[1]), "far")
	second, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
	}
	return Connection{Cookie: 7, State: json.RawMessage(fmt.Sprintf(`{"n":%d}`, number)), FDs: []int{fds[0], second}}, far
}

// begun notes what becomes of a connection.
type begun struct {
	files   []*os.File
	count   *atomic.Int32
	dropped *atomic.Int32
}

func (b *begun) Begin() {
	b.count.Add(1)
	_, _ = io.WriteString(b.files[0], "hello") // the test may be through with it
	b.close()
}

func (b *begun) Drop() { b.dropped.Add(1); b.close() }

func (b *begun) close() {
	for _, f := range b.files {
		_ = f.Close()
	}
}

func TestConnectionsAreHandedOver(t *testing.T) {
	g, taker := between(t)
	const connections, workers = 2000, 64
	var taken, dropped atomic.Int32
	ended := make(chan error, 1)
	go func() {
		ended <- taker.Connections(t.Context(), func(cookie uint64, state json.RawMessage, files []*os.File) (Resumption, error) {
			var s struct{ N int }
			if err := json.Unmarshal(state, &s); err != nil || cookie != 7 || len(files) != 2 {
				t.Errorf("cookie %d, state %s, %d files, %v", cookie, state, len(files), err)
			}
			b := &begun{files, &taken, &dropped}
			if s.N%10 == 0 { // it refuses some
				b.close()
				return nil, errors.New("not this one")
			}
			return b, nil
		})
	}()
	var group sync.WaitGroup
	numbers := make(chan int)
	for range workers {
		group.Go(func() {
			for n := range numbers {
				c, far := wire(t, n)
				if got, want := g.Give(c), n%10 != 0; got != want {
					t.Errorf("%d: taken %v, want %v", n, got, want)
				}
				if b, err := io.ReadAll(far); err != nil || string(b) != "hello" && n%10 != 0 {
					t.Errorf("%d: %q %v", n, b, err)
				}
				far.Close()
			}
		})
	}
	for n := range connections {
		numbers <- n
	}
	close(numbers)
	group.Wait()
	if taken.Load() != connections*9/10 || dropped.Load() != 0 {
		t.Errorf("%d begun, %d dropped", taken.Load(), dropped.Load())
	}
	g.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Either end goes away at any moment: each connection is one agent's, never both's.
func TestConnectionsHaveOneOwnerWhoeverDies(t *testing.T) {
	for round := range 300 {
		g, taker := between(t)
		counts := make([]atomic.Int32, 200)
		var dropped atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = taker.Connections(ctx, func(_ uint64, state json.RawMessage, files []*os.File) (Resumption, error) {
				var s struct{ N int }
				_ = json.Unmarshal(state, &s)
				return &begun{files, &counts[s.N], &dropped}, nil
			})
		}()
		var group sync.WaitGroup
		var given atomic.Int32
		end := int32(rand.IntN(len(counts))) //nolint:gosec // a moment of a test
		for worker := range 8 {
			group.Go(func() {
				for n := worker; n < len(counts); n += 8 {
					c, far := wire(t, n)
					taken := g.Give(c)
					if got := counts[n].Load(); taken != (got == 1) && eventuallyDiffers(&counts[n], taken) {
						t.Errorf("round %d: connection %d: given %v, begun %d times", round, n, taken, counts[n].Load())
					}
					far.Close()
					if given.Add(1) == end {
						if round%2 == 0 {
							g.Close()
						} else {
							cancel()
						}
					}
				}
			})
		}
		group.Wait()
		g.Close()
		cancel()
		<-ended
		for n := range counts {
			if counts[n].Load() > 1 {
				t.Errorf("connection %d begun twice", n)
			}
		}
	}
}

// eventuallyDiffers reports whether a connection that was given is never begun: its
// answer is on its way before it is.
func eventuallyDiffers(count *atomic.Int32, taken bool) bool {
	for end := time.Now().Add(10 * time.Second); taken && count.Load() == 0 && time.Now().Before(end); {
		<-time.After(time.Millisecond)
	}
	return taken != (count.Load() == 1)
}

// A next agent that hangs keeps a connection no longer than it may take, and cannot
// begin with it afterwards.
func TestConnectionsComeBackFromOneThatHangs(t *testing.T) {
	g, taker := between(t)
	hang := make(chan struct{})
	var count, dropped atomic.Int32
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = taker.Connections(t.Context(), func(_ uint64, _ json.RawMessage, files []*os.File) (Resumption, error) {
			<-hang
			return &begun{files, &count, &dropped}, nil
		})
	}()
	c, far := wire(t, 1)
	defer far.Close()
	if g.Give(c) {
		t.Error("given to one that hangs")
	}
	if c, far := wire(t, 2); g.Give(c) || far.Close() != nil {
		t.Error("given after that")
	}
	close(hang)
	<-ended
	if count.Load() != 0 || dropped.Load() != 1 {
		t.Errorf("begun %d times, dropped %d", count.Load(), dropped.Load())
	}
	if !g.Over() {
		t.Error("it is asked again")
	}
}

// Agents of other versions: one of before says nothing of connections, and one that
// comes later may say more than this one knows.
func TestOtherVersionsHandOverWithoutConnections(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	start := func() (*owner, chan error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		lock, err := TryLock(filepath.Join(dir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		o := &owner{l: l.(*net.TCPListener), lock: lock, carry: func(*Giver) { t.Error("connections for one that takes none") }}
		gave := make(chan error, 1)
		go func() { gave <- Give(t.Context(), path, time.Minute, o) }()
		return o, gave
	}
	dial := func() (c *net.UnixConn) {
		eventually(t, "the owner answers", func() (ok bool) {
			var err error
			c, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
			return err == nil
		})
		return c
	}
	_, gave := start()
	c := dial()
	defer c.Close()
	for {
		m, files, err := receive(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			f.Close()
		}
		if m.Last {
			break
		}
	}
	if _, err := io.WriteString(c, `{"taken":true,"later":{"x":1}}`); err != nil {
		t.Fatal(err)
	}
	if m, _, err := receive(c); err != nil || !m.Bye || m.Connections {
		t.Errorf("%+v %v", m, err)
	}
	if err := <-gave; err != nil {
		t.Error(err)
	}

	// A first one of before, to this one.
	_ = os.Remove(path)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, `{"later":1}`)
		_, _ = io.WriteString(c, `{"last":true}`)
		_, _, _ = receive(c)
		_, _ = io.WriteString(c, `{"bye":true,"later":"x"}`)
	}()
	taker, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := taker.Serving(); err != nil {
		t.Fatal(err)
	}
	if err := taker.Connections(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// Root, and this process's own user in tests, and nobody else.
func TestStrangersAreRefused(t *testing.T) {
	for user, want := range map[int]bool{0: true, os.Geteuid(): true, 12345: false} {
		if err := trust(user); (err == nil) != want {
			t.Errorf("user %d: %v", user, err)
		}
	}
	g, _ := between(t)
	defer g.Close()
	if err := trusted(g.conn); err != nil {
		t.Error(err)
	}
}
