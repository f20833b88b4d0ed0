package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrClosed says that the handle was closed before it was used.
var ErrClosed = errors.New("network namespace handle is closed")

// NS is an open handle of a network namespace. While it is open the namespace
// and its devices live on, even when no process is left inside; close it when
// the pod goes. It is safe for concurrent use.
type NS struct {
	path string
	file *os.File
}

// Open opens the namespace that path names: a file of /run/netns, or
// /proc/PID/ns/net.
func Open(path string) (*NS, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	// A plain file opens as well; setns would refuse it only later and less clearly.
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open network namespace %s: it is not a network namespace", path)
	}
	return &NS{path: path, file: os.NewFile(uintptr(fd), path)}, nil
}

// Current opens the namespace that the caller is in: the process's, or that of the
// [NS.Do] around it. It is not /proc/self's: that is where the process's first thread
// is, which may be inside any Do at the moment.
func Current() (*NS, error) { return Open("/proc/thread-self/ns/net") }

// Path is the name the handle was opened by.
func (n *NS) Path() string { return n.path }

// Close gives the handle back. Sockets made inside stay usable.
func (n *NS) Close() error { return n.file.Close() }

// Inode is the number by which /proc and nsfs know the namespace.
func (n *NS) Inode() (uint64, error) {
	var st unix.Stat_t
	err := n.control(func(fd int) error { return unix.Fstat(fd, &st) })
	if err != nil {
		return 0, fmt.Errorf("stat network namespace %s: %w", n.path, err)
	}
	return st.Ino, nil
}

// Cookie is the namespace's number in the kernel's own counting. It is never
// used again while the machine is up, unlike inodes and process ids, so it is
// what eBPF programs know a pod by.
func (n *NS) Cookie() (uint64, error) {
	var cookie uint64
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read the cookie of network namespace %s: %w", n.path, err)
	}
	return cookie, nil
}

// Do runs fn on a thread that is inside the namespace and returns what fn
// returns. fn must not start goroutines that rely on the namespace: only its
// own goroutine is inside. A thread that cannot be brought back is thrown away
// and never runs other goroutines.
func (n *NS) Do(fn func() error) error {
	home, err := processNS()
	if err != nil {
		return err
	}
	// fn may leave by runtime.Goexit (t.Fatal): then nobody sets this error.
	result := errors.New("the function run inside the network namespace did not return")
	done := make(chan struct{})
	// A goroutine of its own: should the way back fail, it ends still locked and
	// takes its thread with it, and the caller was never inside.
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := n.control(setns); err != nil {
			runtime.UnlockOSThread() // the thread never moved
			result = fmt.Errorf("enter network namespace %s: %w", n.path, err)
			return
		}
		defer func() {
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		result = fn()
	}()
	<-done
	return result
}

// Start starts cmd as a child that is born inside the namespace. A Pdeathsig in
// cmd's attributes is sent when the thread that forked it ends; the Go runtime
// keeps its threads, so that is when this process ends.
func (n *NS) Start(cmd *exec.Cmd) error {
	if err := n.Do(cmd.Start); err != nil {
		return fmt.Errorf("start %s in network namespace %s: %w", cmd.Path, n.path, err)
	}
	return nil
}

func setns(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) }

// control lends the descriptor to fn; Close waits for fn to end.
func (n *NS) control(fn func(fd int) error) error {
	raw, err := n.file.SyscallConn()
	if err != nil {
		return ErrClosed
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return ErrClosed
	}
	return inner
}

// processNS is the namespace threads go home to: that of the process's first thread,
// looked up before anything here has moved one. The descriptor stays open for ever.
var processNS = sync.OnceValues(func() (int, error) {
	fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open this process's network namespace: %w", err)
	}
	return fd, nil
})
