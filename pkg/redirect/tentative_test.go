package redirect

import (
	"fmt"
	"net/netip"
	"testing"
)

// A pod may be captured while its IPv6 address is tentative, until duplicate address detection
// is through (RFC 4862): connections wait or fail for so long, and none goes around the agent or
// comes from another address.
func TestAddressMayBeTentativeAtFirst(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	n.sh(fmt.Sprintf("ip -n %[1]s-p2 -6 addr flush dev eth0; ip -n %[1]s-p2 -6 addr add %[2]s/64 dev eth0", n.name, a.ip6))
	n.enrol(a)
	carry(a)
	dst := netip.AddrPortFrom(b.ip6, 8080)
	eventually(t, "the address is known to be the pod's", func() bool {
		before := n.verdict("connect", "captured")
		line, _, _, err := ask(a, dst)
		if err == nil && line != a.ip6.String() {
			t.Fatalf("the application saw %q, want %s", line, a.ip6)
		}
		if err == nil && n.verdict("connect", "captured") == before {
			t.Fatal("answered, and not captured")
		}
		return err == nil
	})
	// The address of IPv4 does not wait for it.
	if line, _, _, err := ask(a, netip.AddrPortFrom(b.ip4, 8080)); err != nil || line != a.ip4.String() {
		t.Errorf("by IPv4: %q, %v", line, err)
	}
}
