package histogram

import "math"

// Bounds are those of Envoy's buckets, in milliseconds.
var Bounds = []float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}

// Snapshot is what histograms counted up to a moment. Its zero value is empty.
type Snapshot struct {
	// Count is how many times, and Sum what they are together in milliseconds.
	Count, Sum uint64
	bins       [decades]*[steps]uint64
}

// Add adds what a histogram has counted; nil adds nothing.
func (s *Snapshot) Add(h *Histogram) {
	if h == nil {
		return
	}
	s.Sum += h.sum.Load()
	for d := range h.bins {
		from := h.bins[d].Load()
		if from == nil {
			continue
		}
		if s.bins[d] == nil {
			s.bins[d] = new([steps]uint64)
		}
		for i := range from {
			n := from[i].Load()
			s.bins[d][i] += n
			s.Count += n
		}
	}
}

// each calls f with the bins in which something was counted, in order, until it returns
// false: from low on, width wide.
func (s *Snapshot) each(f func(low, width float64, n uint64) bool) {
	for d, bins := range s.bins {
		if bins == nil {
			continue
		}
		for i, n := range bins {
			if n == 0 {
				continue
			}
			low, width := float64(i), 0.1
			switch {
			case d == 0 && i == 0:
				width = 0
			case d > 0:
				width = math.Pow10(d - 1)
				low = float64(i+10) * width
			}
			if !f(low, width, n) {
				return
			}
		}
	}
}

// Quantile is the time that the share q of all does not exceed, as Envoy reckons it: the
// counts of a bin stand in equal distances. It is NaN where nothing was counted.
func (s *Snapshot) Quantile(q float64) float64 {
	rank := max(1, uint64(math.Ceil(q*float64(s.Count))))
	value, before := math.NaN(), uint64(0)
	s.each(func(low, width float64, n uint64) bool {
		if before+n < rank {
			before += n
			return true
		}
		value = low + width*float64(rank-before)/float64(n+1)
		return false
	})
	return value
}

// Buckets are how many did not exceed each of Bounds.
func (s *Snapshot) Buckets() []uint64 {
	out := make([]uint64, len(Bounds))
	s.each(func(low, width float64, n uint64) bool {
		last := low // the largest number in the bin
		if width > 1 {
			last = low + width - 1
		}
		for i, b := range Bounds {
			if last <= b {
				out[i] += n
			}
		}
		return true
	})
	return out
}
