package measure

import (
	"math"
	"os"
	"testing"
)

// A ratio is the median of the rounds' own, whatever a round's level; its interval
// covers it and is as narrow as the ratios agree.
func TestRatioOf(t *testing.T) {
	a, b := []float64{10, 200, 30, 44, 50}, []float64{20, 400, 60, 80, 100}
	r := RatioOf(a, b)
	if r.Median != 0.5 || r.Low != 0.5 || r.High < 0.5 || r.High > 0.55 {
		t.Errorf("got %v", r)
	}
	if r := RatioOf([]float64{1}, []float64{0}); !math.IsNaN(r.Median) || r.String() != "-" {
		t.Errorf("nothing to compare is %v", r)
	}
}

// What the kernel says of a process is read.
func TestProcess(t *testing.T) {
	if rss, err := RSS(os.Getpid()); err != nil || rss < 1<<20 {
		t.Errorf("%d bytes, %v", rss, err)
	}
	if _, err := CPU(os.Getpid()); err != nil {
		t.Error(err)
	}
	if _, err := CPU(-1); err == nil {
		t.Error("a process that is not there has used something")
	}
}
