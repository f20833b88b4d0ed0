package router

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

const (
	// maxKept bounds what a process keeps of the bodies of all requests, for other tries
	// and for mirrors, in bytes. One peer may have half of it. A body that finds no room
	// goes upstream all the same, once.
	maxKept = 64 << 20
	// maxMirrors bounds the mirrored requests under way, since nobody waits for them.
	maxMirrors = 512
	// leastKept is the room that a body takes at first, in bytes.
	leastKept = 512
)

// Keep is what all routers of a process have together: room for bodies, and places for
// mirrored requests.
type Keep struct {
	max     int
	mirrors chan struct{}

	// mu guards below.
	mu    sync.Mutex
	total int
	peers map[netip.Addr]int // what each has of total
}

// NewKeep returns one with all of its room.
func NewKeep() *Keep {
	return &Keep{max: maxKept, mirrors: make(chan struct{}, maxMirrors), peers: map[netip.Addr]int{}}
}

// take gives a peer n bytes of room, if it may have them.
func (k *Keep) take(peer netip.Addr, n int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.total+n > k.max || k.peers[peer]+n > k.max/2 {
		return false
	}
	k.total += n
	k.peers[peer] += n
	return true
}

func (k *Keep) give(peer netip.Addr, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.total -= n
	if k.peers[peer] -= n; k.peers[peer] == 0 {
		delete(k.peers, peer)
	}
}

// body is a request's, as far as it came and is kept. Its room is given back when the
// last who holds it lets go.
type body struct {
	keep  *Keep
	peer  netip.Addr
	limit int // bytes
	bytes []byte
	room  int
	held  atomic.Int32 // by how many beside the first
}

// append adds what came; false: it may not be kept.
func (b *body) append(p []byte) bool {
	need := len(b.bytes) + len(p)
	if need > b.limit {
		return false
	}
	if need > b.room {
		room := min(max(2*b.room, need, leastKept), b.limit)
		if !b.keep.take(b.peer, room-b.room) {
			return false
		}
		b.bytes = append(make([]byte, 0, room), b.bytes...)
		b.room = room
	}
	b.bytes = append(b.bytes, p...)
	return true
}

// hold has another one keep it, until let.
func (b *body) hold() { b.held.Add(1) }

// let is called once by each who holds it.
func (b *body) let() {
	if b.held.Add(-1) < 0 && b.room > 0 {
		b.keep.give(b.peer, b.room)
		b.bytes, b.room = nil, 0
	}
}
