package redirect

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// older makes a connection from one pod to another that stays, before anyone captures.
func older(t *testing.T, n *node, from, to *podNS, network, address string) net.Conn {
	t.Helper()
	var l net.Listener
	if err := to.ns.Do(func() (err error) { l, err = net.Listen(network, net.JoinHostPort(address, "0")); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	dst := addrPort(l.Addr()).Addr()
	if dst.IsUnspecified() {
		dst = to.ip4 // an IPv6 socket with an IPv4 peer
	}
	var c net.Conn
	if err := from.ns.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", netip.AddrPortFrom(dst, addrPort(l.Addr()).Port()).String(), 3*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return c
}

func TestOlderConnectionsOfEachFamilyAreReset(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	conns := map[string]net.Conn{
		"IPv4": older(t, n, a, b, "tcp4", b.ip4.String()), "IPv6": older(t, n, a, b, "tcp6", b.ip6.String()), "IPv4 on IPv6": older(t, n, a, b, "tcp", "::"),
	}
	n.enrol(b)
	got, err := b.pod.DestroySockets(t.Context(), func(_, remote netip.AddrPort) bool { return remote.Addr() == a.ip4 || remote.Addr() == a.ip6 })
	if err != nil || got != len(conns) {
		t.Errorf("%d reset, %v", got, err)
	}
	for name, c := range conns {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A connection that ends just before it is to be reset takes nothing with it: by its
// addresses the agent's listener is meant then.
func TestResettingAnEndedConnectionSparesTheListener(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	c := older(t, n, a, b, "tcp4", b.ip4.String())
	n.enrol(b)
	carry(b)
	n.app(b, 8080)
	var ended []*netlink.Socket
	if err := b.ns.Do(func() error {
		sockets, err := netlink.SocketDiagTCP(unix.AF_INET)
		for _, s := range sockets {
			if s.State == netlink.TCP_ESTABLISHED && socketEnd(s.ID.Destination, 0).Addr() == a.ip4 {
				ended = append(ended, s)
			}
		}
		return err
	}); err != nil || len(ended) != 1 {
		t.Fatalf("%v %v", ended, err)
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
	eventually(t, "it has ended", func() bool {
		live := 1
		_ = b.ns.Do(func() error {
			sockets, err := netlink.SocketDiagTCP(unix.AF_INET)
			live = 0
			for _, s := range sockets {
				if s.ID.DestinationPort == ended[0].ID.DestinationPort {
					live++
				}
			}
			return err
		})
		return live == 0
	})
	if err := b.ns.Do(func() error { return destroy(ended[0]) }); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESTALE) {
		t.Errorf("%v", err)
	}
	line, _, _, err := ask(a, netip.AddrPortFrom(b.ip4, 8080))
	if err != nil || line != a.ip4.String() {
		t.Errorf("the listener is gone: %q %v", line, err)
	}
}
