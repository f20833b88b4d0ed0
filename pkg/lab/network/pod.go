package network

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// Pod is a pod's namespace and its veth to the node.
type Pod struct {
	space *space
	host  *Host
	veth  string
	addrs []netip.Addr
}

// AddPod makes a pod's namespace on the node. device is the name of the veth's
// end on the node. Safe for concurrent use.
func (h *Host) AddPod(name, device string, addrs []netip.Addr) (*Pod, error) {
	s, err := newSpace(name, podSettings)
	if err != nil {
		return nil, err
	}
	p := &Pod{space: s, host: h, veth: device, addrs: addrs}
	if err := p.connect(); err != nil {
		p.Close()
		return nil, fmt.Errorf("connect %s to its node: %w", name, err)
	}
	return p, nil
}

func (p *Pod) connect() error {
	mac := podMAC(p.addrs[0])
	if err := p.host.space.pair(p.veth, p.space, uplink, mac, mtu); err != nil {
		return err
	}
	port, err := p.host.space.enslave(p.veth, p.host.bridge)
	if err != nil {
		return err
	}
	// The bridge would forget a silent pod and flood what is for it to all.
	err = p.host.space.link.NeighSet(&netlink.Neigh{
		LinkIndex: port.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, State: netlink.NUD_NOARP, HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("record the pod on the bridge: %w", err)
	}
	eth0, err := p.space.link.LinkByName(uplink)
	if err != nil {
		return err
	}
	if err := p.space.link.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("set %s up: %w", uplink, err)
	}
	for _, a := range p.addrs {
		if err := p.space.address(eth0, hostPrefix(a)); err != nil {
			return err
		}
		if err := p.host.space.neighbour(p.host.bridge, a, mac); err != nil {
			return err
		}
		err := p.host.space.link.RouteReplace(&netlink.Route{LinkIndex: p.host.bridge.Attrs().Index, Dst: ipNet(hostPrefix(a)), Scope: netlink.SCOPE_LINK})
		if err != nil {
			return fmt.Errorf("route %s to the pod: %w", a, err)
		}
	}
	for _, gw := range p.host.gateways {
		if err := p.gateway(eth0, gw); err != nil {
			return err
		}
	}
	return nil
}

// gateway makes the node the way to everywhere.
func (p *Pod) gateway(eth0 netlink.Link, gw netip.Addr) error {
	if err := p.space.neighbour(eth0, gw, podBridgeMAC); err != nil {
		return err
	}
	index := eth0.Attrs().Index
	err := p.space.link.RouteReplace(&netlink.Route{LinkIndex: index, Dst: ipNet(hostPrefix(gw)), Scope: netlink.SCOPE_LINK})
	if err != nil {
		return fmt.Errorf("route to the gateway %s: %w", gw, err)
	}
	everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if gw.Is6() {
		everywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if err := p.space.link.RouteReplace(&netlink.Route{LinkIndex: index, Dst: ipNet(everywhere), Gw: gw.AsSlice()}); err != nil {
		return fmt.Errorf("route by the gateway %s: %w", gw, err)
	}
	return nil
}

// NS is the pod's namespace.
func (p *Pod) NS() *netns.NS { return p.space.ns }

// HostInterface is the name of the veth's end on the node.
func (p *Pod) HostInterface() string { return p.veth }

// Abandon takes the namespace's name away and leaves the devices to the kernel,
// which removes those of many namespaces together: for when the node goes as well.
func (p *Pod) Abandon() { p.space.close() }

// Close removes the pod's devices and namespace.
func (p *Pod) Close() {
	if p.host.bridge != nil {
		for _, a := range p.addrs {
			index := p.host.bridge.Attrs().Index
			_ = p.host.space.link.NeighDel(&netlink.Neigh{LinkIndex: index, IP: a.AsSlice()})
			_ = p.host.space.link.RouteDel(&netlink.Route{LinkIndex: index, Dst: ipNet(hostPrefix(a)), Scope: netlink.SCOPE_LINK})
		}
	}
	// A process that lingers keeps the namespace, not the wire.
	if l, err := p.host.space.link.LinkByName(p.veth); err == nil {
		_ = p.host.space.link.LinkDel(l)
	}
	p.space.close()
}

// podMAC is a local address made of the pod's own, unique on its bridge.
func podMAC(a netip.Addr) net.HardwareAddr {
	b := a.AsSlice()
	return append(net.HardwareAddr{0x0a, 0x58}, b[len(b)-4:]...)
}
