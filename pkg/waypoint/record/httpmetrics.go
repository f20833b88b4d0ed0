package record

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// buckets are Istio's, of milliseconds and bytes alike.
var buckets = []float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}

// httpMetrics are Istio's metrics of requests: each is counted once, however often it
// was tried.
type httpMetrics struct {
	f                              *Factory
	requests                       *prometheus.CounterVec
	durations, received, sent      *prometheus.HistogramVec
	requestMessages, replyMessages *prometheus.CounterVec
	series                         *series
	lasting                        lasting

	// mu guards below.
	mu    sync.RWMutex
	found map[key]*handles
}

var _ hcm.Follower = (*httpMetrics)(nil)

// noStatus is the gRPC status of an exchange that has none.
const noStatus = -1

// key is what an exchange's labels depend on.
type key struct {
	source, destination *streaminfo.Workload
	principal, answered string // SPIFFE ids of who called and of who answered
	cluster, chain      string
	code                int
	flags               streaminfo.Flags
	status              int16 // of gRPC, or noStatus
	grpc, mutual        bool
}

type handles struct {
	requests                  prometheus.Counter
	messages                  messages // of gRPC, or nil ones
	durations, received, sent prometheus.Observer
	overflow                  prometheus.Counter // or nil
}

// messages are the counters of both directions.
type messages struct{ requests, replies prometheus.Counter }

func newHTTPMetrics(f *Factory) (*httpMetrics, error) {
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, requestLabelNames)
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, requestLabelNames)
	}
	overflow := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "fairlead_request_metrics_overflow_total", Help: "Requests counted with few labels because there were too many label sets.",
	})
	m := &httpMetrics{
		f:               f,
		requests:        counter("istio_requests_total", "Requests."),
		requestMessages: counter("istio_request_messages_total", "Messages of gRPC requests."),
		replyMessages:   counter("istio_response_messages_total", "Messages of gRPC responses."),
		durations:       histogram("istio_request_duration_milliseconds", "Time from a request's beginning to its response's end, in milliseconds."),
		received:        histogram("istio_request_bytes", "Bytes of requests' bodies."),
		sent:            histogram("istio_response_bytes", "Bytes of responses' bodies."),
		series:          newSeries(overflow),
		lasting:         lasting{live: map[*streaminfo.Info]*stream{}},
		found:           map[key]*handles{},
	}
	for _, c := range []prometheus.Collector{m.requests, followed{m.requestMessages, &m.lasting}, followed{m.replyMessages, &m.lasting}, m.durations, m.received, m.sent, overflow} {
		if err := f.o.Registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Record implements [hcm.Recorder].
func (m *httpMetrics) Record(i *streaminfo.Info) {
	k := keyOf(i)
	m.mu.RLock()
	h := m.found[k]
	m.mu.RUnlock()
	if h == nil {
		h = m.find(k, i)
	}
	h.requests.Inc()
	h.durations.Observe(float64(i.Duration) / float64(time.Millisecond))
	h.received.Observe(float64(i.BytesReceived))
	h.sent.Observe(float64(i.BytesSent))
	switch {
	case i.Lasting:
		m.lasting.end(i, h.messages)
	case k.grpc:
		h.messages.requests.Add(float64(i.RequestMessages.Count()))
		h.messages.replies.Add(float64(i.ResponseMessages.Count()))
	}
	if h.overflow != nil {
		h.overflow.Inc()
	}
}

// Lasts implements [hcm.Follower].
func (m *httpMetrics) Lasts(i *streaminfo.Info) {
	k := keyOf(i)
	if k.grpc {
		k.status = noStatus
		m.lasting.follow(i, m.messages(m.values(k, i)))
	}
}

// Forget implements [hcm.Follower].
func (m *httpMetrics) Forget(i *streaminfo.Info) { m.lasting.forget(i) }

func keyOf(i *streaminfo.Info) key {
	k := key{
		source: i.Source, destination: i.Destination, principal: i.PeerURISAN, answered: i.UpstreamURISAN,
		cluster: i.Cluster, chain: i.Chain, code: i.ResponseCode, flags: i.Flags, status: noStatus, mutual: mutual(i),
	}
	if i.Request != nil && i.Request.GRPC() {
		k.grpc, k.status = true, grpcStatus(i)
	}
	return k
}

// maxGRPC is the largest status that gRPC knows, and otherGRPC stands for all that it
// does not.
const (
	maxGRPC   = 16
	otherGRPC = maxGRPC + 1
)

// grpcStatus is that of the trailers, else of the head, else the one that stands for
// the HTTP status.
func grpcStatus(i *streaminfo.Info) int16 {
	v, ok := i.Trailers.Lookup("grpc-status")
	if !ok && i.Response != nil {
		v, ok = i.Response.Fields.Lookup("grpc-status")
	}
	if ok {
		if n, err := strconv.ParseUint(v, 10, 8); err == nil && n <= maxGRPC {
			return int16(n)
		}
		return otherGRPC
	}
	if i.ResponseCode == 0 {
		return noStatus
	}
	return int16(message.GRPCFromHTTP(i.ResponseCode)) //nolint:gosec // at most maxGRPC
}

// values are the labels of an exchange.
func (m *httpMetrics) values(k key, i *streaminfo.Info) []string {
	protocol, status := "http", ""
	if k.grpc {
		protocol = "grpc"
		if k.status == otherGRPC {
			status = unknown
		} else if k.status != noStatus {
			status = strconv.Itoa(int(k.status))
		}
	}
	return m.series.admit(append(labels(i, m.f.serviceOf(i), protocol), strconv.Itoa(k.code), status))
}

func (m *httpMetrics) messages(values []string) messages {
	return messages{m.requestMessages.WithLabelValues(values...), m.replyMessages.WithLabelValues(values...)}
}

// find resolves the metrics of a label set.
func (m *httpMetrics) find(k key, i *streaminfo.Info) *handles {
	values := m.values(k, i)
	h := &handles{
		requests: m.requests.WithLabelValues(values...), durations: m.durations.WithLabelValues(values...),
		received: m.received.WithLabelValues(values...), sent: m.sent.WithLabelValues(values...),
	}
	if k.grpc {
		h.messages = m.messages(values)
	}
	if past(values) {
		h.overflow = m.series.overflow
	}
	// What stays in the map must not stand in a connection's buffer.
	k.principal, k.answered, k.cluster, k.chain = strings.Clone(k.principal), strings.Clone(k.answered), strings.Clone(k.cluster), strings.Clone(k.chain)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.found) >= maxCached {
		clear(m.found)
	}
	m.found[k] = h
	return h
}
