package main

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// limit is how long one blocking step may take.
const limitMillis = 1500

func newSocket(dst netip.AddrPort, proto int) (fd int, sa unix.Sockaddr, err error) {
	family := unix.AF_INET
	if dst.Addr().Is6() {
		family = unix.AF_INET6
		sa = &unix.SockaddrInet6{Port: int(dst.Port()), Addr: dst.Addr().As16()}
	} else {
		sa = &unix.SockaddrInet4{Port: int(dst.Port()), Addr: dst.Addr().As4()}
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, nil, err
	}
	limit := unix.NsecToTimeval(limitMillis * 1_000_000)
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, sa, nil
}

// stream connects an ordinary socket, altered before and after connect.
func stream(before, after func(fd int, dst netip.AddrPort) error) try {
	return func(dst netip.AddrPort, marker string) (int, error) {
		fd, sa, err := newSocket(dst, 0)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		if before != nil {
			if err := before(fd, dst); err != nil {
				return 0, err
			}
		}
		if err := unix.Connect(fd, sa); err != nil {
			return 0, err
		}
		if after != nil {
			// A refusal of the option is not a refusal of the connection.
			_ = after(fd, dst)
		}
		return 0, echo(fd, marker, true)
	}
}

// echo sends the marker and wants it back.
func echo(fd int, marker string, send bool) error {
	if send {
		if _, err := unix.Write(fd, []byte("echo 0\n"+marker)); err != nil {
			return err
		}
	}
	var got []byte
	buf := make([]byte, 512)
	for len(got) < len(marker) {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return err
		}
		if n == 0 {
			return errClosed
		}
		got = append(got, buf[:n]...)
	}
	if string(got) != marker {
		return fmt.Errorf("other bytes came back: %q", got)
	}
	return nil
}

// ownAddress is the address that dst is reached from.
func ownAddress(dst netip.AddrPort) (netip.Addr, error) {
	c, err := net.Dial("udp", dst.String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	local, err := netip.ParseAddrPort(c.LocalAddr().String())
	return local.Addr(), err
}

func bindSource(fd int, dst netip.AddrPort) error {
	own, err := ownAddress(dst)
	if err != nil {
		return err
	}
	if own.Is6() {
		return unix.Bind(fd, &unix.SockaddrInet6{Addr: own.As16()})
	}
	return unix.Bind(fd, &unix.SockaddrInet4{Addr: own.As4()})
}

// device is the pod's way out.
const device = "eth0"

func bindDevice(fd int, _ netip.AddrPort) error {
	return unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device)
}

// forgeMark sets the mark that the agent's own dials to applications carry.
func forgeMark(fd int, _ netip.AddrPort) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0x539)
}

func fastOpenOption(fd int, _ netip.AddrPort) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
}

func fastOpen(dst netip.AddrPort, marker string) (int, error) {
	fd, sa, err := newSocket(dst, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, []byte("echo 0\n"+marker), unix.MSG_FASTOPEN, sa); err != nil {
		return 0, err
	}
	return 0, echo(fd, marker, false)
}

func mapped(dst netip.AddrPort, marker string) (int, error) {
	if !dst.Addr().Is4() {
		return stream(nil, nil)(dst, marker)
	}
	return stream(nil, nil)(netip.AddrPortFrom(netip.AddrFrom16(dst.Addr().As16()), dst.Port()), marker)
}

func multipath(dst netip.AddrPort, marker string) (int, error) {
	fd, sa, err := newSocket(dst, unix.IPPROTO_MPTCP)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); err != nil {
		return 0, err
	}
	return 0, echo(fd, marker, true)
}
