package tokenreview

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	// reviews is by result: proven and refused (by the API server), remembered,
	// implausible and limited (it was not asked), unavailable (it did not answer).
	reviews *prometheus.CounterVec
	took    prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_token_reviews_total", Help: "Callers' tokens, by what came of them."}, []string{"result"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fairlead_token_review_seconds", Help: "Time of one TokenReview of the API server.", Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
		}),
	}
	for _, c := range []prometheus.Collector{m.reviews, m.took} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
