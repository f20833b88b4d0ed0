package cluster

import (
	"errors"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

// outlier is a compiled outlier_detection, with Envoy's defaults.
type outlier struct {
	interval, base, longest, jitter        time.Duration
	maxPercent                             uint32
	alwaysOne, split                       bool
	consecutive5xx, gateway, local         uint32
	enforce                                [reasonCount]uint32 // percent
	rateHosts, rateVolume, rateFactor      uint32
	failurePercent, failHosts, failureLoad uint32
}

// reason is why a host is an outlier.
type reason uint8

const (
	consecutive5xx reason = iota
	gatewayFailure
	localFailure
	successRate
	localSuccessRate
	failurePercentage
	localFailurePercentage
	reasonCount
)

var reasonNames = [reasonCount]string{"consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure",
	"success_rate", "local_origin_success_rate", "failure_percentage", "local_origin_failure_percentage"}

func outlierOf(o *clusterv3.OutlierDetection) (*outlier, error) {
	if o == nil {
		return nil, nil //nolint:nilnil // none is a configuration
	}
	if len(o.GetMonitors()) > 0 {
		return nil, errors.New("monitors: not supported")
	}
	out := &outlier{
		interval: duration(o.GetInterval(), 10*time.Second), base: duration(o.GetBaseEjectionTime(), 30*time.Second),
		jitter: duration(o.GetMaxEjectionTimeJitter(), 0), maxPercent: min(100, number(o.GetMaxEjectionPercent(), 10)),
		alwaysOne: o.GetAlwaysEjectOneHost().GetValue(), split: o.GetSplitExternalLocalOriginErrors(),
		consecutive5xx: number(o.GetConsecutive_5Xx(), 5), gateway: number(o.GetConsecutiveGatewayFailure(), 5), local: number(o.GetConsecutiveLocalOriginFailure(), 5),
		rateHosts: number(o.GetSuccessRateMinimumHosts(), 5), rateVolume: number(o.GetSuccessRateRequestVolume(), 100), rateFactor: number(o.GetSuccessRateStdevFactor(), 1900),
		failurePercent: number(o.GetFailurePercentageThreshold(), 85), failHosts: number(o.GetFailurePercentageMinimumHosts(), 5), failureLoad: number(o.GetFailurePercentageRequestVolume(), 50),
	}
	out.longest = duration(o.GetMaxEjectionTime(), max(300*time.Second, out.base))
	out.enforce = [reasonCount]uint32{
		consecutive5xx: number(o.GetEnforcingConsecutive_5Xx(), 100), gatewayFailure: number(o.GetEnforcingConsecutiveGatewayFailure(), 0),
		localFailure: number(o.GetEnforcingConsecutiveLocalOriginFailure(), 100), successRate: number(o.GetEnforcingSuccessRate(), 100),
		localSuccessRate: number(o.GetEnforcingLocalOriginSuccessRate(), 100), failurePercentage: number(o.GetEnforcingFailurePercentage(), 0),
		localFailurePercentage: number(o.GetEnforcingFailurePercentageLocalOrigin(), 0),
	}
	switch {
	case out.longest < out.base:
		return nil, errors.New("max_ejection_time is less than base_ejection_time")
	case out.interval <= 0:
		return nil, errors.New("interval must be more than 0")
	}
	return out, nil
}

// Outcome is how a try ended, for outlier detection.
type Outcome uint8

// The outcomes.
const (
	// Responded: there was a response; its status counts.
	Responded Outcome = iota
	// ConnectFailed: no connection, or it or the stream ended early (503 where local
	// origin errors are not told apart).
	ConnectFailed
	// TimedOut: the try's or the request's timeout passed (504).
	TimedOut
	// Connected: a TCP proxy has its connection; there is no response to come.
	ConnectedTCP
)

// monitor is what outlier detection knows of a host.
type monitor struct {
	row5xx, rowGateway, rowLocal atomic.Uint32
	external, local              rate
	// The cluster's mu guards below.
	backoff    int64 // ejections lately
	ejections  int64
	ejectedAt  time.Time
	jitter     time.Duration
	returnedAt time.Time
	// The last interval's success rates in percent, or -1, and when it ended.
	externalRate, localRate float64
	judged                  time.Time
}

// rate counts an interval's requests.
type rate struct{ total, good atomic.Uint64 }

func (r *rate) add(good bool) {
	r.total.Add(1)
	if good {
		r.good.Add(1)
	}
}

// take ends an interval.
func (r *rate) take() (percent float64, volume uint64) {
	total, good := r.total.Swap(0), r.good.Swap(0)
	if total == 0 {
		return -1, 0
	}
	return 100 * float64(min(good, total)) / float64(total), total
}

// Report says how a try ended; status counts with Responded. A host that fails once
// too often is out before Report returns.
func (h *Host) Report(o Outcome, status int) {
	switch {
	case o == TimedOut:
		h.stats.rqTimeout.Add(1)
		h.stats.rqError.Add(1)
	case o == ConnectFailed || status >= 500:
		h.stats.rqError.Add(1)
	default:
		h.stats.rqSuccess.Add(1)
	}
	d := h.cluster.snap.Load().spec.outlier
	if d == nil {
		return
	}
	m := &h.health
	if o != Responded && d.split {
		if o == ConnectedTCP {
			m.local.add(true)
			m.rowLocal.Store(0)
			return
		}
		m.local.add(false)
		if m.rowLocal.Add(1) == d.local {
			h.cluster.outlying(h, localFailure)
		}
		return
	}
	switch o {
	case ConnectFailed:
		status = 503
	case TimedOut:
		status = 504
	case ConnectedTCP:
		status = 200
	case Responded:
		if d.split {
			m.local.add(true)
			m.rowLocal.Store(0)
		}
	}
	m.external.add(status < 500)
	if status < 500 {
		m.row5xx.Store(0)
		m.rowGateway.Store(0)
		return
	}
	if status >= 502 && status <= 504 {
		if m.rowGateway.Add(1) == d.gateway {
			h.cluster.outlying(h, gatewayFailure)
		}
	} else {
		m.rowGateway.Store(0)
	}
	if m.row5xx.Add(1) == d.consecutive5xx {
		h.cluster.outlying(h, consecutive5xx)
	}
}

// outlying takes note of a row of failures.
func (c *Cluster) outlying(h *Host, r reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || h.removed.Load() || h.ejected.Load() {
		return
	}
	c.stats.ejections.detected[r].Add(1)
	c.ejectLocked(h, r, time.Now())
	switch r {
	case consecutive5xx:
		h.health.row5xx.Store(0)
	case gatewayFailure:
		h.health.rowGateway.Store(0)
	case localFailure:
		h.health.rowLocal.Store(0)
	}
}

func (c *Cluster) ejectLocked(h *Host, r reason, now time.Time) {
	d := c.spec.outlier
	if d == nil || h.ejected.Load() {
		return
	}
	total := max(1, len(c.hosts)+len(c.byDestination))
	if 100*float64(c.ejected+1)/float64(total) > float64(d.maxPercent) && (!d.alwaysOne || c.ejected > 0) {
		c.stats.ejections.overflow.Add(1)
		return
	}
	if rand.Uint32N(100) >= d.enforce[r] { //nolint:gosec // a share, no secret
		return
	}
	c.stats.ejections.enforced[r].Add(1)
	c.ejected++
	m := &h.health
	m.ejections++
	m.ejectedAt = now
	m.jitter = 0
	if d.jitter > 0 {
		m.jitter = rand.N(d.jitter + time.Millisecond) //nolint:gosec // as above
	}
	if time.Duration(m.backoff)*d.base < d.longest+d.base {
		m.backoff++
	}
	h.ejected.Store(true)
	c.rebuildLocked()
}

// outlierChangedLocked starts or stops the sweeps, and takes all back where outlier
// detection was taken away.
func (c *Cluster) outlierChangedLocked(old, s *spec) {
	if s.outlier == nil {
		if c.sweeping != nil {
			c.sweeping.Stop()
			c.sweeping = nil
		}
		for _, h := range c.everyLocked() {
			if h.ejected.Swap(false) {
				c.ejected--
			}
		}
		return
	}
	if c.sweeping != nil && old != nil && old.outlier != nil && old.outlier.interval == s.outlier.interval {
		return
	}
	if c.sweeping != nil {
		c.sweeping.Stop()
	}
	c.sweeping = time.AfterFunc(s.outlier.interval, c.sweepOutliers)
}

func (c *Cluster) everyLocked() []*Host {
	out := make([]*Host, 0, len(c.hosts)+len(c.byDestination))
	for _, h := range c.hosts {
		out = append(out, h)
	}
	for _, h := range c.byDestination {
		out = append(out, h)
	}
	return out
}

// sweepOutliers is an interval's end: hosts come back, rates are judged.
func (c *Cluster) sweepOutliers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.spec.outlier
	if c.gone || d == nil {
		return
	}
	now := time.Now()
	hosts := c.everyLocked()
	changed := false
	for _, h := range hosts {
		m := &h.health
		if h.ejected.Load() && now.Sub(m.ejectedAt) >= min(d.base*time.Duration(m.backoff), d.longest)+m.jitter {
			c.ejected--
			h.ejected.Store(false)
			m.row5xx.Store(0)
			m.rowGateway.Store(0)
			m.rowLocal.Store(0)
			m.returnedAt = now
			changed = true
		}
	}
	if changed {
		c.rebuildLocked()
	}
	c.judgeLocked(hosts, false, now)
	c.judgeLocked(hosts, true, now)
	for _, h := range hosts {
		m := &h.health
		if !h.ejected.Load() && !m.returnedAt.IsZero() && now.Sub(m.returnedAt) >= d.interval && m.backoff > 0 {
			m.backoff--
		}
	}
	c.sweeping.Reset(d.interval)
}

// judgeLocked ejects by success rate and by failure percentage.
func (c *Cluster) judgeLocked(hosts []*Host, local bool, now time.Time) {
	d := c.spec.outlier
	type judged struct {
		host *Host
		rate float64
	}
	byRate, byFailure := successRate, failurePercentage
	if local {
		byRate, byFailure = localSuccessRate, localFailurePercentage
	}
	var rates, failures []judged
	sum := 0.0
	for _, h := range hosts {
		counted, shown := &h.health.external, &h.health.externalRate
		if local {
			counted, shown = &h.health.local, &h.health.localRate
		}
		percent, volume := counted.take()
		h.health.judged = now
		if *shown = -1; h.ejected.Load() || volume == 0 {
			continue
		}
		if volume >= uint64(min(d.rateVolume, d.failureLoad)) {
			*shown = percent
		}
		if volume >= uint64(d.rateVolume) {
			rates = append(rates, judged{h, percent})
			sum += percent
		}
		if volume >= uint64(d.failureLoad) {
			failures = append(failures, judged{h, percent})
		}
	}
	if n := len(rates); n > 0 && n >= int(d.rateHosts) {
		mean, variance := sum/float64(n), 0.0
		for _, j := range rates {
			variance += (j.rate - mean) * (j.rate - mean)
		}
		threshold := mean - float64(d.rateFactor)/1000*math.Sqrt(variance/float64(n))
		for _, j := range rates {
			if j.rate < threshold {
				c.stats.ejections.detected[byRate].Add(1)
				c.ejectLocked(j.host, byRate, now)
			}
		}
	}
	if n := len(failures); n > 0 && n >= int(d.failHosts) {
		for _, j := range failures {
			if 100-j.rate >= float64(d.failurePercent) {
				c.stats.ejections.detected[byFailure].Add(1)
				c.ejectLocked(j.host, byFailure, now)
			}
		}
	}
}

// ejectionStats count by reason.
type ejectionStats struct {
	detected, enforced [reasonCount]atomic.Int64
	overflow           atomic.Int64
}

func (e *ejectionStats) into(out map[string]int64) {
	total := int64(0)
	for r, name := range reasonNames {
		out["outlier_detection.ejections_detected_"+name] = e.detected[r].Load()
		out["outlier_detection.ejections_enforced_"+name] = e.enforced[r].Load()
		total += e.enforced[r].Load()
	}
	out["outlier_detection.ejections_enforced_total"] = total
	// The deprecated ones, which Envoy still counts.
	out["outlier_detection.ejections_consecutive_5xx"] = e.detected[consecutive5xx].Load()
	out["outlier_detection.ejections_success_rate"] = e.detected[successRate].Load() + e.detected[localSuccessRate].Load()
	out["outlier_detection.ejections_overflow"] = e.overflow.Load()
}
