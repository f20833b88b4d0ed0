package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Protocol is a transport that rules are made for.
type Protocol string

// The transports of service ports that the lab serves.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Service is one port of one service address, and who answers there.
type Service struct {
	Name      string // for people who read the rules
	Protocol  Protocol
	Address   netip.AddrPort
	Endpoints []netip.AddrPort
	// Sticky sends a client always to the same endpoint, as long as the endpoints
	// are the same.
	Sticky bool
}

// table is one per node's namespace.
const table = "inet fairlead_lab"

// Ruleset is an nftables script that replaces the node's rules by those for
// services. pods are the node's own: what comes back to its sender needs the
// node's address on the way. ranges hold service addresses only: one that no
// service has is refused at once.
func Ruleset(services []Service, pods []netip.Addr, ranges []netip.Prefix) string {
	services = slices.Clone(services)
	slices.SortFunc(services, func(a, b Service) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Protocol, b.Protocol))
	})
	var b strings.Builder
	fmt.Fprintf(&b, "table %s\ndelete table %s\ntable %s {\n", table, table, table)
	for _, v6 := range []bool{false, true} {
		family(&b, v6, services, pods)
	}
	chains(&b)
	unserved(&b, ranges)
	b.WriteString("}\n")
	return b.String()
}

func family(b *strings.Builder, v6 bool, services []Service, pods []netip.Addr) {
	ip, addrType := "ip", "ipv4_addr"
	if v6 {
		ip, addrType = "ip6", "ipv6_addr"
	}
	var served, refused []string
	for _, s := range services {
		if s.Address.Addr().Is6() != v6 {
			continue
		}
		key := fmt.Sprintf("%s . %s . %d", s.Address.Addr(), s.Protocol, s.Address.Port())
		if len(s.Endpoints) == 0 {
			refused = append(refused, key)
			continue
		}
		chain := fmt.Sprintf("%s_%d", ip, len(served))
		fmt.Fprintf(b, "  chain %s { # %s\n    %s\n  }\n", chain, s.Name, balance(ip, s))
		served = append(served, key+" : goto "+chain)
	}
	fmt.Fprintf(b, "  map services_%s {\n    type %s . inet_proto . inet_service : verdict\n%s  }\n", ip, addrType, elements(served))
	fmt.Fprintf(b, "  set refused_%s {\n    type %s . inet_proto . inet_service\n%s  }\n", ip, addrType, elements(refused))
	var pairs []string
	for _, p := range pods {
		if p.Is6() == v6 {
			pairs = append(pairs, fmt.Sprintf("%s . %s", p, p))
		}
	}
	slices.Sort(pairs)
	fmt.Fprintf(b, "  set hairpin_%s {\n    type %s . %s\n%s  }\n", ip, addrType, addrType, elements(pairs))
}

// balance picks an endpoint: by chance, or by who asks.
func balance(ip string, s Service) string {
	if len(s.Endpoints) == 1 {
		return fmt.Sprintf("meta l4proto %s dnat %s to %s", s.Protocol, ip, s.Endpoints[0])
	}
	pick := "numgen random"
	if s.Sticky {
		pick = "jhash " + ip + " saddr"
	}
	ends := make([]string, len(s.Endpoints))
	for i, e := range s.Endpoints {
		ends[i] = fmt.Sprintf("%d : %s . %d", i, e.Addr(), e.Port())
	}
	return fmt.Sprintf("meta l4proto %s dnat %s addr . port to %s mod %d map { %s }", s.Protocol, ip, pick, len(ends), strings.Join(ends, ", "))
}

func elements(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return "    elements = {\n      " + strings.Join(list, ",\n      ") + "\n    }\n"
}

// chains hook the maps into the ways a packet takes: from pods and other nodes,
// and from the node itself.
func chains(b *strings.Builder) {
	for _, hook := range []struct{ name, hook, refuse string }{
		{"from_pods", "prerouting", "dstnat - 10"},
		{"from_node", "output", "-110"},
	} {
		fmt.Fprintf(b, `  chain refuse_%[1]s {
    type filter hook %[2]s priority %[3]s;
    ip daddr . meta l4proto . th dport @refused_ip goto refuse
    ip6 daddr . meta l4proto . th dport @refused_ip6 goto refuse
  }
  chain %[1]s {
    type nat hook %[2]s priority -100;
    ip daddr . meta l4proto . th dport vmap @services_ip
    ip6 daddr . meta l4proto . th dport vmap @services_ip6
  }
`, hook.name, hook.hook, hook.refuse)
	}
	b.WriteString(`  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject
  }
  chain to_itself {
    type nat hook postrouting priority srcnat;
    ct status dnat ip saddr . ip daddr @hairpin_ip masquerade
    ct status dnat ip6 saddr . ip6 daddr @hairpin_ip6 masquerade
  }
`)
}

// unserved refuses what is still for a service's address after the maps.
func unserved(b *strings.Builder, ranges []netip.Prefix) {
	for _, hook := range []string{"forward", "output"} {
		fmt.Fprintf(b, "  chain unserved_%s {\n    type filter hook %s priority filter;\n", hook, hook)
		for _, r := range ranges {
			ip := "ip"
			if r.Addr().Is6() {
				ip = "ip6"
			}
			fmt.Fprintf(b, "    %s daddr %s goto refuse\n", ip, r)
		}
		b.WriteString("  }\n")
	}
}
