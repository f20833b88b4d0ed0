package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SYNs made by hand. They carry the marker as payload (as TCP Fast Open would),
// so that a witness can look for it. None waits for an answer.

// segment is a TCP SYN with the marker, checksummed for src and dst.
func segment(src, dst netip.AddrPort, marker string) []byte {
	b := make([]byte, 20, 20+len(marker))
	binary.BigEndian.PutUint16(b[0:], src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], rand.Uint32())
	b[12], b[13] = 5<<4, 2 // header length, SYN
	binary.BigEndian.PutUint16(b[14:], 65535)
	b = append(b, marker...)
	binary.BigEndian.PutUint16(b[16:], checksum(src.Addr(), dst.Addr(), b))
	return b
}

func checksum(src, dst netip.Addr, segment []byte) uint16 {
	pseudo := append(append([]byte{}, src.AsSlice()...), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(segment)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, unix.IPPROTO_TCP)
	sum := uint32(0)
	for _, part := range [][]byte{pseudo, segment} {
		for i := 0; i < len(part); i += 2 {
			word := uint32(part[i]) << 8
			if i+1 < len(part) {
				word |= uint32(part[i+1])
			}
			sum += word
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// packet is an IPv4 or IPv6 packet around a segment.
func packet(src, dst netip.AddrPort, marker string) []byte {
	payload := segment(src, dst, marker)
	if dst.Addr().Is6() {
		b := make([]byte, 40)
		b[0], b[6], b[7] = 6<<4, unix.IPPROTO_TCP, 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
		copy(b[8:], src.Addr().AsSlice())
		copy(b[24:], dst.Addr().AsSlice())
		return append(b, payload...)
	}
	b := make([]byte, 20)
	b[0], b[8], b[9] = 4<<4|5, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	copy(b[12:], src.Addr().AsSlice())
	copy(b[16:], dst.Addr().AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	return append(b, payload...)
}

// source is the pod's own address, or a neighbour's.
func source(dst netip.AddrPort, spoofed bool) (netip.AddrPort, error) {
	own, err := ownAddress(dst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if spoofed {
		if next := own.Next(); next != dst.Addr() {
			own = next
		} else {
			own = own.Prev()
		}
	}
	return netip.AddrPortFrom(own, uint16(20_000+rand.IntN(10_000))), nil
}

func rawSYN(spoofed bool) try {
	return func(dst netip.AddrPort, marker string) (int, error) {
		src, err := source(dst, spoofed)
		if err != nil {
			return 0, err
		}
		family := unix.AF_INET
		var to unix.Sockaddr = &unix.SockaddrInet4{Addr: addr4(dst.Addr())}
		if dst.Addr().Is6() {
			family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: dst.Addr().As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		if err := unix.Sendto(fd, packet(src, dst, marker), 0, to); err != nil {
			return 0, err
		}
		return 1, errNoAnswer
	}
}

func addr4(a netip.Addr) (out [4]byte) {
	if a.Is4() {
		out = a.As4()
	}
	return out
}

// packetSYN writes a frame to the device, past the IP stack and its hooks.
func packetSYN(spoofed bool) try {
	return func(dst netip.AddrPort, marker string) (int, error) {
		src, err := source(dst, spoofed)
		if err != nil {
			return 0, err
		}
		return transmit(dst, packet(src, dst, marker))
	}
}

// transmit writes packets for dst to the device.
func transmit(dst netip.AddrPort, packets ...[]byte) (int, error) {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return 0, err
	}
	mac, err := gatewayMAC(link, dst.Addr())
	if err != nil {
		return 0, err
	}
	protocol := uint16(unix.ETH_P_IP)
	if dst.Addr().Is6() {
		protocol = unix.ETH_P_IPV6
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: link.Attrs().Index, Halen: 6}
	copy(to.Addr[:], mac)
	for i, b := range packets {
		if err := unix.Sendto(fd, b, 0, to); err != nil {
			return i, err
		}
	}
	return len(packets), errNoAnswer
}

// gatewayMAC is the neighbour that packets to dst are sent to.
func gatewayMAC(link netlink.Link, dst netip.Addr) (net.HardwareAddr, error) {
	routes, err := netlink.RouteGet(dst.AsSlice())
	if err != nil || len(routes) == 0 {
		return nil, fmt.Errorf("route to %s: %w", dst, err)
	}
	next := routes[0].Gw
	if next == nil {
		next = dst.AsSlice()
	}
	// A datagram makes the kernel resolve the neighbour.
	if c, err := net.Dial("udp", net.JoinHostPort(next.String(), "9")); err == nil {
		_, _ = c.Write([]byte("?"))
		c.Close()
	}
	for range 50 {
		neighbours, err := netlink.NeighList(link.Attrs().Index, 0)
		if err != nil {
			return nil, err
		}
		for _, n := range neighbours {
			if n.IP.Equal(next) && len(n.HardwareAddr) == 6 {
				return n.HardwareAddr, nil
			}
		}
		_, _ = unix.Poll(nil, 20)
	}
	return nil, errors.New("no neighbour on the way to " + dst.String())
}
