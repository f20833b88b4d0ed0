package redirect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/redirect/bpfobj"
)

// The source ports of dials with a kept address. A port that the kernel or the
// client chose could be that of the very connection that is dialled for.
const (
	firstAppPort, lastAppPort = 16000, 32500
	appPortTries              = 32
)

// Dial connects from the pod's own address, uncaptured.
func (p *Pod) Dial(ctx context.Context, dst netip.AddrPort) (*net.TCPConn, error) {
	return p.dial(ctx, dst, nil)
}

// DialApp connects to the application with the client's address as source, unless
// client is invalid or the pod's own.
func (p *Pod) DialApp(ctx context.Context, client netip.Addr, dst netip.AddrPort) (*net.TCPConn, error) {
	client = client.Unmap().WithZone("")
	if !client.IsValid() || client == dst.Addr() || client.IsLoopback() || client.Is4() != dst.Addr().Is4() {
		return p.dial(ctx, dst, nil)
	}
	for try := 0; ; try++ {
		port := firstAppPort + rand.IntN(lastAppPort-firstAppPort) //nolint:gosec // spreads ports, guards nothing
		c, err := p.dial(ctx, dst, func(fd int) error { return keepSource(fd, netip.AddrPortFrom(client, uint16(port))) })
		if err == nil || try == appPortTries || !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return c, err
		}
	}
}

func keepSource(fd int, source netip.AddrPort) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, appMark); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if source.Addr().Is4() {
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
			return err
		}
	} else if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1); err != nil {
		return err
	}
	return unix.Bind(fd, sockaddr(source))
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// dial makes the socket inside the pod, tags it as the agent's before it
// connects, and connects without holding a thread.
func (p *Pod) dial(ctx context.Context, dst netip.AddrPort, ready func(fd int) error) (*net.TCPConn, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	family := unix.AF_INET
	if dst.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd := -1
	err := p.ns.Do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		return err
	})
	if err != nil {
		if errors.Is(err, os.ErrClosed) {
			return nil, ErrPodGone
		}
		return nil, fmt.Errorf("socket in the pod: %w", err)
	}
	if err := p.r.connect.AgentSockets.Put(int32(fd), bpfobj.ConnectAgentTag{}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("tag the agent's socket: %w", err)
	}
	if ready != nil {
		if err := ready(fd); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("dial %s: %w", dst, err)
		}
	}
	return connect(ctx, fd, dst)
}

// connect finishes a non-blocking connect under the runtime's poller.
func connect(ctx context.Context, fd int, dst netip.AddrPort) (*net.TCPConn, error) {
	err := unix.Connect(fd, sockaddr(dst))
	pending := errors.Is(err, unix.EINPROGRESS)
	if err != nil && !pending {
		unix.Close(fd)
		return nil, fmt.Errorf("dial %s: %w", dst, err)
	}
	file := os.NewFile(uintptr(fd), "dial") // non-blocking, so the poller takes it
	defer file.Close()                      // FileConn has its own descriptor
	if pending {
		if deadline, ok := ctx.Deadline(); ok {
			_ = file.SetWriteDeadline(deadline)
		}
		stop := context.AfterFunc(ctx, func() { _ = file.Close() })
		err := waitConnected(file)
		if !stop() && ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = context.DeadlineExceeded
			}
			return nil, fmt.Errorf("dial %s: %w", dst, err)
		}
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", dst, err)
	}
	return conn.(*net.TCPConn), nil
}

func waitConnected(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	// The state is asked for before it is waited for: a connection over loopback
	// may be there before the poller knows of the socket, and is told of once.
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			result = err
		case code != 0:
			result = syscall.Errno(code)
		default:
			_, err := unix.Getpeername(int(fd))
			return err == nil
		}
		return true
	})
	return errors.Join(err, result)
}
