package telemetry

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxSeries bounds the label sets of each metric. Past it connections are
// counted under labels that are all unknown, and the overflow is counted.
const maxSeries = 10_000

// maxHandles bounds the cache of resolved counters; it is emptied when full.
const maxHandles = 4_096

// connCounters are the counters of connections with equal labels.
type connCounters struct {
	opened, sent, received prometheus.Counter
	// closed without a flag; other flags are rare and looked up.
	closed prometheus.Counter
}

// Recorder opens records and owns their metrics. Its methods may be called by
// anyone at any time.
type Recorder struct {
	// Constant after New.
	opened, closed, failed, sent, received *prometheus.CounterVec
	open                                   *prometheus.GaugeVec
	overflow                               prometheus.Counter
	access                                 *AccessLog // or nil
	now                                    func() time.Time

	// mu guards below.
	mu      sync.Mutex
	handles map[labelKey]*connCounters
	series  map[uint64]struct{} // of label values, hashed
	live    map[*Record]struct{}
}

// NewRecorder registers the metrics of connections with registry. access may be
// nil: then no records are written.
func NewRecorder(registry *prometheus.Registry, access *AccessLog) (*Recorder, error) {
	vec := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labelNames)
	}
	r := &Recorder{
		opened:   vec("istio_tcp_connections_opened_total", "Connections opened."),
		closed:   vec("istio_tcp_connections_closed_total", "Connections closed."),
		failed:   vec("istio_tcp_connections_failed_total", "Connections refused or failed before both sides were connected."),
		sent:     vec("istio_tcp_sent_bytes_total", "Bytes from server to client."),
		received: vec("istio_tcp_received_bytes_total", "Bytes from client to server."),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "istio_tcp_sockets_open", Help: "Connections open now.",
		}, []string{"reporter"}),
		overflow: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fairlead_metrics_overflow_total", Help: "Connections counted without labels because there were too many label sets.",
		}),
		access:  access,
		now:     time.Now,
		handles: map[labelKey]*connCounters{},
		series:  map[uint64]struct{}{},
		live:    map[*Record]struct{}{},
	}
	for _, c := range []prometheus.Collector{r.opened, r.closed, r.failed, &reporting{r.sent, r}, &reporting{r.received, r}, r.open, r.overflow} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// reporting is a counter whose open connections report before it is collected.
type reporting struct {
	*prometheus.CounterVec
	recorder *Recorder
}

func (c *reporting) Collect(ch chan<- prometheus.Metric) {
	c.recorder.reportAll()
	c.CounterVec.Collect(ch)
}

// Open begins the record of a connection.
func (r *Recorder) Open(info Info) *Record {
	return &Record{recorder: r, info: info, opened: r.now()}
}

// Resume begins the record of a connection that another agent has handed over: it was
// opened and counted there, with the bytes so far. Here it is open from now on, its
// further bytes are counted, and its end; the record at its end tells of all of it.
func (r *Recorder) Resume(info Info, opened time.Time, toServer, toClient uint64) *Record {
	rec := &Record{recorder: r, info: info, opened: opened, established: true, reportedServer: toServer, reportedClient: toClient}
	rec.ToServer.Store(toServer)
	rec.ToClient.Store(toClient)
	rec.counters = r.counters(&info)
	r.keep(rec)
	return rec
}

// Live is a copy of the open connections' records, for the admin server.
func (r *Recorder) Live() []*Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*Record, 0, len(r.live))
	for rec := range r.live {
		out = append(out, rec)
	}
	return out
}

func (r *Recorder) reportAll() {
	for _, rec := range r.Live() {
		rec.report()
	}
}

func (r *Recorder) keep(rec *Record) {
	r.open.WithLabelValues(rec.info.Direction.reporter()).Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live[rec] = struct{}{}
}

func (r *Recorder) forget(rec *Record) {
	r.mu.Lock()
	_, kept := r.live[rec]
	delete(r.live, rec)
	r.mu.Unlock()
	if kept {
		r.open.WithLabelValues(rec.info.Direction.reporter()).Dec()
	}
}

// counters resolves the counters of connections like info.
func (r *Recorder) counters(info *Info) *connCounters {
	key := keyOf(info, FlagNone)
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.handles[key]; ok {
		return c
	}
	values := r.admitLocked(key)
	c := &connCounters{
		opened:   r.opened.WithLabelValues(values...),
		closed:   r.closed.WithLabelValues(values...),
		sent:     r.sent.WithLabelValues(values...),
		received: r.received.WithLabelValues(values...),
	}
	if len(r.handles) >= maxHandles {
		clear(r.handles)
	}
	r.handles[key] = c
	return c
}

func (r *Recorder) closedCounter(info *Info, c *connCounters, flag Flag) prometheus.Counter {
	if flag == FlagNone {
		return c.closed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed.WithLabelValues(r.admitLocked(keyOf(info, flag))...)
}

func (r *Recorder) failedCounter(info *Info, flag Flag) prometheus.Counter {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed.WithLabelValues(r.admitLocked(keyOf(info, flag))...)
}

// admitLocked returns the key's label values, or values that are all unknown
// when there are too many sets already.
func (r *Recorder) admitLocked(key labelKey) []string {
	values := key.values()
	id := fingerprint(values)
	if _, ok := r.series[id]; ok {
		return values
	}
	if len(r.series) >= maxSeries {
		r.overflow.Inc()
		return labelKey{direction: key.direction, mutualTLS: key.mutualTLS, flag: key.flag}.values()
	}
	r.series[id] = struct{}{}
	return values
}

var seed = maphash.MakeSeed()

// fingerprint tells label sets apart well enough to count them.
func fingerprint(values []string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, v := range values {
		h.WriteString(v)
		h.WriteByte(0)
	}
	return h.Sum64()
}
