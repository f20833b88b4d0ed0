package resident

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// perSecond and atOnce bound what the API server is asked in all, the others what
	// it is asked for one node.
	perSecond, atOnce         = 100, 200
	nodePerSecond, nodeAtOnce = 5, 30
	maxNodes                  = 10_000
)

type limits struct {
	all *rate.Limiter

	// mu guards below.
	mu    sync.Mutex
	nodes map[string]*rate.Limiter
}

func newLimits() *limits {
	return &limits{all: rate.NewLimiter(perSecond, atOnce), nodes: map[string]*rate.Limiter{}}
}

func (l *limits) allow(node string) bool {
	l.mu.Lock()
	n := l.nodes[node]
	if n == nil {
		if len(l.nodes) >= maxNodes {
			clear(l.nodes)
		}
		n = rate.NewLimiter(nodePerSecond, nodeAtOnce)
		l.nodes[node] = n
	}
	l.mu.Unlock()
	return n.Allow() && l.all.Allow()
}

type answer struct {
	yes   bool
	until time.Time
}

// answers are the API server's latest.
type answers struct {
	// mu guards below.
	mu   sync.Mutex
	kept map[string]answer
}

func (a *answers) get(question string, now time.Time) (yes, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, ok := a.kept[question]
	return k.yes, ok && now.Before(k.until)
}

func (a *answers) put(question string, yes bool, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.kept) >= maxKept {
		clear(a.kept)
	}
	a.kept[question] = answer{yes, now.Add(keptFor)}
}
