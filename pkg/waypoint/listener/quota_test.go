package listener

import (
	"net/netip"
	"testing"
)

// A peer that takes all that it may have leaves the other half to others, and gives its
// own back.
func TestQuota(t *testing.T) {
	q := newQuota(10)
	greedy, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	fill := func(a netip.Addr) (n int) {
		for q.enter(a) {
			n++
		}
		return n
	}
	if n := fill(greedy); n != 5 {
		t.Errorf("one peer has %d of 10", n)
	}
	if n := fill(other); n != 5 {
		t.Errorf("another has %d of what is left", n)
	}
	if q.enter(netip.MustParseAddr("10.0.0.3")) {
		t.Error("there are more than there may be")
	}
	for range 5 {
		q.leave(greedy)
		q.leave(other)
	}
	if q.total != 0 || len(q.peers) != 0 {
		t.Errorf("%d of %v are counted", q.total, q.peers)
	}
}
