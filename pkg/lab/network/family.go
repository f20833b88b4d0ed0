package network

import (
	"fmt"
	"net/netip"
)

// Family says which of the internet protocols a cluster speaks.
type Family uint8

// The families of a cluster; Dual is both, IPv4 first.
const (
	IPv4 Family = 1 << iota
	IPv6
	Dual = IPv4 | IPv6
)

// ParseFamily reads the value of a flag.
func ParseFamily(s string) (Family, error) {
	switch s {
	case "ipv4":
		return IPv4, nil
	case "ipv6":
		return IPv6, nil
	case "dual":
		return Dual, nil
	}
	return 0, fmt.Errorf("IP family %q: want ipv4, ipv6 or dual", s)
}

func (f Family) String() string {
	switch f {
	case IPv4:
		return "ipv4"
	case IPv6:
		return "ipv6"
	}
	return "dual"
}

// Has reports whether the cluster speaks the family of a.
func (f Family) Has(a netip.Addr) bool {
	if a.Unmap().Is4() {
		return f&IPv4 != 0
	}
	return f&IPv6 != 0
}
