package record

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

const (
	// maxSeries bounds the label sets; past it exchanges are counted under labels that
	// are all unknown.
	maxSeries = 10_000
)

// buckets are Istio's, of milliseconds and bytes alike.
var buckets = []float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}

// httpMetrics are Istio's metrics of requests.
type httpMetrics struct {
	requests                       *prometheus.CounterVec
	durations, received, sent      *prometheus.HistogramVec
	requestMessages, replyMessages *prometheus.CounterVec
	overflow                       prometheus.Counter

	// mu guards below.
	mu      sync.RWMutex
	handles map[key]*handles
}

var _ hcm.Recorder = (*httpMetrics)(nil)

// key is what an exchange's labels depend on.
type key struct {
	source, destination *streaminfo.Workload
	principal, cluster  string
	answered            string // the SPIFFE id of who answered
	code                int
	flags               streaminfo.Flags
	grpc                bool
	grpcStatus          string
	mutual              bool
}

type handles struct {
	requests                  prometheus.Counter
	durations, received, sent prometheus.Observer
}

func newHTTPMetrics(r *prometheus.Registry) (*httpMetrics, error) {
	names := append([]string{}, labelNames...)
	names = append(names, "request_protocol", "response_code", "grpc_response_status", "response_flags", "connection_security_policy")
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, names)
	}
	m := &httpMetrics{
		requests:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "istio_requests_total", Help: "Requests."}, names),
		durations: histogram("istio_request_duration_milliseconds", "Time from a request's beginning to its response's end, in milliseconds."),
		received:  histogram("istio_request_bytes", "Bytes of requests' bodies."),
		sent:      histogram("istio_response_bytes", "Bytes of responses' bodies."),
		overflow: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fairlead_request_metrics_overflow_total", Help: "Requests counted without labels because there were too many label sets.",
		}),
		handles: map[key]*handles{},
	}
	for _, c := range []prometheus.Collector{m.requests, m.durations, m.received, m.sent, m.overflow} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Record implements [hcm.Recorder].
func (m *httpMetrics) Record(i *streaminfo.Info) {
	k := keyOf(i)
	m.mu.RLock()
	h := m.handles[k]
	m.mu.RUnlock()
	if h == nil {
		h = m.resolve(k, i)
	}
	h.requests.Inc()
	h.durations.Observe(float64(i.Duration) / float64(time.Millisecond))
	h.received.Observe(float64(i.BytesReceived))
	h.sent.Observe(float64(i.BytesSent))
}

func keyOf(i *streaminfo.Info) key {
	k := key{
		source: i.Source, destination: i.Destination, principal: i.PeerURISAN, cluster: i.Cluster, answered: i.UpstreamURISAN,
		code: i.ResponseCode, flags: i.Flags, mutual: i.TLS != nil && len(i.TLS.PeerCertificates) > 0,
	}
	if i.Request != nil && strings.HasPrefix(i.Request.Fields.Get("content-type"), "application/grpc") {
		k.grpc = true
		if k.grpcStatus = i.Trailers.Get("grpc-status"); k.grpcStatus == "" && i.Response != nil {
			k.grpcStatus = i.Response.Fields.Get("grpc-status")
		}
	}
	return k
}

// resolve finds the metrics of a label set, and makes room for it while there is any.
func (m *httpMetrics) resolve(k key, i *streaminfo.Info) *handles {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.handles[k]; h != nil {
		return h
	}
	if len(m.handles) >= maxSeries {
		m.overflow.Inc()
		k = key{code: k.code}
		if h := m.handles[k]; h != nil {
			return h
		}
		i = &streaminfo.Info{Connection: &streaminfo.Connection{}, ResponseCode: k.code}
	}
	protocol := "http"
	if k.grpc {
		protocol = "grpc"
	}
	values := append(labelValues(i), protocol, strconv.Itoa(k.code), k.grpcStatus, k.flags.String(), security(k.mutual))
	h := &handles{
		requests: m.requests.WithLabelValues(values...), durations: m.durations.WithLabelValues(values...),
		received: m.received.WithLabelValues(values...), sent: m.sent.WithLabelValues(values...),
	}
	// What stays in the map must not stand in a connection's buffer.
	k.principal, k.cluster, k.grpcStatus = strings.Clone(k.principal), strings.Clone(k.cluster), strings.Clone(k.grpcStatus)
	m.handles[k] = h
	return h
}
