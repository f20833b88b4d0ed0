package histogram

import (
	"math"
	"slices"
	"sync"
	"testing"
	"time"
)

func of(ms ...int) *Snapshot {
	var h Lazy
	for _, v := range ms {
		h.Observe(time.Duration(v)*time.Millisecond + 999*time.Microsecond)
	}
	var s Snapshot
	s.Add(h.Load())
	return &s
}

// The quantiles are those that an Envoy 1.40 shows for the same times.
func TestQuantiles(t *testing.T) {
	for name, c := range map[string]struct {
		times []int
		want  map[float64]float64
	}{
		"nothing":     {nil, map[float64]float64{0: math.NaN(), 1: math.NaN()}},
		"zeros":       {[]int{0, 0}, map[float64]float64{0: 0, 1: 0}},
		"one":         {[]int{4}, map[float64]float64{0: 4.05, 0.5: 4.05, 1: 4.05}},
		"seven":       {[]int{1, 1, 1, 11, 1, 1, 1}, map[float64]float64{0: 1.0142857142857142, 0.25: 1.0285714285714285, 0.5: 1.0571428571428572, 0.75: 1.0857142857142856, 0.9: 11.5, 1: 11.5}},
		"eight":       {[]int{1, 1, 1, 1, 1, 1, 1, 1}, map[float64]float64{0: 1.0111111111111111, 0.9: 1.0888888888888888, 1: 1.0888888888888888}},
		"four":        {[]int{2, 4, 12, 64}, map[float64]float64{0: 2.05, 0.25: 2.05, 0.5: 4.05, 0.75: 12.5, 0.9: 64.5}},
		"hundreds":    {[]int{123}, map[float64]float64{0.5: 125}},
		"long":        {[]int{3_600_000}, map[float64]float64{0.5: 3_650_000}},
		"longer":      {[]int{1 << 40}, map[float64]float64{0.5: 9_950_000}},
		"below zero":  {[]int{-5}, map[float64]float64{0.5: 0}},
		"three kinds": {[]int{0, 9, 10, 99, 100, 999, 1000}, map[float64]float64{0: 0, 1: 1050}},
	} {
		s := of(c.times...)
		for q, want := range c.want {
			if got := s.Quantile(q); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
				t.Errorf("%s: P%v is %v, want %v", name, q*100, got, want)
			}
		}
	}
}

func TestBuckets(t *testing.T) {
	s := of(0, 1, 4, 5, 26, 249, 90_000, 5_000_000)
	want := []uint64{1, 2, 4, 4, 4, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 7}
	if got := s.Buckets(); !slices.Equal(got, want) || s.Count != 8 || s.Sum != 5_090_285 {
		t.Errorf("%v, %d times, %d ms; want %v", got, s.Count, s.Sum, want)
	}
}

// Counting takes no room but that of a decade, and loses nothing at the same time.
func TestCounting(t *testing.T) {
	var h Histogram
	h.Observe(5 * time.Millisecond)
	if n := testing.AllocsPerRun(100, func() { h.Observe(7 * time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	var l Lazy
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 1000 {
				l.Observe(time.Duration(i*j) * time.Millisecond)
			}
		})
	}
	all.Wait()
	var s Snapshot
	s.Add(l.Load())
	s.Add(&h)
	if s.Count != 8000+102 {
		t.Errorf("%d counted", s.Count)
	}
}
