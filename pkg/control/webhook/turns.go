package webhook

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// turns are to make reviews, of which there are so many at a time. Addresses get them in
// turn, and none more than its share: whoever on the network sends what takes long to look at
// keeps no API server's reviews back.
type turns struct {
	share int

	// mu guards below.
	mu      sync.Mutex
	free    int
	running map[string]int // by address
	waiting []*waiter      // the one who came first in front
	served  map[string]int // when an address that waits was last given a turn
	clock   int
}

// waiter is one who waits. given closes with the turn.
type waiter struct {
	from  string
	given chan struct{}
}

func newTurns(atOnce, share int) *turns {
	return &turns{share: share, free: atOnce, running: map[string]int{}, served: map[string]int{}}
}

// take waits for a turn, which leave gives back.
func (t *turns) take(ctx context.Context, from string) (leave func(), ok bool) {
	w := &waiter{from: from, given: make(chan struct{})}
	t.mu.Lock()
	t.waiting = append(t.waiting, w)
	t.giveLocked()
	t.mu.Unlock()
	late := time.NewTimer(maxWait)
	defer late.Stop()
	select {
	case <-w.given:
	case <-late.C:
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.waiting, w); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
		t.forgetLocked(from)
		return nil, false
	}
	return func() { t.leave(from) }, true
}

func (t *turns) leave(from string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	if t.running[from]--; t.running[from] == 0 {
		delete(t.running, from)
	}
	t.giveLocked()
	t.forgetLocked(from)
}

// giveLocked gives turns to those who wait, as far as there are any for them.
func (t *turns) giveLocked() {
	for t.free > 0 {
		next := -1
		for i, w := range t.waiting {
			if t.running[w.from] < t.share && (next < 0 || t.served[w.from] < t.served[t.waiting[next].from]) {
				next = i
			}
		}
		if next < 0 {
			return
		}
		w := t.waiting[next]
		t.waiting = slices.Delete(t.waiting, next, next+1)
		t.free--
		t.running[w.from]++
		t.clock++
		t.served[w.from] = t.clock
		close(w.given)
	}
}

// forgetLocked forgets an address of which nobody is left.
func (t *turns) forgetLocked(from string) {
	if t.running[from] == 0 && !slices.ContainsFunc(t.waiting, func(w *waiter) bool { return w.from == from }) {
		delete(t.served, from)
	}
}

// address is where a request comes from.
func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
