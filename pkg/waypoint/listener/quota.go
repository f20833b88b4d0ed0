package listener

import (
	"net/netip"
	"sync"
)

// maxInner bounds the connections within all tunnels. One peer may have half of them.
const maxInner = 50_000

// quota counts connections, so that no peer takes all there may be.
type quota struct {
	max int

	// mu guards below.
	mu    sync.Mutex
	total int
	peers map[netip.Addr]int
}

func newQuota(most int) *quota { return &quota{max: most, peers: map[netip.Addr]int{}} }

// enter counts one in, if the peer may have it.
func (q *quota) enter(peer netip.Addr) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.total >= q.max || q.peers[peer] >= q.max/2 {
		return false
	}
	q.total++
	q.peers[peer]++
	return true
}

// leave counts one out.
func (q *quota) leave(peer netip.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total--
	if q.peers[peer]--; q.peers[peer] == 0 {
		delete(q.peers, peer)
	}
}
