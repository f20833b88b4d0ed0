package redirect

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/redirect/bpfobj"
)

// kernelAddr is an address as the programs have it: 16 bytes, IPv4 mapped.
func kernelAddr(a netip.Addr) bpfobj.ConnectAddr {
	var out bpfobj.ConnectAddr
	b := a.As16()
	for i := range out.W {
		out.W[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return out
}

func fromKernel(a bpfobj.ConnectAddr) netip.Addr {
	var b [16]byte
	for i, w := range a.W {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrFrom16(b).Unmap()
}

func socketEnd(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}
