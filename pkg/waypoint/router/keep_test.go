package router

import (
	"bytes"
	"net/netip"
	"testing"
)

var (
	alice = netip.MustParseAddr("10.0.0.1")
	bob   = netip.MustParseAddr("10.0.0.2")
)

func (k *Keep) body(peer netip.Addr, limit int) *body {
	return &body{keep: k, peer: peer, limit: limit}
}

// No peer takes the room of another, and none of it is lost.
func TestKeepIsBounded(t *testing.T) {
	k := NewKeep()
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	var held []*body
	fill := func(peer netip.Addr) (total int) {
		for range 1000 {
			b := k.body(peer, defaultKept)
			held = append(held, b)
			for len(b.bytes) < b.limit {
				if !b.append(chunk) {
					return total
				}
				total += len(chunk)
			}
		}
		t.Fatalf("%d bytes of one peer are kept, and there is no end", total)
		return 0
	}
	for _, peer := range []netip.Addr{alice, bob} {
		if total := fill(peer); total < maxKept/2-defaultKept || total > maxKept/2 {
			t.Errorf("%d bytes are kept of %s; its part is %d", total, peer, maxKept/2)
		}
	}
	if k.body(netip.MustParseAddr("10.0.0.3"), defaultKept).append(chunk) {
		t.Error("more is kept than there is room for")
	}
	for _, b := range held {
		b.let()
	}
	if k.total != 0 || len(k.peers) != 0 {
		t.Errorf("%d bytes of %v were not given back", k.total, k.peers)
	}
}

// A body is there as long as a copy of it is under way.
func TestBodiesAreHeld(t *testing.T) {
	k := NewKeep()
	b := k.body(alice, 10)
	if !b.append([]byte("hello")) || b.append([]byte("hello!")) {
		t.Fatal("the limit of a body does not hold")
	}
	b.hold()
	b.hold()
	b.let() // the exchange is over
	b.let()
	if string(b.bytes) != "hello" || k.total == 0 {
		t.Errorf("%q is left, in %d bytes", b.bytes, k.total)
	}
	b.let()
	if b.bytes != nil || k.total != 0 {
		t.Errorf("%q is left, in %d bytes", b.bytes, k.total)
	}
}
