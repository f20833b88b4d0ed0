package redirect

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ping sends an echo request and waits for the answer.
func ping(p *podNS, dst netip.Addr) error {
	return p.ns.Do(func() error {
		network, request, answer := "ip4:icmp", []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, byte(0)
		if dst.Is6() {
			network, request, answer = "ip6:ipv6-icmp", []byte{128, 0, 0, 0, 0, 0, 0, 0}, 129 // the kernel sums it
		}
		c, err := net.Dial(network, dst.String())
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Write(request); err != nil {
			return err
		}
		b := make([]byte, 64)
		for {
			n, _, err := c.(*net.IPConn).ReadFrom(b) // without a header of IP
			if err != nil {
				return err
			}
			if n > 0 && b[0] == answer {
				return nil
			}
		}
	})
}

// datagram sends one to an echo of the pod's and waits for it to come back.
func datagram(p *podNS, dst netip.AddrPort) error {
	return p.ns.Do(func() error {
		c, err := net.Dial("udp", dst.String())
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Write(make([]byte, 4000)); err != nil { // in fragments
			return err
		}
		_, err = c.Read(make([]byte, 8000))
		return err
	})
}

func (n *node) echoes(p *podNS, port int) {
	n.t.Helper()
	var l net.PacketConn
	if err := p.ns.Do(func() (err error) {
		l, err = net.ListenPacket("udp", fmt.Sprintf("[::]:%d", port))
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { l.Close() })
	go func() {
		b := make([]byte, 8000)
		for {
			k, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = l.WriteTo(b[:k], from)
		}
	}()
}

// With TCP alone allowed nothing else leaves a pod, in fragments or whole, of either family; but
// what IPv6 does not work without does, so that TCP finds its neighbours.
func TestTCPOnlyHoldsForBothFamilies(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	n.echoes(b, 9090)
	n.enrol(a)
	carry(a)
	for _, only := range []bool{false, true, false} {
		if err := a.pod.SetTCPOnly(only); err != nil {
			t.Fatal(err)
		}
		n.sh(fmt.Sprintf("for ns in %s-p2 %s-p3; do ip -n $ns neigh flush dev eth0; done", n.name, n.name))
		for _, dst := range []netip.Addr{b.ip4, b.ip6} {
			if line, _, _, err := ask(a, netip.AddrPortFrom(dst, 8080)); err != nil || line == "" {
				t.Errorf("TCP only %t: TCP to %s: %q, %v", only, dst, line, err)
			}
			for what, err := range map[string]error{"ping": ping(a, dst), "UDP": datagram(a, netip.AddrPortFrom(dst, 9090))} {
				if (err != nil) != only {
					t.Errorf("TCP only %t: %s to %s: %v", only, what, dst, err)
				}
			}
		}
	}
	if counted := count(a.pod.Verdicts(), "drop_other"); counted < 2 {
		t.Errorf("%d drops of other protocols are counted", counted)
	}
	// A report of a multicast listener has a header before ICMPv6's own.
	if err := a.pod.SetTCPOnly(true); err != nil {
		t.Fatal(err)
	}
	passed := n.verdict("guard", "pass_other")
	if err := a.ns.Do(func() error {
		c, err := net.ListenPacket("udp6", "[::]:0")
		if err != nil {
			return err
		}
		defer c.Close()
		device, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		raw, err := c.(*net.UDPConn).SyscallConn()
		if err != nil {
			return err
		}
		var joined error
		err = raw.Control(func(fd uintptr) {
			joined = unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: [16]byte{0xff, 0x05, 15: 0x77}, Interface: uint32(device.Index)})
		})
		if err == nil {
			err = joined
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the listener's report passes", func() bool { return n.verdict("guard", "pass_other") > passed })
}
