// Package capture listens on a network namespace's devices with a packet socket
// and answers what a test or the demo wants to know of the bytes that passed:
// were the application's among them, how many SYNs left, which TLS version was
// agreed. It sees what tcpdump sees, and needs no program on the machine.
package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// maxPackets bounds what a capture keeps; past it [Capture.Stop] reports an error.
const maxPackets = 1 << 18

// Packet is one IP packet that carried TCP.
type Packet struct {
	Source, Destination netip.AddrPort
	SYN, ACK, RST       bool
	Payload             []byte
	// Device is the network device's name.
	Device string
	// Outgoing is set where the device sent it, as the device's owner sees it.
	Outgoing bool
}

// Capture is a running capture.
type Capture struct {
	fd   int
	stop chan struct{} // closed by Stop
	done chan struct{} // closed when the reader has ended

	devices map[int]string // constant after Start

	// mu guards below.
	mu      sync.Mutex
	packets []Packet
	lost    error
}

// Start captures TCP on all devices of the namespace at path. Packets are kept
// until Stop.
func Start(path string) (*Capture, error) {
	ns, err := netns.Open(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	c := &Capture{stop: make(chan struct{}), done: make(chan struct{}), devices: map[int]string{}}
	err = ns.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			c.devices[l.Attrs().Index] = l.Attrs().Name
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		c.fd = fd
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("packet socket in %s: %w", path, err)
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		unix.Close(c.fd)
		return nil, fmt.Errorf("packet socket in %s: receive buffer: %w", path, err)
	}
	tick := unix.NsecToTimeval(int64(20 * time.Millisecond))
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick); err != nil {
		unix.Close(c.fd)
		return nil, fmt.Errorf("packet socket in %s: %w", path, err)
	}
	go c.read()
	return c, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (c *Capture) read() {
	defer close(c.done)
	// After Stop, what is queued is still read: until it is quiet, or for so long.
	const drain = 2 * time.Second
	var end time.Time
	buf := make([]byte, 1<<17)
	for {
		select {
		case <-c.stop:
			if end.IsZero() {
				end = time.Now().Add(drain)
			}
		default:
		}
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			if !end.IsZero() {
				return
			}
			continue
		case !end.IsZero() && time.Now().After(end):
			return
		case err != nil:
			return
		}
		ll, _ := from.(*unix.SockaddrLinklayer)
		packet, ok := parse(buf[:n])
		if !ok {
			continue
		}
		if ll != nil {
			packet.Outgoing, packet.Device = ll.Pkttype == unix.PACKET_OUTGOING, c.devices[ll.Ifindex]
		}
		c.mu.Lock()
		if len(c.packets) < maxPackets {
			c.packets = append(c.packets, packet)
		} else {
			c.lost = fmt.Errorf("capture: more than %d packets", maxPackets)
		}
		c.mu.Unlock()
	}
}

// parse reads IPv4 or IPv6 with TCP; anything else is not ok.
func parse(b []byte) (Packet, bool) {
	var p Packet
	if len(b) < 20 {
		return p, false
	}
	var src, dst netip.Addr
	var segment []byte
	switch b[0] >> 4 {
	case 4:
		header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		if b[9] != unix.IPPROTO_TCP || header < 20 || len(b) < header {
			return p, false
		}
		if total >= header && total <= len(b) {
			b = b[:total]
		}
		src, dst, segment = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[header:]
	case 6:
		if len(b) < 40 {
			return p, false
		}
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		var ok bool
		if segment, ok = behind(b[6], b[40:]); !ok {
			return p, false
		}
	default:
		return p, false
	}
	if len(segment) < 20 {
		return p, false
	}
	offset, flags := int(segment[12]>>4)*4, segment[13]
	if offset < 20 || offset > len(segment) {
		return p, false
	}
	p.Source = netip.AddrPortFrom(src, binary.BigEndian.Uint16(segment))
	p.Destination = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(segment[2:]))
	p.SYN, p.RST, p.ACK = flags&2 != 0, flags&4 != 0, flags&16 != 0
	p.Payload = bytes.Clone(segment[offset:])
	return p, true
}

// behind is the TCP segment behind the extension headers of IPv6 (RFC 8200 section 4). What is
// in fragments is not put together: the first has it.
func behind(next byte, b []byte) (segment []byte, ok bool) {
	for next != unix.IPPROTO_TCP {
		if len(b) < 8 {
			return nil, false
		}
		length := 8
		switch next {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			length += int(b[1]) * 8
		case unix.IPPROTO_FRAGMENT:
			if binary.BigEndian.Uint16(b[2:])&^7 != 0 {
				return nil, false
			}
		default:
			return nil, false
		}
		if len(b) < length {
			return nil, false
		}
		next, b = b[0], b[length:]
	}
	return b, true
}

// Packets is what was seen so far.
func (c *Capture) Packets() []Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Packet(nil), c.packets...)
}

// Contains reports whether any packet's payload holds text.
func (c *Capture) Contains(text string) bool {
	for _, p := range c.Packets() {
		if bytes.Contains(p.Payload, []byte(text)) {
			return true
		}
	}
	return false
}

// Payload counts the bytes that packets selected by match carried.
func (c *Capture) Payload(match func(Packet) bool) int {
	total := 0
	for _, p := range c.Packets() {
		if match(p) {
			total += len(p.Payload)
		}
	}
	return total
}

// TLS13 reports whether a server's hello from port agreed on TLS 1.3.
func (c *Capture) TLS13(port uint16) bool {
	for _, p := range c.Packets() {
		if p.Source.Port() == port && isTLS13ServerHello(p.Payload) {
			return true
		}
	}
	return false
}

// isTLS13ServerHello reads RFC 8446 section 4.1.3: the version stands in the
// extension supported_versions (43).
func isTLS13ServerHello(b []byte) bool {
	const handshake, serverHello, supportedVersions, tls13 = 22, 2, 43, 0x0304
	if len(b) < 5+4+2+32+1 || b[0] != handshake || b[5] != serverHello {
		return false
	}
	b = b[5+4+2+32:]
	session := int(b[0])
	if len(b) < 1+session+2+1+2 {
		return false
	}
	b = b[1+session+2+1:]
	extensions := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if len(b) > extensions {
		b = b[:extensions]
	}
	for len(b) >= 4 {
		kind, length := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		b = b[4:]
		if length > len(b) {
			return false
		}
		if kind == supportedVersions && length == 2 {
			return binary.BigEndian.Uint16(b) == tls13
		}
		b = b[length:]
	}
	return false
}

// Stop ends the capture. It reports an error where packets were not kept, since
// then "not seen" proves nothing.
func (c *Capture) Stop() error {
	close(c.stop)
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	stats, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil && stats.Drops > 0 {
		c.lost = errors.Join(c.lost, fmt.Errorf("capture: the kernel dropped %d packets", stats.Drops))
	}
	unix.Close(c.fd)
	return c.lost
}
