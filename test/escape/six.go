package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What IPv6 alone has. dst is of IPv6 in all of this.

// scoped names the device in the destination's address, as one of link-local needs it.
func scoped(dst netip.AddrPort, marker string) (int, error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return 0, err
	}
	return connectTo(dst, marker, func(_ int, sa *unix.RawSockaddrInet6) error {
		sa.Scope_id = uint32(link.Index)
		return nil
	})
}

// flowLabel connects with a label that was leased for the true destination.
func flowLabel(dst netip.AddrPort, marker string) (int, error) {
	return connectTo(dst, marker, func(fd int, sa *unix.RawSockaddrInet6) error {
		const label, get, anyone, create, manager, send = 0x12345, 0, 255, 1, 32, 33
		request := make([]byte, 32) // struct in6_flowlabel_req
		copy(request, dst.Addr().AsSlice())
		binary.BigEndian.PutUint32(request[16:], label)
		request[20], request[21] = get, anyone
		binary.NativeEndian.PutUint16(request[22:], create)
		if err := unix.SetsockoptString(fd, unix.IPPROTO_IPV6, manager, string(request)); err != nil {
			return fmt.Errorf("lease a flow label: %w", err)
		}
		binary.BigEndian.PutUint32((*[4]byte)(unsafe.Pointer(&sa.Flowinfo))[:], label)
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, send, 1)
	})
}

// connectTo connects a socket with an address that alter may change, for what package unix's own
// form of it has no room for.
func connectTo(dst netip.AddrPort, marker string, alter func(fd int, sa *unix.RawSockaddrInet6) error) (int, error) {
	fd, _, err := newSocket(dst, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: dst.Addr().As16()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], dst.Port())
	if err := alter(fd, &sa); err != nil {
		return 0, err
	}
	if _, _, code := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa)); code != 0 {
		return 0, code
	}
	return 0, echo(fd, marker, true)
}

// destinationOptions has every segment carry options for the destination: padding.
func destinationOptions(fd int, _ netip.AddrPort) error {
	return unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, string([]byte{0, 0, 1, 4, 0, 0, 0, 0}))
}

// segmentRouting sends every segment by way of the true destination (RFC 8754), whatever
// connect was told.
func segmentRouting(fd int, dst netip.AddrPort) error {
	const segmentRoutingHeader = 4
	header := append([]byte{0, 2, segmentRoutingHeader, 0, 0, 0, 0, 0}, dst.Addr().AsSlice()...)
	return unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_RTHDR, string(header))
}

// chains are extension headers in front of TCP.
var chains = [][]byte{
	{unix.IPPROTO_HOPOPTS},
	{unix.IPPROTO_DSTOPTS},
	{unix.IPPROTO_ROUTING},
	{unix.IPPROTO_FRAGMENT},
	{unix.IPPROTO_HOPOPTS, unix.IPPROTO_FRAGMENT},
	{unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_DSTOPTS},
}

// headedSYNs writes one SYN to the device for each of the chains.
func headedSYNs(dst netip.AddrPort, marker string) (int, error) {
	var packets [][]byte
	for _, chain := range chains {
		src, err := source(dst, false)
		if err != nil {
			return 0, err
		}
		packets = append(packets, headed(packet(src, dst, marker), chain))
	}
	return transmit(dst, packets...)
}

// headed puts headers of eight bytes each between a packet's own and what follows.
func headed(b, chain []byte) []byte {
	var headers []byte
	for i, kind := range chain {
		next := byte(unix.IPPROTO_TCP)
		if i+1 < len(chain) {
			next = chain[i+1]
		}
		header := []byte{next, 0, 1, 4, 0, 0, 0, 0} // options: padding
		switch kind {
		case unix.IPPROTO_ROUTING:
			header = []byte{next, 0, 253, 0, 0, 0, 0, 0} // a type for experiments, with no segments left
		case unix.IPPROTO_FRAGMENT:
			header = []byte{next, 0, 0, 0, 0, 0, 0, byte(i)} // all of it
		}
		headers = append(headers, header...)
	}
	out := append(append(append([]byte{}, b[:40]...), headers...), b[40:]...)
	out[6] = chain[0]
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)-40))
	return out
}
