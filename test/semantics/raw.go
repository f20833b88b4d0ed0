package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Sockets by hand, for what package net does not offer.

func sockaddr(a netip.AddrPort) (family int, sa unix.Sockaddr) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func socket(family int) int {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err, "socket")
	limit := unix.NsecToTimeval(int64(askTimeout))
	must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit), "timeout")
	return fd
}

// command connects a new blocking socket and sends "mode argument".
func command(s netip.AddrPort, mode string, argument any) int {
	family, sa := sockaddr(s)
	fd := socket(family)
	must(unix.Connect(fd, sa), "connect")
	send(fd, fmt.Sprintf("%s %v\n", mode, argument))
	return fd
}

func send(fd int, text string) {
	_, err := unix.Write(fd, []byte(text))
	must(err, "write")
}

func readFD(fd int) string {
	var all []byte
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue // a signal of Go's scheduler, past SA_RESTART for the sockets' timeouts
		}
		must(err, "read")
		if n == 0 {
			return string(all)
		}
		all = append(all, buf[:n]...)
	}
}

// ownAddress is the address that the kernel would connect from.
func ownAddress(s netip.AddrPort) netip.Addr {
	c, err := net.Dial("udp", s.String())
	must(err, "route")
	defer c.Close()
	return netip.MustParseAddrPort(c.LocalAddr().String()).Addr()
}

func echoOn(fd int) string {
	send(fd, "echo 0\nhello")
	must(unix.Shutdown(fd, unix.SHUT_WR), "half-close")
	return same(readFD(fd), "hello")
}

func askNonblocking(s netip.AddrPort) string {
	family, sa := sockaddr(s)
	fd := socket(family)
	defer unix.Close(fd)
	must(unix.SetNonblock(fd, true), "nonblock")
	if err := unix.Connect(fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err.Error()
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(poll, 10_000); n != 1 || err != nil {
		return fmt.Sprint("never writable: ", err)
	}
	if soError, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); soError != 0 || err != nil {
		return fmt.Sprint("SO_ERROR ", soError, err)
	}
	if err := unix.Connect(fd, sa); !errors.Is(err, unix.EISCONN) && err != nil {
		return "second connect: " + err.Error()
	}
	must(unix.SetNonblock(fd, false), "block")
	return echoOn(fd)
}

func askNames(s netip.AddrPort) string {
	fd := command(s, "echo", 0)
	defer unix.Close(fd)
	peer, err := unix.Getpeername(fd)
	must(err, "getpeername")
	name, err := unix.Getsockname(fd)
	must(err, "getsockname")
	if got := addrPort(peer); got != s {
		return fmt.Sprintf("getpeername is %v", got)
	}
	if got := addrPort(name).Addr(); got != ownAddress(s) {
		return fmt.Sprintf("getsockname is %v", got)
	}
	return "ok"
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

func askWaitAll(s netip.AddrPort) string {
	fd := command(s, "parts", 1000)
	defer unix.Close(fd)
	var n int
	var err error = unix.EINTR
	for errors.Is(err, unix.EINTR) { // before any byte has come
		n, _, err = unix.Recvfrom(fd, make([]byte, 1000), unix.MSG_WAITALL)
	}
	must(err, "recv")
	return same(fmt.Sprint(n), "1000")
}

func askLowWater(s netip.AddrPort) string {
	fd := command(s, "parts", 1000)
	defer unix.Close(fd)
	must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 500), "SO_RCVLOWAT")
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 10_000); n != 1 || err != nil {
		return fmt.Sprint("never readable: ", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	must(err, "FIONREAD")
	if n < 500 {
		return fmt.Sprintf("readable at %d bytes", n)
	}
	return "ok"
}

func askFastOpen(s netip.AddrPort) string {
	family, sa := sockaddr(s)
	fd := socket(family)
	defer unix.Close(fd)
	must(unix.Sendto(fd, []byte("echo 0\nhello"), unix.MSG_FASTOPEN, sa), "sendto")
	must(unix.Shutdown(fd, unix.SHUT_WR), "half-close")
	return same(readFD(fd), "hello")
}

func askBound(s netip.AddrPort, port bool) string {
	family, sa := sockaddr(s)
	fd := socket(family)
	defer unix.Close(fd)
	own := netip.AddrPortFrom(ownAddress(s), 0)
	if port {
		own = netip.AddrPortFrom(own.Addr(), 33_000+uint16(os.Getpid()%9_000))
	}
	_, local := sockaddr(own)
	must(unix.Bind(fd, local), "bind")
	must(unix.Connect(fd, sa), "connect")
	name, err := unix.Getsockname(fd)
	must(err, "getsockname")
	if got := addrPort(name); got.Addr() != own.Addr() || port && got.Port() != own.Port() {
		return fmt.Sprintf("bound to %v, getsockname is %v", own, got)
	}
	return echoOn(fd)
}

func askMapped(s netip.AddrPort) string {
	if !s.Addr().Is4() {
		return "ok" // no such thing
	}
	fd := socket(unix.AF_INET6)
	defer unix.Close(fd)
	mapped := netip.AddrPortFrom(netip.AddrFrom16(s.Addr().As16()), s.Port())
	_, sa := sockaddr(mapped)
	must(unix.Connect(fd, sa), "connect")
	peer, err := unix.Getpeername(fd)
	must(err, "getpeername")
	if got := addrPort(peer); got != s {
		return fmt.Sprintf("getpeername is %v", got)
	}
	return echoOn(fd)
}

func askSplice(s netip.AddrPort) string {
	fd := command(s, "source", 200_000)
	defer unix.Close(fd)
	r, w, err := os.Pipe()
	must(err, "pipe")
	defer r.Close()
	digest := make(chan string, 1)
	go func() { digest <- digestOf(r) }()
	for {
		n, err := unix.Splice(fd, nil, int(w.Fd()), nil, 64<<10, 0)
		must(err, "splice")
		if n == 0 {
			break
		}
	}
	w.Close()
	return same(<-digest, digestOf(pattern(200_000)))
}

func askSendfile(s netip.AddrPort) string {
	file, err := os.CreateTemp("", "semantics")
	must(err, "file")
	defer os.Remove(file.Name())
	defer file.Close()
	_, err = io.Copy(file, pattern(200_000))
	must(err, "file")
	fd := command(s, "digest", 0)
	defer unix.Close(fd)
	var offset int64
	for offset < 200_000 {
		_, err := unix.Sendfile(fd, int(file.Fd()), &offset, 200_000-int(offset))
		must(err, "sendfile")
	}
	must(unix.Shutdown(fd, unix.SHUT_WR), "half-close")
	return same(readFD(fd), digestOf(pattern(200_000)))
}

func askOutOfBand(s netip.AddrPort) string {
	fd := command(s, "digest", 0)
	defer unix.Close(fd)
	must(unix.Sendto(fd, []byte("x"), unix.MSG_OOB, nil), "send")
	must(unix.Shutdown(fd, unix.SHUT_WR), "half-close")
	if readFD(fd) == digestOf(io.LimitReader(pattern(0), 0)) {
		return "out of band"
	}
	return "in line"
}

func askMPTCP(s netip.AddrPort) string {
	family, sa := sockaddr(s)
	fd, err := unix.Socket(family, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	if err != nil {
		return "socket: " + err.Error()
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); err != nil {
		return "connect: " + err.Error()
	}
	return echoOn(fd)
}

// askInfo compares what the kernel says was acknowledged with what was sent:
// through a proxy it is the proxy that acknowledges.
func askInfo(s netip.AddrPort) string {
	fd := command(s, "stall", 0)
	defer unix.Close(fd)
	before := time.Now()
	for time.Since(before) < 2*time.Second {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		must(err, "TCP_INFO")
		if info.Bytes_acked >= uint64(len("stall 0\n")) {
			return "ok"
		}
		pause(10 * time.Millisecond)
	}
	return "not acknowledged"
}
