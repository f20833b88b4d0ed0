package hbone

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Authority is where a CONNECT wants to go: an address, or a host name, and a port.
type Authority struct {
	// Addr is invalid where a host name is given.
	Addr netip.Addr
	Host string
	Port uint16
}

// ParseAuthority reads "1.2.3.4:80", "[fd00::1]:80" or "host.name:80".
func ParseAuthority(s string) (Authority, error) {
	bad := func(why string) (Authority, error) { return Authority{}, fmt.Errorf("authority %q: %s", s, why) }
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return bad("no port")
	}
	host, portText := s[:i], s[i+1:]
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || strconv.Itoa(int(port)) != portText {
		return bad("the port is no number from 1 to 65535")
	}
	a := Authority{Port: uint16(port)}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		if !ok || err != nil || !addr.Is6() || addr.Zone() != "" {
			return bad("no IPv6 address in brackets")
		}
		a.Addr = addr.Unmap()
		return a, nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if !addr.Is4() {
			return bad("an IPv6 address needs brackets")
		}
		a.Addr = addr
		return a, nil
	}
	if !validHost(host) {
		return bad("neither an address nor a host name")
	}
	a.Host = host
	return a, nil
}

func validHost(h string) bool {
	if h == "" || len(h) > 253 {
		return false
	}
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
			if digit := c >= '0' && c <= '9'; !letter && !digit && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// String is the form that ParseAuthority reads.
func (a Authority) String() string {
	if a.Addr.IsValid() {
		return netip.AddrPortFrom(a.Addr, a.Port).String()
	}
	return a.Host + ":" + strconv.Itoa(int(a.Port))
}
