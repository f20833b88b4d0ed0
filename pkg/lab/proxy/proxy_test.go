package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

func TestKernelTakesTheRules(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("nftables needs root")
		}
		t.Skip("nftables needs root")
	}
	name := fmt.Sprintf("proxytest-%d", os.Getpid())
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close(); _ = netns.Delete(name) })
	at := netip.MustParseAddrPort
	services := []Service{
		{Name: "default/one", Protocol: TCP, Address: at("10.96.0.1:80"), Endpoints: []netip.AddrPort{at("10.240.0.2:8080")}},
		{Name: "default/two", Protocol: TCP, Address: at("10.96.0.2:80"), Endpoints: []netip.AddrPort{at("10.240.0.2:8080"), at("10.240.0.3:8081")}},
		{Name: "default/sticky", Protocol: UDP, Address: at("10.96.0.2:80"), Endpoints: []netip.AddrPort{at("10.240.0.2:8080"), at("10.240.0.3:8081")}, Sticky: true},
		{Name: "default/none", Protocol: TCP, Address: at("10.96.0.4:80")},
		{Name: "default/six", Protocol: TCP, Address: at("[fd00:10:96::1]:80"), Endpoints: []netip.AddrPort{at("[fd00::2]:80"), at("[fd00::3]:80")}},
		{Name: "default/six1", Protocol: TCP, Address: at("[fd00:10:96::2]:80"), Endpoints: []netip.AddrPort{at("[fd00::2]:80")}},
	}
	pods := []netip.Addr{netip.MustParseAddr("10.240.0.2"), netip.MustParseAddr("fd00::2")}
	ranges := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:10:96::/112")}
	for range 2 { // the second time it replaces the first
		if err := Apply(t.Context(), ns, Ruleset(services, pods, ranges)); err != nil {
			t.Fatalf("%v\n%s", err, Ruleset(services, pods, ranges))
		}
	}
	if err := Apply(t.Context(), ns, Ruleset(nil, nil, nil)); err != nil {
		t.Fatal(err)
	}
}
