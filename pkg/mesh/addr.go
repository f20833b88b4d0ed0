package mesh

import "net/netip"

// NetworkAddr is an address within a network. The same address may exist in
// several networks, so no table is keyed by an address alone.
type NetworkAddr struct {
	// Network is the network's id; empty is the default network.
	Network string
	// Addr is never IPv4-mapped: use [NewNetworkAddr].
	Addr netip.Addr
}

// NewNetworkAddr returns addr in network, IPv4-mapped addresses unmapped and
// zones dropped.
func NewNetworkAddr(network string, addr netip.Addr) NetworkAddr {
	return NetworkAddr{Network: network, Addr: addr.Unmap().WithZone("")}
}

// String is the wire's form: "network/address".
func (a NetworkAddr) String() string { return a.Network + "/" + a.Addr.String() }

// NetworkPrefix is a range of addresses within a network.
type NetworkPrefix struct {
	Network string
	Prefix  netip.Prefix
}
