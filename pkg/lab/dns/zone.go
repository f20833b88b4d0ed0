package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Domain is the cluster's domain.
const Domain = "cluster.local"

// Zone is all names of a cluster. It is not changed once it is served.
type Zone struct {
	addrs     map[string][]netip.Addr
	aliases   map[string]string
	services  map[string][]dns.SRV
	wildcards map[string][]netip.Addr
}

// NewZone makes a zone without names.
func NewZone() *Zone {
	return &Zone{
		addrs: map[string][]netip.Addr{}, aliases: map[string]string{},
		services: map[string][]dns.SRV{}, wildcards: map[string][]netip.Addr{},
	}
}

// Address adds addresses to a name; none are fine, then the name exists and has
// no address. A name that begins with "*." stands for all below it.
func (z *Zone) Address(name string, addrs ...netip.Addr) {
	name = fqdn(name)
	if below, ok := strings.CutPrefix(name, "*."); ok {
		z.wildcards[below] = append(z.wildcards[below], addrs...)
		return
	}
	z.addrs[name] = append(z.addrs[name], addrs...)
}

// Alias makes a name stand for another.
func (z *Zone) Alias(name, target string) { z.aliases[fqdn(name)] = fqdn(target) }

// Service adds an SRV record: a named port of a target.
func (z *Zone) Service(name string, port uint16, target string) {
	name = fqdn(name)
	z.services[name] = append(z.services[name], dns.SRV{Port: port, Weight: 100, Target: fqdn(target)})
}

func fqdn(name string) string { return strings.ToLower(dns.Fqdn(name)) }

// answerTTL is short because pods come and go.
const answerTTL = 5

// maxAliases bounds a chain of aliases, which may be a circle.
const maxAliases = 8

// answer fills a reply to one question.
func (z *Zone) answer(q dns.Question, m *dns.Msg) {
	name := strings.ToLower(q.Name)
	for range maxAliases {
		target, ok := z.aliases[name]
		if !ok {
			break
		}
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: target})
		if q.Qtype == dns.TypeCNAME {
			return
		}
		name = target
	}
	addrs, known := z.lookup(name)
	for _, a := range addrs {
		switch {
		case a.Is4() && q.Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()})
		case a.Is6() && q.Qtype == dns.TypeAAAA:
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	if srv, ok := z.services[name]; ok {
		known = true
		if q.Qtype == dns.TypeSRV {
			for _, s := range srv {
				s.Hdr = header(name, dns.TypeSRV)
				m.Answer = append(m.Answer, &s)
			}
		}
	}
	if len(m.Answer) > 0 {
		return
	}
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	m.Ns = append(m.Ns, &dns.SOA{
		Hdr: header(fqdn(Domain), dns.TypeSOA), Ns: fqdn("ns.dns." + Domain), Mbox: fqdn("hostmaster." + Domain),
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: answerTTL,
	})
}

// lookup also says whether the name exists: itself, as one below it, or by a
// wildcard.
func (z *Zone) lookup(name string) ([]netip.Addr, bool) {
	if addrs, ok := z.addrs[name]; ok {
		return addrs, true
	}
	for below := name; ; {
		i := strings.IndexByte(below, '.')
		if i < 0 || i+1 == len(below) {
			return nil, false
		}
		below = below[i+1:]
		if addrs, ok := z.wildcards[below]; ok {
			return addrs, true
		}
	}
}

func header(name string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: answerTTL}
}
