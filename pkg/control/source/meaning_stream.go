package source

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
)

// streamRules checks a VirtualService's rules for connections.
func (m meaning) streamRules(s *networkingapi.VirtualService) {
	for i, r := range s.Tls {
		at := fmt.Sprintf("spec.tls[%d]", i)
		if len(r.GetMatch()) == 0 {
			m.fail(at+".match", "a TLS rule needs a match with sniHosts")
		}
		for j, c := range r.GetMatch() {
			path := fmt.Sprintf("%s.match[%d]", at, j)
			if len(c.GetSniHosts()) == 0 {
				m.fail(path+".sniHosts", "a TLS match needs at least one SNI host")
			}
			for k, host := range c.GetSniHosts() {
				if !within(host, s.Hosts) {
					m.fail(fmt.Sprintf("%s.sniHosts[%d]", path, k), "%q is not within the hosts of this VirtualService: %s", host, strings.Join(s.Hosts, ", "))
				}
			}
			m.streamMatch(path, c.GetPort(), c.GetDestinationSubnets())
		}
		m.streamRoute(at+".route", r.GetRoute())
	}
	for i, r := range s.Tcp {
		at := fmt.Sprintf("spec.tcp[%d]", i)
		for j, c := range r.GetMatch() {
			m.streamMatch(fmt.Sprintf("%s.match[%d]", at, j), c.GetPort(), c.GetDestinationSubnets())
		}
		m.streamRoute(at+".route", r.GetRoute())
	}
}

// within tells whether a server name is one of hosts, or within a wildcard of them.
func within(name string, hosts []string) bool {
	return slices.ContainsFunc(hosts, func(h string) bool {
		suffix, wildcard := strings.CutPrefix(h, "*")
		return name == h || wildcard && strings.HasSuffix(strings.TrimPrefix(name, "*"), suffix)
	})
}

func (m meaning) streamMatch(at string, port uint32, subnets []string) {
	if port != 0 {
		m.port(at+".port", port)
	}
	for i, s := range subnets {
		if _, err := netip.ParsePrefix(s); err != nil {
			if _, err := netip.ParseAddr(s); err != nil {
				m.fail(fmt.Sprintf("%s.destinationSubnets[%d]", at, i), "%q is neither an IP address nor a block of them", s)
			}
		}
	}
}

func (m meaning) streamRoute(at string, route []*networkingapi.RouteDestination) {
	if len(route) == 0 {
		m.fail(at, "a rule for connections needs a route")
	}
	total := int64(0)
	for i, d := range route {
		path := fmt.Sprintf("%s[%d]", at, i)
		m.destination(path+".destination", d.GetDestination())
		if d.GetWeight() < 0 {
			m.fail(path+".weight", "%d is negative", d.GetWeight())
		}
		total += int64(max(d.GetWeight(), 0))
	}
	if len(route) > 1 && total == 0 {
		m.fail(at, "the weights add up to 0: no destination would be chosen")
	}
}
