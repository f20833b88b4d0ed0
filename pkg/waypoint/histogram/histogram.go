// Package histogram counts times in log-linear bins, as Envoy's statistics do: two
// significant digits, whatever the size. The packages of pkg/waypoint import it.
package histogram

import (
	"sync/atomic"
	"time"
)

const (
	// steps are the bins of a decade: 10 to 99 times its power of ten.
	steps = 90
	// decades are what is told apart: up to 10^7 ms, or close to three hours. Longer
	// times are counted as that.
	decades = 7
)

// Histogram counts times in milliseconds. Its zero value is ready; a decade takes room
// (720 bytes) from the first time in it on. Anyone may use it at any time.
type Histogram struct {
	sum  atomic.Uint64
	bins [decades]atomic.Pointer[[steps]atomic.Uint64]
}

// Observe counts a time. It allocates nothing but the room of a decade.
func (h *Histogram) Observe(d time.Duration) {
	ms := uint64(max(d, 0) / time.Millisecond) //nolint:gosec // not negative
	decade, step := place(ms)
	bins := h.bins[decade].Load()
	if bins == nil {
		h.bins[decade].CompareAndSwap(nil, new([steps]atomic.Uint64))
		bins = h.bins[decade].Load()
	}
	bins[step].Add(1)
	h.sum.Add(ms)
}

// place is the bin of a value. The first decade is what is below ten, whose bins are as
// many as there are numbers.
func place(v uint64) (decade, step int) {
	if v < 10 {
		return 0, int(v)
	}
	for decade = 1; v >= 100; decade++ {
		if decade == decades-1 {
			return decade, steps - 1
		}
		v /= 10
	}
	return decade, int(v) - 10 //nolint:gosec // below 90
}

// Lazy is a histogram that takes a word of room until it is used.
type Lazy struct{ h atomic.Pointer[Histogram] }

// Observe is [Histogram.Observe].
func (l *Lazy) Observe(d time.Duration) {
	h := l.h.Load()
	if h == nil {
		l.h.CompareAndSwap(nil, &Histogram{})
		h = l.h.Load()
	}
	h.Observe(d)
}

// Load is the histogram, or nil: nothing was counted.
func (l *Lazy) Load() *Histogram { return l.h.Load() }
