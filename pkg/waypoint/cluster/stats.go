package cluster

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/histogram"
)

// clusterStats are a cluster's counters and gauges.
type clusterStats struct {
	rqTotal, rqActive, rqPendingTotal, rqPendingOverflow, rqPendingFailureEject                                    atomic.Int64
	rqRetry, rqRetrySuccess, rqRetryOverflow, rqNoHost, rqCancelled, rqActiveOverflow                              atomic.Int64
	cxTotal, cxActive, cxDestroy, cxConnectFail, cxConnectTimeout, cxOverflow                                      atomic.Int64
	cxIdleTimeout, cxMaxRequests, cxMaxDuration, cxHTTP1, cxHTTP2, sslHandshake, sslError, panic, membershipChange atomic.Int64
	dnsAttempt, dnsSuccess, dnsFailure                                                                             atomic.Int64
	ejections                                                                                                      ejectionStats
	extra                                                                                                          extraStats
	codes                                                                                                          codeStats
	rqTime, cxConnect                                                                                              histogram.Lazy
}

// hostStats are a host's.
type hostStats struct {
	rqTotal, rqSuccess, rqError, rqTimeout, cxTotal, cxActive, cxConnectFail atomic.Int64
}

// Stats is a cluster's counters and gauges under Envoy's names, without the prefix
// cluster.<name>.
func (c *Cluster) Stats() map[string]int64 {
	s := &c.stats
	out := map[string]int64{
		"upstream_rq_total": s.rqTotal.Load(), "upstream_rq_active": s.rqActive.Load(),
		"upstream_rq_pending_total": s.rqPendingTotal.Load(), "upstream_rq_pending_overflow": s.rqPendingOverflow.Load(),
		"upstream_rq_active_overflow": s.rqActiveOverflow.Load(), "upstream_cx_max_requests": s.cxMaxRequests.Load(), "upstream_cx_max_duration_reached": s.cxMaxDuration.Load(),
		"upstream_rq_pending_failure_eject": s.rqPendingFailureEject.Load(),
		"upstream_rq_pending_active":        c.breakers[0].pending.Load() + c.breakers[1].pending.Load(),
		"upstream_rq_retry":                 s.rqRetry.Load(), "upstream_rq_retry_success": s.rqRetrySuccess.Load(), "upstream_rq_retry_overflow": s.rqRetryOverflow.Load(),
		"upstream_rq_cancelled": s.rqCancelled.Load(), "upstream_cx_none_healthy": s.rqNoHost.Load(),
		"upstream_cx_total": s.cxTotal.Load(), "upstream_cx_active": s.cxActive.Load(), "upstream_cx_destroy": s.cxDestroy.Load(),
		"upstream_cx_connect_fail": s.cxConnectFail.Load(), "upstream_cx_connect_timeout": s.cxConnectTimeout.Load(),
		"upstream_cx_overflow": s.cxOverflow.Load(), "upstream_cx_idle_timeout": s.cxIdleTimeout.Load(),
		"upstream_cx_http1_total": s.cxHTTP1.Load(), "upstream_cx_http2_total": s.cxHTTP2.Load(),
		"ssl.handshake": s.sslHandshake.Load(), "ssl.connection_error": s.sslError.Load(), "lb_healthy_panic": s.panic.Load(), "membership_change": s.membershipChange.Load(),
		"update_attempt": s.dnsAttempt.Load(), "update_success": s.dnsSuccess.Load(), "update_failure": s.dnsFailure.Load(),
	}
	s.codes.into(out)
	healthy, total, ejected := int64(0), int64(0), int64(0)
	for _, h := range c.Hosts() {
		total++
		if h.ejected.Load() {
			ejected++
		}
		if h.Healthy() {
			healthy++
		}
	}
	out["membership_total"], out["membership_healthy"] = total, healthy
	out["outlier_detection.ejections_active"] = ejected
	c.breakerStats(out)
	s.ejections.into(out)
	s.extra.into(out)
	return out
}

func (c *Cluster) breakerStats(out map[string]int64) {
	spec := c.snap.Load().spec
	for p, prefix := range []string{"circuit_breakers.default.", "circuit_breakers.high."} {
		b, l := &c.breakers[p], &spec.limits[p]
		for _, one := range []struct {
			name      string
			n, limit  int64
			remaining string
		}{
			{"cx_open", b.connections.Load(), l.connections, "remaining_cx"}, {"rq_open", b.requests.Load(), l.requests, "remaining_rq"},
			{"rq_pending_open", b.pending.Load(), l.pending, "remaining_pending"}, {"rq_retry_open", b.retries.Load(), l.retries, "remaining_retries"},
		} {
			open := int64(0)
			if one.n >= one.limit {
				open = 1
			}
			out[prefix+one.name] = open
			if l.trackRemaining {
				out[prefix+one.remaining] = max(0, one.limit-one.n)
			}
		}
	}
}

// Counter is one of the router's counters of this cluster, in Envoy's names:
// upstream_rq_timeout, upstream_rq_2xx and so on.
type Counter uint8

// The router's counters.
const (
	Requests1xx Counter = iota
	Requests2xx
	Requests3xx
	Requests4xx
	Requests5xx
	RequestsCompleted
	RequestTimeout
	RequestPerTryTimeout
	RequestPerTryIdleTimeout
	RequestMaxDuration
	RequestReset
	ResponseReset
	RetryLimitExceeded
	RetryBackOffExponential
	RetryBackOffRateLimited
	counterCount
)

var counterNames = [counterCount]string{"upstream_rq_1xx", "upstream_rq_2xx", "upstream_rq_3xx", "upstream_rq_4xx", "upstream_rq_5xx",
	"upstream_rq_completed", "upstream_rq_timeout", "upstream_rq_per_try_timeout", "upstream_rq_per_try_idle_timeout", "upstream_rq_max_duration_reached", "upstream_rq_tx_reset", "upstream_rq_rx_reset", "upstream_rq_retry_limit_exceeded",
	"upstream_rq_retry_backoff_exponential", "upstream_rq_retry_backoff_ratelimited"}

type extraStats [counterCount]atomic.Int64

func (e *extraStats) into(out map[string]int64) {
	for i, name := range counterNames {
		out[name] = e[i].Load()
	}
}

// Count adds one to a counter.
func (c *Cluster) Count(n Counter) { c.stats.extra[n].Add(1) }

// CountStatus counts the status that a request to the cluster ended with: its own
// response's, or that of the error that stands for it.
func (c *Cluster) CountStatus(status int) {
	c.Count(RequestsCompleted)
	if class := status/100 - 1; class >= 0 && class <= int(Requests5xx) {
		c.Count(Counter(class))
		c.stats.codes.count(class, status%100)
	}
}

// codeStats count by status; a class takes room from its first response on.
type codeStats [5]atomic.Pointer[[100]atomic.Int64]

func (s *codeStats) count(class, rest int) {
	of := s[class].Load()
	if of == nil {
		s[class].CompareAndSwap(nil, new([100]atomic.Int64))
		of = s[class].Load()
	}
	of[rest].Add(1)
}

func (s *codeStats) into(out map[string]int64) {
	for class := range s {
		of := s[class].Load()
		if of == nil {
			continue
		}
		sum := int64(0)
		for rest := range of {
			if n := of[rest].Load(); n > 0 {
				sum += n
				name := fmt.Sprintf("upstream_rq_%d%02d", class+1, rest)
				out[name], out["external."+name] = n, n
			}
		}
		out[fmt.Sprintf("external.upstream_rq_%dxx", class+1)] = sum
	}
}

// Answered counts how long a response took that came to its end, from the request's end
// on.
func (c *Cluster) Answered(d time.Duration) { c.stats.rqTime.Observe(d) }

// Timings are a cluster's histograms under Envoy's names, without the prefix
// cluster.<name>: those in which something was counted.
func (c *Cluster) Timings() map[string]*histogram.Snapshot {
	out := map[string]*histogram.Snapshot{}
	add := func(h *histogram.Lazy, names ...string) {
		if of := h.Load(); of != nil {
			s := &histogram.Snapshot{}
			s.Add(of)
			for _, name := range names {
				out[name] = s
			}
		}
	}
	// Who calls is never one of Envoy's internal peers.
	add(&c.stats.rqTime, "upstream_rq_time", "external.upstream_rq_time")
	add(&c.stats.cxConnect, "upstream_cx_connect_ms")
	return out
}

// StatName is the name under which the cluster's statistics are shown.
func (c *Cluster) StatName() string { return c.snap.Load().spec.observed }
