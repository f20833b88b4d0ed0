package translate

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

func entries(hosts ...string) string {
	var text strings.Builder
	text.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {fairlead: 'autoAllocate: {ipv4: 10.9.9.0/24, ipv6: \"fd00:9::/64\"}'}\n")
	for i, h := range hosts {
		fmt.Fprintf(&text, "---\n{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e%d}, spec: {hosts: [%s], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}}\n", i, h)
	}
	return text.String()
}

// allocated is the first address of each host.
func allocated(t *testing.T, text string) map[string]netip.Addr {
	t.Helper()
	out := map[string]netip.Addr{}
	taken := map[netip.Addr]string{}
	v4, v6 := netip.MustParsePrefix("10.9.9.0/24"), netip.MustParsePrefix("fd00:9::/64")
	for _, a := range run(t, []byte(text)).Addresses {
		s := a.GetService()
		for i, na := range s.GetAddresses() {
			addr, _ := netip.AddrFromSlice(na.Address)
			if other, twice := taken[addr]; twice {
				t.Errorf("%s and %s have %s", other, s.Hostname, addr)
			}
			taken[addr] = s.Hostname
			if !v4.Contains(addr) && !v6.Contains(addr) {
				t.Errorf("%s is in no range", addr)
			}
			if i == 0 {
				out[s.Hostname] = addr
			}
		}
	}
	return out
}

func TestAddressesFollowFromTheHost(t *testing.T) {
	one := allocated(t, entries("a.example.com", "b.example.com"))
	if len(one) != 2 {
		t.Fatalf("%v", one)
	}
	two := allocated(t, entries("c.example.com", "b.example.com", "a.example.com"))
	for host, addr := range one {
		if two[host] != addr {
			t.Errorf("%s moved from %s to %s when another host came", host, addr, two[host])
		}
	}
}

func TestRangeIsUsedUpAndNoMore(t *testing.T) {
	var hosts []string
	for i := range 300 {
		hosts = append(hosts, fmt.Sprintf("h%03d.example.com", i))
	}
	text := entries(hosts...)
	if got := allocated(t, text); len(got) != 254 {
		t.Errorf("%d hosts have an address of a range of 254", len(got))
	}
	without := 0
	out, err := Translate(source.Parse([]source.File{{Name: "in.yaml", Data: []byte(text)}}, nil), Options{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range out.Status {
		for _, c := range s.Conditions {
			if c.Reason == "NoAddressLeft" {
				without++
			}
		}
	}
	if without != 46 {
		t.Errorf("%d ServiceEntries were told that no address is left, want 46", without)
	}
}
