package network

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

const (
	uplink    = "eth0"
	podBridge = "cni0"
	// mtu is that of the fabric; tunnels make no packets of their own on top.
	mtu = 1500
)

// podBridgeMAC is the same on every node, so that pods know their gateway's
// without asking.
var podBridgeMAC = net.HardwareAddr{0x0a, 0x58, 0, 0, 0, 1}

// Fabric is what joins the hosts of a cluster: a namespace with a bridge.
type Fabric struct {
	space  *space
	bridge netlink.Link
	ports  int
}

// NewFabric makes the fabric's namespace.
func NewFabric(name string) (*Fabric, error) {
	s, err := newSpace(name, hostSettings)
	if err != nil {
		return nil, err
	}
	br, err := s.bridge("fabric0", nil)
	if err != nil {
		s.close()
		return nil, err
	}
	return &Fabric{space: s, bridge: br}, nil
}

// NS is the fabric's namespace.
func (f *Fabric) NS() *netns.NS { return f.space.ns }

// Close removes the fabric.
func (f *Fabric) Close() { f.space.close() }

// Host is a namespace with an uplink to the fabric: a node, or the control plane.
type Host struct {
	// Set by AddHost, then constant.
	space  *space
	uplink netlink.Link
	// Set by Bridge, before the first pod.
	bridge   netlink.Link
	gateways []netip.Addr
}

// AddHost makes a host. Not safe for concurrent use.
func (f *Fabric) AddHost(name string, addrs []netip.Prefix) (*Host, error) {
	s, err := newSpace(name, hostSettings)
	if err != nil {
		return nil, err
	}
	h := &Host{space: s}
	if err := h.connect(f, addrs); err != nil {
		s.close()
		return nil, fmt.Errorf("connect %s to the fabric: %w", name, err)
	}
	return h, nil
}

func (h *Host) connect(f *Fabric, addrs []netip.Prefix) error {
	port := fmt.Sprintf("port%d", f.ports)
	f.ports++
	if err := f.space.pair(port, h.space, uplink, nil, mtu); err != nil {
		return err
	}
	if _, err := f.space.enslave(port, f.bridge); err != nil {
		return err
	}
	l, err := h.space.link.LinkByName(uplink)
	if err != nil {
		return err
	}
	h.uplink = l
	for _, a := range addrs {
		if err := h.space.address(l, a); err != nil {
			return err
		}
	}
	return h.space.up(uplink)
}

// Bridge gives a node the bridge of its pods, with the node's address in each
// range. The range itself has no route there: every pod brings its own, so that
// an address nobody has is unreachable at once.
func (h *Host) Bridge(pods []netip.Prefix) error {
	br, err := h.space.bridge(podBridge, podBridgeMAC)
	if err != nil {
		return err
	}
	h.bridge = br
	for _, p := range pods {
		gw := Gateway(p)
		if err := h.space.address(br, hostPrefix(gw)); err != nil {
			return err
		}
		h.gateways = append(h.gateways, gw)
		err := h.space.link.RouteReplace(&netlink.Route{Dst: ipNet(p), Type: unix.RTN_UNREACHABLE})
		if err != nil {
			return fmt.Errorf("make %s unreachable but for pods: %w", p, err)
		}
	}
	return nil
}

// Services gives the ranges of service addresses a route, so that the node's own
// connections to them come as far as the rules that send them elsewhere.
func (h *Host) Services(ranges []netip.Prefix) error {
	for _, r := range ranges {
		err := h.space.link.RouteReplace(&netlink.Route{LinkIndex: h.uplink.Attrs().Index, Dst: ipNet(r), Scope: netlink.SCOPE_LINK})
		if err != nil {
			return fmt.Errorf("route %s to the rules for services: %w", r, err)
		}
	}
	return nil
}

// Route sends a range to another host of the fabric.
func (h *Host) Route(dst netip.Prefix, via netip.Addr) error {
	err := h.space.link.RouteReplace(&netlink.Route{LinkIndex: h.uplink.Attrs().Index, Dst: ipNet(dst), Gw: via.AsSlice()})
	if err != nil {
		return fmt.Errorf("route %s by %s: %w", dst, via, err)
	}
	return nil
}

// Gateways are the node's addresses on the pods' bridge.
func (h *Host) Gateways() []netip.Addr { return h.gateways }

// NS is the host's namespace.
func (h *Host) NS() *netns.NS { return h.space.ns }

// Close removes the host.
func (h *Host) Close() { h.space.close() }
