package translate

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// allocate gives virtual addresses to the hosts of ServiceEntries that have
// none: a number made from namespace and host, the same in both families. Where
// two hosts get the same number, the later by name takes the next free one, so
// the addresses depend on the set of hosts and not on the order of arrival.
func (w *world) allocate(services []*service) {
	v4, v6, err := w.Settings.AutoAllocate.Prefixes()
	if err != nil {
		return // source refuses such settings
	}
	entries := map[string]*networkingv1.ServiceEntry{}
	for _, e := range w.ServiceEntries {
		entries[e.Namespace+"/"+e.Name] = e
	}
	sorted := slices.SortedFunc(slices.Values(services), func(a, b *service) int { return cmp.Compare(a.key, b.key) })
	used := map[netip.Addr]bool{}
	for _, s := range sorted {
		for _, a := range s.wire.Addresses {
			if addr, ok := netip.AddrFromSlice(a.Address); ok {
				used[addr] = true
			}
		}
	}
	room := uint32(1)<<(32-v4.Bits()) - 2 // without the range's first and last
	numbers := map[uint32]bool{}
	for _, s := range sorted {
		e := entries[s.wire.Namespace+"/"+s.wire.Name]
		if !allocates(e, s.wire.Hostname) {
			continue
		}
		if uint32(len(numbers)+len(used)) >= room {
			w.condition(entryObject(e), status.Condition{Type: status.Served, Status: "False", Reason: "NoAddressLeft",
				Message: "the range " + v4.String() + " has no address left for " + s.wire.Hostname})
			continue
		}
		sum := sha256.Sum256([]byte(s.key))
		n := binary.BigEndian.Uint32(sum[:]) % room
		for numbers[n] || used[offset(v4, n+1)] || used[offset(v6, n+1)] {
			n = (n + 1) % room
		}
		numbers[n] = true
		st := w.status(entryObject(e))
		for _, a := range []netip.Addr{offset(v4, n+1), offset(v6, n+1)} {
			s.wire.Addresses = append(s.wire.Addresses, w.networkAddress(a))
			st.Addresses = append(st.Addresses, status.Address{Host: s.wire.Hostname, Value: a.String()})
		}
	}
}

// offset is the nth address of a range.
func offset(p netip.Prefix, n uint32) netip.Addr {
	b := p.Addr().AsSlice()
	end := b[len(b)-4:]
	binary.BigEndian.PutUint32(end, binary.BigEndian.Uint32(end)+n)
	a, _ := netip.AddrFromSlice(b)
	return a
}
