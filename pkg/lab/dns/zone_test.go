package dns

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func testZone() *Zone {
	z := NewZone()
	z.Address("web.shop.svc.cluster.local", netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00::1"))
	z.Address("v4only.shop.svc.cluster.local", netip.MustParseAddr("10.96.0.2"))
	z.Address("nobody.shop.svc.cluster.local")
	z.Address("*.wild.example.com", netip.MustParseAddr("240.0.0.1"))
	z.Address("own.wild.example.com", netip.MustParseAddr("240.0.0.2"))
	z.Alias("alias.shop.svc.cluster.local", "Web.shop.svc.cluster.local")
	z.Alias("a.circle", "b.circle")
	z.Alias("b.circle", "a.circle")
	z.Service("_http._tcp.web.shop.svc.cluster.local", 80, "web.shop.svc.cluster.local")
	return z
}

func TestAnswers(t *testing.T) {
	for _, tc := range []struct {
		name  string
		qtype uint16
		want  string // rcode, then the answers' data
	}{
		{"web.shop.svc.cluster.local.", dns.TypeA, "NOERROR 10.96.0.1"},
		{"WEB.Shop.svc.cluster.local.", dns.TypeAAAA, "NOERROR fd00::1"},
		{"v4only.shop.svc.cluster.local.", dns.TypeAAAA, "NOERROR"},
		{"nobody.shop.svc.cluster.local.", dns.TypeA, "NOERROR"},
		{"absent.shop.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"example.org.", dns.TypeA, "NXDOMAIN"},
		{".", dns.TypeNS, "NXDOMAIN"},
		{"x.wild.example.com.", dns.TypeA, "NOERROR 240.0.0.1"},
		{"x.y.wild.example.com.", dns.TypeA, "NOERROR 240.0.0.1"},
		{"own.wild.example.com.", dns.TypeA, "NOERROR 240.0.0.2"},
		{"wild.example.com.", dns.TypeA, "NXDOMAIN"},
		{"alias.shop.svc.cluster.local.", dns.TypeA, "NOERROR web.shop.svc.cluster.local. 10.96.0.1"},
		{"alias.shop.svc.cluster.local.", dns.TypeCNAME, "NOERROR web.shop.svc.cluster.local."},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, "NOERROR 0 100 80 web.shop.svc.cluster.local."},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeA, "NOERROR"},
		{"web.shop.svc.cluster.local.", dns.TypeTXT, "NOERROR"},
	} {
		q := new(dns.Msg).SetQuestion(tc.name, tc.qtype)
		m := reply(testZone(), q, true)
		got := dns.RcodeToString[m.Rcode]
		for _, rr := range m.Answer {
			got += " " + strings.TrimPrefix(rr.String(), rr.Header().String())
		}
		if got != tc.want {
			t.Errorf("%s %s: %q, want %q", dns.TypeToString[tc.qtype], tc.name, got, tc.want)
		}
		if len(m.Answer) == 0 && len(m.Ns) != 1 {
			t.Errorf("%s %s: nothing, and no SOA that says for how long", dns.TypeToString[tc.qtype], tc.name)
		}
	}
}

func TestAliasesInACircleEnd(t *testing.T) {
	m := reply(testZone(), new(dns.Msg).SetQuestion("a.circle.", dns.TypeA), true)
	if len(m.Answer) > maxAliases {
		t.Errorf("%d answers", len(m.Answer))
	}
}

func TestALongAnswerIsTruncatedOverUDPOnly(t *testing.T) {
	z := NewZone()
	for i := range 200 {
		z.Address("many.", netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", i)))
	}
	q := new(dns.Msg).SetQuestion("many.", dns.TypeA)
	if m := reply(z, q, true); !m.Truncated || m.Len() > dns.MinMsgSize {
		t.Errorf("UDP: truncated %v, %d bytes", m.Truncated, m.Len())
	}
	if m := reply(z, q, false); m.Truncated || len(m.Answer) != 200 {
		t.Errorf("TCP: truncated %v, %d answers", m.Truncated, len(m.Answer))
	}
	q.SetEdns0(4096, false)
	if m := reply(z, q, true); m.Truncated || len(m.Answer) != 200 {
		t.Errorf("UDP with EDNS: truncated %v, %d answers", m.Truncated, len(m.Answer))
	}
}

func TestOddQueries(t *testing.T) {
	none := new(dns.Msg)
	if m := reply(testZone(), none, true); m.Rcode != dns.RcodeFormatError {
		t.Errorf("no question: %s", dns.RcodeToString[m.Rcode])
	}
	update := new(dns.Msg).SetUpdate("cluster.local.")
	if m := reply(testZone(), update, true); m.Rcode != dns.RcodeNotImplemented {
		t.Errorf("update: %s", dns.RcodeToString[m.Rcode])
	}
}
