// Package idle waits for sockets that have been quiet for a while, without a
// goroutine and its stack for each.
//
// A connection that works waits in the Go runtime's poller, which is faster; one
// that is parked here costs a map's entry and, when it wakes, a new goroutine.
//
// pkg/h2 and pkg/waypoint/codec use it; it imports golang.org/x/sys alone.
package idle

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Waiter is a parked connection.
type Waiter interface {
	// Ready is called once, when the socket is readable or has ended. It must not
	// block.
	Ready()
}

// set is an epoll instance with one goroutine.
type set struct {
	fd  int
	raw syscall.RawConn

	// mu guards below.
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]Waiter
}

// process is the set of this process: opened with the first connection that
// parks, and never closed.
var process = sync.OnceValues(open)

func open() (*set, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that the runtime's poller takes it
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	raw, err := os.NewFile(uintptr(fd), "epoll").SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &set{fd: fd, raw: raw, waiting: map[uint64]Waiter{}}
	go s.loop()
	return s, nil
}

// Wait calls w.Ready when the socket is readable, also if it is already. The
// ticket is for Cancel.
func Wait(socket syscall.RawConn, w Waiter) (ticket uint64, err error) {
	s, err := process()
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.last++
	ticket = s.last
	s.waiting[ticket] = w
	s.mu.Unlock()
	event := unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT,
		Fd:     int32(uint32(ticket)), Pad: int32(uint32(ticket >> 32)), // together the 64 bits that come back
	}
	var failed error
	err = socket.Control(func(fd uintptr) {
		// It is there from last time, unless this is the first.
		if failed = unix.EpollCtl(s.fd, unix.EPOLL_CTL_MOD, int(fd), &event); errors.Is(failed, unix.ENOENT) {
			failed = unix.EpollCtl(s.fd, unix.EPOLL_CTL_ADD, int(fd), &event)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		Cancel(ticket)
		return 0, err
	}
	return ticket, nil
}

// Cancel forgets a waiter; its Ready may be under way. The socket leaves the set
// when it is closed.
func Cancel(ticket uint64) {
	if s, err := process(); err == nil {
		s.take(ticket)
	}
}

func (s *set) take(ticket uint64) Waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.waiting[ticket]
	delete(s.waiting, ticket)
	return w
}

func (s *set) loop() {
	var events [64]unix.EpollEvent
	for {
		n := 0
		_ = s.raw.Read(func(fd uintptr) bool { // it fails for a closed file, and this one is not
			var err error
			n, err = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
		for _, e := range events[:max(n, 0)] {
			if w := s.take(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32); w != nil {
				w.Ready()
			}
		}
	}
}
