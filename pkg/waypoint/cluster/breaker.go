package cluster

import (
	"fmt"
	"sync/atomic"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Priority is a request's, of the route; breakers count apart.
type Priority uint8

// The priorities.
const (
	DefaultPriority Priority = iota
	HighPriority
)

// limits are one priority's thresholds.
type limits struct {
	connections, pending, requests, retries int64
	budget                                  *budget // or nil
	trackRemaining                          bool
}

// budget is a retry budget: retries up to percent of the requests that are active or
// waiting, but least are always allowed. With an interval, the requests are those of
// that time.
type budget struct {
	percent  float64
	least    int64
	interval time.Duration
}

func limitsOf(c *clusterv3.CircuitBreakers) (out [2]limits, err error) {
	for i := range out {
		out[i] = limits{connections: 1024, pending: 1024, requests: 1024, retries: 3}
	}
	if len(c.GetPerHostThresholds()) > 0 {
		return out, fmt.Errorf("per_host_thresholds: not supported")
	}
	for _, t := range c.GetThresholds() {
		l := &out[DefaultPriority]
		if t.GetPriority() == corev3.RoutingPriority_HIGH {
			l = &out[HighPriority]
		}
		*l = limits{
			connections:    int64(number(t.GetMaxConnections(), 1024)),
			pending:        int64(number(t.GetMaxPendingRequests(), 1024)),
			requests:       int64(number(t.GetMaxRequests(), 1024)),
			retries:        int64(number(t.GetMaxRetries(), 3)),
			trackRemaining: t.GetTrackRemaining(),
		}
		if b := t.GetRetryBudget(); b != nil {
			l.budget = &budget{percent: 20, least: int64(number(b.GetMinRetryConcurrency(), 3)), interval: b.GetBudgetInterval().AsDuration()}
			if b.GetBudgetPercent() != nil {
				l.budget.percent = b.GetBudgetPercent().GetValue()
			}
		}
	}
	return out, nil
}

// breaker counts what one priority has under way. The counts outlive updates.
type breaker struct {
	connections, pending, requests, retries atomic.Int64
	arrivals                                window
}

func take(n *atomic.Int64, limit int64) bool {
	if n.Add(1) <= limit {
		return true
	}
	n.Add(-1)
	return false
}

// Retry asks for one of the retries that may run at once (max_retries, or the
// budget). It must be given back with RetryDone. False is counted as overflow.
func (c *Cluster) Retry(p Priority) bool {
	b, l := &c.breakers[p], &c.snap.Load().spec.limits[p]
	limit := l.retries
	if l.budget != nil {
		load := b.requests.Load() + b.pending.Load()
		if l.budget.interval > 0 {
			load = max(load, b.arrivals.count(time.Now(), l.budget.interval))
		}
		limit = max(int64(l.budget.percent/100*float64(load)), l.budget.least)
	}
	if !take(&b.retries, limit) {
		c.stats.rqRetryOverflow.Add(1)
		return false
	}
	c.stats.rqRetry.Add(1)
	return true
}

// RetryDone gives a retry back; good is whether it had a final response that needs
// no further one.
func (c *Cluster) RetryDone(p Priority, good bool) {
	c.breakers[p].retries.Add(-1)
	if good {
		c.stats.rqRetrySuccess.Add(1)
	}
}

// window counts arrivals in the last seconds, in tenths of the interval.
type window struct{ slots [11]slot }

type slot struct{ tick, n atomic.Int64 }

func (w *window) add(now time.Time, interval time.Duration) {
	tick := now.UnixNano() / max(1, int64(interval)/10)
	s := &w.slots[tick%int64(len(w.slots))]
	if old := s.tick.Load(); old != tick && s.tick.CompareAndSwap(old, tick) {
		s.n.Store(0)
	}
	s.n.Add(1)
}

func (w *window) count(now time.Time, interval time.Duration) (n int64) {
	tick := now.UnixNano() / max(1, int64(interval)/10)
	for i := range w.slots {
		if s := &w.slots[i]; s.tick.Load() > tick-10 {
			n += s.n.Load()
		}
	}
	return n
}
