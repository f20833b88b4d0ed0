package record

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// tcpMetrics are Istio's metrics of connections, counted when they end.
type tcpMetrics struct {
	opened, closed, sent, received *prometheus.CounterVec
}

var _ hcm.Recorder = (*tcpMetrics)(nil)

func newTCPMetrics(r *prometheus.Registry) (*tcpMetrics, error) {
	names := append(append([]string{}, labelNames...), "request_protocol", "response_flags", "connection_security_policy")
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, names)
	}
	m := &tcpMetrics{
		opened:   counter("istio_tcp_connections_opened_total", "Connections opened."),
		closed:   counter("istio_tcp_connections_closed_total", "Connections closed."),
		sent:     counter("istio_tcp_sent_bytes_total", "Bytes from server to client."),
		received: counter("istio_tcp_received_bytes_total", "Bytes from client to server."),
	}
	for _, c := range []prometheus.Collector{m.opened, m.closed, m.sent, m.received} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Record implements [hcm.Recorder]. The number of label sets is bounded by workloads
// and services: nothing of what a client sends is among them.
func (m *tcpMetrics) Record(i *streaminfo.Info) {
	values := append(labelValues(i), "tcp", i.Flags.String(), security(i.TLS != nil && len(i.TLS.PeerCertificates) > 0))
	m.opened.WithLabelValues(values...).Inc()
	m.closed.WithLabelValues(values...).Inc()
	m.sent.WithLabelValues(values...).Add(float64(i.BytesSent))
	m.received.WithLabelValues(values...).Add(float64(i.BytesReceived))
}
