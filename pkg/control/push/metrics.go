package push

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the server's.
type metrics struct {
	pushes, nacks  *prometheus.CounterVec
	refused, bytes prometheus.Counter
	acknowledged   *prometheus.HistogramVec
	types          map[string]typeMetrics // never changed
}

// typeMetrics are those of one type, found once: a change is sent to thousands.
type typeMetrics struct {
	pushes       prometheus.Counter
	acknowledged prometheus.Observer
}

// of are those of a type that is served.
func (m *metrics) of(typeURL string) typeMetrics { return m.types[typeURL] }

func newMetrics(s *Server, registry *prometheus.Registry) (*metrics, error) {
	m := &metrics{
		pushes:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_xds_pushes_total", Help: "Responses sent."}, []string{"type"}),
		nacks:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_xds_nacks_total", Help: "Responses that a client refused."}, []string{"type"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "fairlead_xds_streams_refused_total", Help: "Streams refused for who asked, or because too many came at once."}),
		bytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "fairlead_xds_sent_bytes_total", Help: "Bytes of resources sent."}),
		acknowledged: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fairlead_xds_acknowledged_seconds", Help: "From sending a response to its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30},
		}, []string{"type"}),
	}
	m.types = map[string]typeMetrics{}
	for _, t := range slices.Concat(meshTypes, envoyTypes) {
		m.types[t] = typeMetrics{m.pushes.WithLabelValues(kindOf(t)), m.acknowledged.WithLabelValues(kindOf(t))}
	}
	count := func(name, help string, counts func(*client) bool) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			n := 0
			for c := range s.clients {
				if counts(c) {
					n++
				}
			}
			return float64(n)
		})
	}
	for _, c := range []prometheus.Collector{
		m.pushes, m.nacks, m.refused, m.bytes, m.acknowledged,
		count("fairlead_xds_clients", "Clients connected.", func(*client) bool { return true }),
		count("fairlead_xds_clients_refusing", "Clients that refused a resource and have not taken it since.", (*client).refusing),
	} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
