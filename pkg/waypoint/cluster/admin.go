package cluster

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
)

// WriteClusters writes all clusters that are usable, as Envoy's admin page /clusters
// does.
func (m *Manager) WriteClusters(w io.Writer) error {
	out := bufio.NewWriter(w)
	for _, name := range m.Names() {
		if c := m.Get(name); c != nil {
			c.write(out)
		}
	}
	return out.Flush()
}

func (c *Cluster) write(w io.Writer) {
	line := func(key string, value any) { fmt.Fprintf(w, "%s::%s::%v\n", c.name, key, value) }
	s := c.snap.Load().spec
	line("observability_name", s.observed)
	if s.outlier != nil {
		line("outlier::success_rate_average", -1)
		line("outlier::success_rate_ejection_threshold", -1)
		line("outlier::local_origin_success_rate_average", -1)
		line("outlier::local_origin_success_rate_ejection_threshold", -1)
	}
	for p, prefix := range []string{"default_priority::", "high_priority::"} {
		l := &s.limits[p]
		line(prefix+"max_connections", l.connections)
		line(prefix+"max_pending_requests", l.pending)
		line(prefix+"max_requests", l.requests)
		line(prefix+"max_retries", l.retries)
	}
	line("added_via_api", true)
	if s.discovery == eds {
		line("eds_service_name", s.edsName)
	}
	for _, h := range c.Hosts() {
		h.write(line)
	}
}

func (h *Host) write(line func(key string, value any)) {
	at := h.Address + "::"
	for _, n := range h.numbers() {
		line(at+n.name, n.value)
	}
	f := h.facts.Load()
	line(at+"hostname", h.Hostname)
	line(at+"health_flags", h.flags())
	line(at+"weight", f.weight)
	line(at+"region", f.locality.Region)
	line(at+"zone", f.locality.Zone)
	line(at+"sub_zone", f.locality.SubZone)
	line(at+"canary", false)
	line(at+"priority", f.priority)
	external, local := h.rates()
	line(at+"success_rate", external)
	line(at+"local_origin_success_rate", local)
}

// statistic is one number of a host; a gauge goes down, too.
type statistic struct {
	name  string
	value int64
	gauge bool
}

// numbers are a host's statistics, by name.
func (h *Host) numbers() []statistic {
	return []statistic{
		{"cx_active", h.stats.cxActive.Load(), true}, {"cx_connect_fail", h.stats.cxConnectFail.Load(), false}, {"cx_total", h.stats.cxTotal.Load(), false},
		{"rq_active", h.active.Load(), true}, {"rq_error", h.stats.rqError.Load(), false},
		{"rq_pending_active", h.pending.Load(), true}, {"rq_success", h.stats.rqSuccess.Load(), false},
		{"rq_timeout", h.stats.rqTimeout.Load(), false}, {"rq_total", h.stats.rqTotal.Load(), false},
	}
}

// flags are in Envoy's words and order.
func (h *Host) flags() string {
	out := ""
	if h.ejected.Load() {
		out += "/failed_outlier_check"
	}
	if h.unhealthy.Load() {
		out += "/failed_eds_health"
	}
	if out == "" {
		return "healthy"
	}
	return out
}

// rates are the last interval's success rates in percent, -1 where there were too few
// requests.
func (h *Host) rates() (external, local string) {
	h.cluster.mu.Lock()
	defer h.cluster.mu.Unlock()
	m := &h.health
	if m.judged.IsZero() {
		return "-1", "-1"
	}
	text := func(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
	return text(m.externalRate), text(m.localRate)
}
