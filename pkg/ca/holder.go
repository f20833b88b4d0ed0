package ca

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Holder holds the authority of the moment, which may be replaced while it is in use.
//
// An authority whose root the mesh does not trust yet does not sign at once: its roots
// are published beside those in force for a while, so that no peer meets a certificate
// that it cannot verify.
type Holder struct {
	settle  time.Duration
	log     *slog.Logger
	metrics *holderMetrics

	// mu guards below.
	mu      sync.Mutex
	current *Authority
	next    *Authority  // or nil; signs when its roots have settled
	timer   *time.Timer // or nil; makes next current
	former  []former    // those whose certificates may still be in use
	changed chan struct{}
}

// former is an authority that signed until then.
type former struct {
	*Authority
	until time.Time
}

// maxFormer bounds the memory of former authorities.
const maxFormer = 16

// HolderOptions of a [Holder].
type HolderOptions struct {
	// Settle is how long new roots take to reach everyone: kubelets bring a changed
	// ConfigMap to their pods within a minute or two. Zero waits for nothing.
	Settle   time.Duration
	Registry prometheus.Registerer // must be non-nil
	Logger   *slog.Logger          // must be non-nil
}

// NewHolder holds none yet.
func NewHolder(o HolderOptions) (*Holder, error) {
	if o.Registry == nil || o.Logger == nil || o.Settle < 0 {
		return nil, errors.New("ca: Registry and Logger must be set, Settle not negative")
	}
	h := &Holder{settle: o.Settle, log: o.Logger, changed: make(chan struct{})}
	var err error
	h.metrics, err = newHolderMetrics(o.Registry)
	return h, err
}

// Current is what signs now, or nil: there is none yet.
func (h *Holder) Current() *Authority {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current
}

// Changed is closed when Current is another. Take it before Current.
func (h *Holder) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// Set makes a the authority, at once or when its roots have settled. The same one as is
// in force, or as is waiting, changes nothing. from is where it was found, for the log.
func (h *Holder) Set(a *Authority, from string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.metrics.refused.Set(0)
	if h.next != nil && a.Equal(h.next) || h.next == nil && h.current != nil && a.Equal(h.current) {
		return
	}
	h.forgetLocked()
	if h.current == nil || h.settle == 0 || a.verify(h.current.roots) == nil {
		h.replaceLocked(a, from)
		return
	}
	h.next = a
	h.log.Warn("the CA has a root that the mesh does not trust yet: it is published now, and certificates come from it later",
		"from", from, "root", name(a.roots[0]), "in", h.settle)
	h.replaceLocked(h.current.with(a.roots), from)
	h.timer = time.AfterFunc(h.settle, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.next == a {
			h.forgetLocked()
			h.replaceLocked(a, from)
		}
	})
}

// Refuse notes that what was found at from cannot be taken: what is in force stays.
func (h *Holder) Refuse(from string, err error) {
	h.metrics.refused.Set(1)
	h.log.Error("the CA stays as it was: what was found is wrong", "from", from, "err", err)
}

// forgetLocked gives up what is waiting.
func (h *Holder) forgetLocked() {
	if h.timer != nil {
		h.timer.Stop()
	}
	h.next, h.timer = nil, nil
}

func (h *Holder) replaceLocked(a *Authority, from string) {
	before := h.current
	if before != nil && before.Equal(a) {
		return
	}
	h.current = a
	close(h.changed)
	h.changed = make(chan struct{})
	h.metrics.set(a)
	h.log.Info("the CA signs", "as", name(a.cert), "until", a.cert.NotAfter.UTC().Format(time.RFC3339), "roots", names(a.roots), "from", from)
	now := time.Now()
	h.former = slices.DeleteFunc(h.former, func(f former) bool { return now.Sub(f.until) > DefaultTTL || f.cert.Equal(a.cert) })
	if before != nil && !before.cert.Equal(a.cert) {
		h.former = append(h.former, former{before, now})
		h.former = h.former[max(0, len(h.former)-maxFormer):]
	}
	for _, f := range h.former {
		if f.verify(a.roots) != nil {
			h.log.Warn("certificates signed in the last day are trusted no more: no root holds for them; peers refuse them until each is renewed",
				"signed by", name(f.cert), "until", f.until.UTC().Format(time.RFC3339), "from", from)
		}
	}
}

func name(c *x509.Certificate) string { return c.Subject.String() + " #" + c.SerialNumber.Text(16) }

func names(certs []*x509.Certificate) (out []string) {
	for _, c := range certs {
		out = append(out, name(c))
	}
	return out
}

type holderMetrics struct {
	refused, roots    prometheus.Gauge
	certEnd, rootsEnd prometheus.Gauge
	replaced          prometheus.Counter
}

func newHolderMetrics(r prometheus.Registerer) (*holderMetrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &holderMetrics{
		refused:  gauge("fairlead_ca_material_refused", "1 while the CA's certificate, key or roots as they are stored are wrong and the ones before stay in force."),
		roots:    gauge("fairlead_ca_roots", "Roots that the mesh is told to trust."),
		certEnd:  gauge("fairlead_ca_certificate_end_seconds", "When the CA's certificate ends, in seconds since 1970."),
		rootsEnd: gauge("fairlead_ca_root_end_seconds", "When the first of the roots ends, in seconds since 1970."),
		replaced: prometheus.NewCounter(prometheus.CounterOpts{Name: "fairlead_ca_replaced_total", Help: "Changes of the CA's certificate or roots."}),
	}
	for _, c := range []prometheus.Collector{m.refused, m.roots, m.certEnd, m.rootsEnd, m.replaced} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *holderMetrics) set(a *Authority) {
	m.replaced.Inc()
	m.roots.Set(float64(len(a.roots)))
	m.certEnd.Set(float64(a.cert.NotAfter.Unix()))
	first := a.roots[0].NotAfter
	for _, r := range a.roots {
		if r.NotAfter.Before(first) {
			first = r.NotAfter
		}
	}
	m.rootsEnd.Set(float64(first.Unix()))
}
