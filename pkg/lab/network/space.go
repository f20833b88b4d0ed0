package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// space is a namespace and a netlink socket inside it.
type space struct {
	name string
	ns   *netns.NS
	link *netlink.Handle
}

func newSpace(name string, settings []sysctl) (*space, error) {
	ns, err := netns.New(name)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%w: something of that name is left or running", err)
	}
	if err != nil {
		return nil, err
	}
	s := &space{name: name, ns: ns}
	err = ns.Do(func() (err error) {
		if err = apply(settings); err != nil {
			return err
		}
		s.link, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err == nil {
		err = s.up("lo")
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("prepare network namespace %s: %w", name, err)
	}
	return s, nil
}

func (s *space) close() {
	if s.link != nil {
		s.link.Close()
	}
	_ = s.ns.Close()
	_ = netns.Delete(s.name)
}

func (s *space) up(device string) error {
	l, err := s.link.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	if err := s.link.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", device, err)
	}
	return nil
}

// pair makes a veth from here to a device in another namespace.
func (s *space) pair(name string, peer *space, peerName string, peerMAC net.HardwareAddr, mtu int) error {
	f, err := os.Open(peer.ns.Path())
	if err != nil {
		return err
	}
	defer f.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerHardwareAddr: peerMAC, PeerNamespace: netlink.NsFd(int(f.Fd()))}
	if err := s.link.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth %s to %s in %s: %w", name, peerName, peer.name, err)
	}
	return nil
}

func (s *space) bridge(name string, mac net.HardwareAddr) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, mac
	if err := s.link.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("make bridge %s: %w", name, err)
	}
	if err := s.up(name); err != nil {
		return nil, err
	}
	return s.link.LinkByName(name)
}

// enslave puts a device on a bridge and sets it up.
func (s *space) enslave(name string, bridge netlink.Link) (netlink.Link, error) {
	l, err := s.link.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	if err := s.link.LinkSetMaster(l, bridge); err != nil {
		return nil, fmt.Errorf("put %s on its bridge: %w", name, err)
	}
	return l, s.link.LinkSetUp(l)
}

func (s *space) address(device netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := s.link.AddrAdd(device, a); err != nil {
		return fmt.Errorf("give %s the address %s: %w", device.Attrs().Name, p, err)
	}
	return nil
}

// neighbour records for good at which MAC an address is.
func (s *space) neighbour(device netlink.Link, a netip.Addr, mac net.HardwareAddr) error {
	err := s.link.NeighSet(&netlink.Neigh{
		LinkIndex: device.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("record neighbour %s: %w", a, err)
	}
	return nil
}

// Purge deletes the namespaces whose names begin with prefix: what a killed lab
// left. Devices, routes and nftables rules end with them.
func Purge(prefix string) error {
	names, err := netns.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			err = errors.Join(err, netns.Delete(name))
		}
	}
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
