package handover

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// owner is an agent with one pod.
type owner struct {
	mu      sync.Mutex
	l       *net.TCPListener
	lock    *Lock
	frozen  bool
	ended   bool
	refuses error
	carry   func(*Giver)
}

func (o *owner) Freeze() ([]Sockets, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.frozen = true
	if o.refuses != nil {
		return nil, o.refuses
	}
	raw, err := o.l.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	err = raw.Control(func(from uintptr) { fd, _ = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
	return []Sockets{{Cookie: 7, FDs: []int{fd}}}, err
}

func (o *owner) Thaw() { o.mu.Lock(); o.frozen = false; o.mu.Unlock() }

func (o *owner) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	_ = o.l.Close()
	_ = o.lock.Unlock()
}

func (o *owner) Carry(g *Giver) { o.carry(g) }

func (o *owner) isFrozen() bool { o.mu.Lock(); defer o.mu.Unlock(); return o.frozen }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestNodeIsHandedOver(t *testing.T) {
	dir := t.TempDir()
	path, lockPath := filepath.Join(dir, "s"), filepath.Join(dir, "lock")
	lock, err := TryLock(lockPath)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryLock(lockPath); !errors.Is(err, ErrHeld) {
		t.Fatalf("twice: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &owner{l: l.(*net.TCPListener), lock: lock, carry: (*Giver).Close}
	if _, err := Take(path); err == nil {
		t.Fatal("taken from nobody")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gave := make(chan error, 1)
	go func() { gave <- Give(ctx, path, time.Minute, o) }()
	var taker *Taker
	eventually(t, "the owner answers", func() bool { taker, err = Take(path); return err == nil })

	// The next agent fails: nothing has changed.
	if !o.isFrozen() {
		t.Error("it may change while it is handed over")
	}
	taker.Abandon()
	eventually(t, "it goes on", func() bool { return !o.isFrozen() })
	o.mu.Lock()
	o.refuses = errors.New("not now")
	o.mu.Unlock()
	if _, err := Take(path); err == nil || err.Error() == "" {
		t.Errorf("refused: %v", err)
	}
	o.mu.Lock()
	o.refuses = nil
	o.mu.Unlock()

	if taker, err = Take(path); err != nil {
		t.Fatal(err)
	}
	if len(taker.Listeners[7]) != 1 {
		t.Fatalf("%v", taker.Listeners)
	}
	mine, err := net.FileListener(taker.Listeners[7][0])
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	// A connection that waits while one lets go is the other's.
	c, err := net.Dial("tcp", mine.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := taker.Serving(); err != nil {
		t.Fatal(err)
	}
	if err := <-gave; err != nil || !o.ended {
		t.Fatalf("%v, ended %v", err, o.ended)
	}
	next, err := WaitLock(t.Context(), lockPath)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Unlock()
	s, err := mine.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(s, "x")
	_ = s.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "x" {
		t.Errorf("%q %v", b, err)
	}
}

func TestWaitingForTheLockEndsWithTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := WaitLock(ctx, path); !errors.Is(err, ErrHeld) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if _, err := WaitLock(t.Context(), path); err != nil {
		t.Error(err)
	}
}

// A next agent that gets ready too late is told that the node is not its own, whenever it
// asks: the owner has gone on by then.
func TestLateAgentIsToldThatTheNodeIsKept(t *testing.T) {
	dir := t.TempDir()
	path, lockPath := filepath.Join(dir, "s"), filepath.Join(dir, "lock")
	lock, err := TryLock(lockPath)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &owner{l: l.(*net.TCPListener), lock: lock, carry: (*Giver).Close}
	ctx, cancel := context.WithCancel(t.Context())
	gave := make(chan error, 1)
	go func() { gave <- Give(ctx, path, 50*time.Millisecond, o) }()
	var late *Taker
	eventually(t, "the owner answers", func() bool { late, err = Take(path); return err == nil })
	eventually(t, "it goes on", func() bool { return !o.isFrozen() })
	if err := late.Serving(); !errors.Is(err, ErrKept) {
		t.Errorf("%v, want that the owner keeps the node", err)
	}
	if _, err := TryLock(lockPath); o.ended || !errors.Is(err, ErrHeld) {
		t.Errorf("ended: %v; lock: %v", o.ended, err)
	}
	late.Abandon()
	cancel()
	if err := <-gave; err != nil {
		t.Fatal(err)
	}
	go func() { gave <- Give(t.Context(), path, time.Minute, o) }()
	var next *Taker
	eventually(t, "the owner answers", func() bool { next, err = Take(path); return err == nil })
	defer next.Abandon()
	if err := next.Serving(); err != nil {
		t.Error(err)
	}
	if err := <-gave; err != nil || !o.ended {
		t.Errorf("%v, ended %v", err, o.ended)
	}
}

// What the owner said last is heard, also where it has ended without reading what it was told.
func TestLateAgentIsToldWhateverItHasSaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closes, closed := make(chan struct{}), make(chan error, 1)
	go func() {
		c, err := l.AcceptUnix()
		if err == nil {
			err = errors.Join(send(c, message{Last: true}, nil), send(c, message{Error: "too late"}, nil))
			<-closes
			err = errors.Join(err, c.Close())
		}
		closed <- err
	}()
	late, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Abandon()
	if err := send(late.conn, message{Taken: true}, nil); err != nil {
		t.Fatal(err)
	}
	close(closes)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if m, err := late.verdict(); err != nil || m.Error != "too late" {
		t.Errorf("%+v, %v", m, err)
	}
}
