package network

import (
	"net/netip"
	"testing"
)

func TestRangesOfNodesDoNotOverlap(t *testing.T) {
	var all []netip.Prefix
	for i := range MaxNodes {
		all = append(all, Dual.Pods(i)...)
		for _, p := range Dual.Node(i) {
			if !fabric4.Contains(p.Addr()) && !fabric6.Contains(p.Addr()) {
				t.Errorf("node %d is at %s, not on the fabric", i, p)
			}
		}
	}
	all = append(all, Dual.ServicePrefixes()...)
	all = append(all, fabric4, fabric6)
	for i, a := range all {
		for _, b := range all[:i] {
			if a.Overlaps(b) {
				t.Fatalf("%s overlaps %s", a, b)
			}
		}
	}
	if got := Dual.Pods(17); got[0].String() != "10.241.16.0/20" || got[1].String() != "fd00:10:240:11::/64" {
		t.Errorf("pods of node 17: %v", got)
	}
	if v4, v6 := IPv4.Node(0), IPv6.Node(0); len(v4) != 1 || len(v6) != 1 || v4[0].Addr().Is6() || v6[0].Addr().Is4() {
		t.Errorf("single stack: %v, %v", v4, v6)
	}
}

func TestPool(t *testing.T) {
	p := NewPool(netip.MustParsePrefix("10.0.0.0/29")) // 6 hosts, the first is the gateway
	seen := map[netip.Addr]bool{}
	var last netip.Addr
	for range 5 {
		a, err := p.Take()
		if err != nil {
			t.Fatal(err)
		}
		if seen[a] || a == Gateway(p.prefix) || !p.prefix.Contains(a) {
			t.Errorf("took %s; before %v", a, seen)
		}
		seen[a], last = true, a
	}
	if last.String() != "10.0.0.6" {
		t.Errorf("the last is %s", last)
	}
	if a, err := p.Take(); err == nil {
		t.Errorf("a sixth: %s", a)
	}
	first, second := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	p.Give(second)
	p.Give(first)
	one, _ := p.Take()
	p.Give(one)
	other, _ := p.Take()
	if one == other || (one != first && one != second) || (other != first && other != second) {
		t.Errorf("%s was given back and came back at once as %s", one, other)
	}
	if p.Reserve(other) || !p.Reserve(one) || p.Reserve(netip.MustParseAddr("10.0.1.1")) {
		t.Error("Reserve took what it should not, or did not take what it should")
	}
}

func TestAddressesByNameAreStable(t *testing.T) {
	for _, prefix := range Dual.ServicePrefixes() {
		a, b := NewPool(prefix), NewPool(prefix)
		for _, name := range []string{"default/a", "default/b", "other/a"} {
			x, errX := a.ByName(name)
			y, errY := b.ByName(name)
			if errX != nil || errY != nil || x != y || !prefix.Contains(x) {
				t.Errorf("%s: %s (%v) and %s (%v)", name, x, errX, y, errY)
			}
		}
		if x, err := a.ByName("default/a"); err != nil || x == first(t, b, "default/a") {
			t.Errorf("a second of the same name: %s (%v)", x, err)
		}
	}
}

func first(t *testing.T, p *Pool, name string) netip.Addr {
	t.Helper()
	fresh := NewPool(p.prefix)
	a, err := fresh.ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
