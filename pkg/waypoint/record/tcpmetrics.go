package record

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/tcpproxy"
)

// tcpMetrics are Istio's metrics of connections: counted as opened when they are, and
// their bytes while they run.
type tcpMetrics struct {
	f                              *Factory
	opened, closed, sent, received *prometheus.CounterVec
	series                         *series

	// mu guards below.
	mu   sync.Mutex
	live map[*streaminfo.Info]*connection
}

var _ tcpproxy.Opener = (*tcpMetrics)(nil)

// connection is one that is open. tcpMetrics.mu guards what was reported.
type connection struct {
	traffic                      *streaminfo.Traffic
	sent, received               prometheus.Counter
	reportedSent, reportedToward uint64
}

func newTCPMetrics(f *Factory) (*tcpMetrics, error) {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labelNames)
	}
	overflow := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "fairlead_connection_metrics_overflow_total", Help: "Connections counted with few labels because there were too many label sets.",
	})
	m := &tcpMetrics{
		f:        f,
		opened:   counter("istio_tcp_connections_opened_total", "Connections opened."),
		closed:   counter("istio_tcp_connections_closed_total", "Connections closed."),
		sent:     counter("istio_tcp_sent_bytes_total", "Bytes from server to client."),
		received: counter("istio_tcp_received_bytes_total", "Bytes from client to server."),
		series:   newSeries(overflow),
		live:     map[*streaminfo.Info]*connection{},
	}
	for _, c := range []prometheus.Collector{m.opened, m.closed, reporting{m.sent, m}, reporting{m.received, m}, overflow} {
		if err := f.o.Registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// reporting is a counter whose open connections report before it is collected.
type reporting struct {
	*prometheus.CounterVec
	metrics *tcpMetrics
}

// Collect implements [prometheus.Collector].
func (r reporting) Collect(ch chan<- prometheus.Metric) {
	r.metrics.reportAll()
	r.CounterVec.Collect(ch)
}

func (m *tcpMetrics) reportAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.live {
		c.report()
	}
}

// report adds what was carried since the last time.
func (c *connection) report() {
	sent, received := c.traffic.Sent.Load(), c.traffic.Received.Load()
	c.sent.Add(float64(sent - c.reportedSent))
	c.received.Add(float64(received - c.reportedToward))
	c.reportedSent, c.reportedToward = sent, received
}

func (m *tcpMetrics) labels(i *streaminfo.Info) []string {
	values := m.series.admit(labels(i, m.f.serviceOf(i), "tcp"))
	if past(values) {
		m.series.overflow.Inc()
	}
	return values
}

// Opened implements [tcpproxy.Opener].
func (m *tcpMetrics) Opened(i *streaminfo.Info) {
	values := m.labels(i)
	m.opened.WithLabelValues(values...).Inc()
	c := &connection{traffic: i.Traffic, sent: m.sent.WithLabelValues(values...), received: m.received.WithLabelValues(values...)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live[i] = c
}

// Record implements [hcm.Recorder]. One that failed before it was established is
// counted as opened and closed, as Envoy does.
func (m *tcpMetrics) Record(i *streaminfo.Info) {
	m.mu.Lock()
	c := m.live[i]
	if c != nil {
		c.report()
		delete(m.live, i)
	}
	m.mu.Unlock()
	values := m.labels(i)
	if c == nil {
		m.opened.WithLabelValues(values...).Inc()
	}
	m.closed.WithLabelValues(values...).Inc()
}
