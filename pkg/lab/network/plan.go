package network

import (
	"fmt"
	"hash/fnv"
	"net/netip"
)

// The address plan of every cluster. Nodes get /20s and /64s for their pods, so
// that 500 pods on a node, each with a new address when it comes back, fit well.
var (
	fabric4  = netip.MustParsePrefix("172.18.0.0/16")
	fabric6  = netip.MustParsePrefix("fd00:172:18::/64")
	pods4    = netip.MustParsePrefix("10.240.0.0/12")
	pods6    = netip.MustParsePrefix("fd00:10:240::/48")
	service4 = netip.MustParsePrefix("10.96.0.0/12")
	service6 = netip.MustParsePrefix("fd00:10:96::/112")
)

// MaxNodes is how many nodes the plan has room for.
const MaxNodes = 256

// ServicePrefixes are the ranges that service addresses come from.
func (f Family) ServicePrefixes() []netip.Prefix { return f.choose(service4, service6) }

// ControlPlane is the control plane's address on the fabric.
func (f Family) ControlPlane() []netip.Prefix { return f.onFabric(2) }

// Node is the address of the i-th node on the fabric.
func (f Family) Node(i int) []netip.Prefix { return f.onFabric(10 + i) }

// Pods are the ranges for the pods of the i-th node.
func (f Family) Pods(i int) []netip.Prefix {
	v4, v6 := pods4.Addr().As4(), pods6.Addr().As16()
	v4[1] += byte(i >> 4)
	v4[2] = byte(i << 4)
	v6[6], v6[7] = byte(i>>8), byte(i)
	return f.choose(netip.PrefixFrom(netip.AddrFrom4(v4), 20), netip.PrefixFrom(netip.AddrFrom16(v6), 64))
}

func (f Family) onFabric(host int) []netip.Prefix {
	return f.choose(
		netip.PrefixFrom(nth(fabric4, uint32(host)), fabric4.Bits()),
		netip.PrefixFrom(nth(fabric6, uint32(host)), fabric6.Bits()))
}

func (f Family) choose(v4, v6 netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	if f&IPv4 != 0 {
		out = append(out, v4)
	}
	if f&IPv6 != 0 {
		out = append(out, v6)
	}
	return out
}

// Gateway is the node's own address in a range for its pods: the first.
func Gateway(pods netip.Prefix) netip.Addr { return nth(pods, 1) }

// nth is the n-th address of a range.
func nth(p netip.Prefix, n uint32) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := len(b) - 1; n > 0; i-- {
		n += uint32(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// size is how many hosts a range has room for, at most 65534.
func size(p netip.Prefix) uint32 {
	bits := min(p.Addr().BitLen()-p.Bits(), 16)
	return 1<<bits - 2
}

// Pool hands out the addresses of a range. An address that was given back is not
// used again before the others had their turn: a pod that comes back has a new
// one. Not safe for concurrent use.
type Pool struct {
	prefix netip.Prefix
	used   map[netip.Addr]bool
	next   uint32
}

// NewPool makes a pool over the range, without its first address (the gateway).
func NewPool(prefix netip.Prefix) *Pool {
	return &Pool{prefix: prefix, used: map[netip.Addr]bool{}, next: 2}
}

// Take returns the next free address.
func (p *Pool) Take() (netip.Addr, error) {
	n := size(p.prefix)
	for range n {
		if p.next < 2 || p.next > n {
			p.next = 2
		}
		a := nth(p.prefix, p.next)
		p.next++
		if !p.used[a] {
			p.used[a] = true
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all addresses of %s are taken", p.prefix)
}

// Reserve takes one address; false if it is taken or of another range.
func (p *Pool) Reserve(a netip.Addr) bool {
	if !p.prefix.Contains(a) || p.used[a] {
		return false
	}
	p.used[a] = true
	return true
}

// ByName takes the address that a name leads to, so that a service keeps its
// address when the lab is started again.
func (p *Pool) ByName(name string) (netip.Addr, error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	p.next = 2 + h.Sum32()%(size(p.prefix)-2)
	return p.Take()
}

// Give returns an address to the pool.
func (p *Pool) Give(a netip.Addr) { delete(p.used, a) }
