package pages

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/histogram"
)

// timing is a histogram under Envoy's name.
type timing struct {
	name string
	of   *histogram.Snapshot
}

// timings are the histograms of clusters and connection managers, by name.
func (p *Pages) timings() (out []timing) {
	for _, name := range p.o.Clusters.Names() {
		if c := p.o.Clusters.Get(name); c != nil {
			for key, s := range c.Timings() {
				if name := "cluster." + c.StatName() + "." + key; p.o.Included == nil || p.o.Included(name) {
					out = append(out, timing{name, s})
				}
			}
		}
	}
	for name, s := range p.o.Engine.Timings() {
		out = append(out, timing{name, s})
	}
	slices.SortFunc(out, func(a, b timing) int { return cmp.Compare(a.name, b.name) })
	return out
}

// quantiles are those that Envoy shows.
var quantiles = []float64{0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1}

// percents are the quantiles in percent, as they are written.
var percents = []float64{0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100}

// buckets is which form of histograms a query asks for, as Envoy's histogram_buckets.
type buckets string

const (
	summary    buckets = "summary"
	cumulative buckets = "cumulative"
	disjoint   buckets = "disjoint"
)

// bucketsOf reads the query's word; false: there is no such form.
func bucketsOf(word string) (buckets, bool) {
	switch b := buckets(word); b {
	case "", "none":
		return summary, true
	case summary, cumulative, disjoint:
		return b, true
	}
	return "", false
}

// counts are a histogram's, in the form that is asked for.
func (b buckets) counts(s *histogram.Snapshot) []uint64 {
	out := s.Buckets()
	if b == disjoint {
		for i := len(out) - 1; i > 0; i-- {
			out[i] -= out[i-1]
		}
	}
	return out
}

// text is a histogram's line. Of two values in brackets the first is Envoy's of its last
// five seconds: those are not kept here.
func (t timing) text(form buckets) string {
	if t.of.Count == 0 {
		return t.name + ": No recorded values"
	}
	var b strings.Builder
	b.WriteString(t.name + ":")
	if form == summary {
		for i, q := range quantiles {
			fmt.Fprintf(&b, " P%s(nan,%s)", short(percents[i]), short(t.of.Quantile(q)))
		}
		return b.String()
	}
	for i, n := range form.counts(t.of) {
		fmt.Fprintf(&b, " B%s(0,%d)", strconv.FormatFloat(histogram.Bounds[i], 'g', -1, 64), n)
	}
	return b.String()
}

func short(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// histogramsJSON is what stands of histograms in the list of statistics.
func histogramsJSON(all []timing, form buckets) any {
	if form != summary {
		list := []any{}
		for _, t := range all {
			of := []any{}
			for i, n := range form.counts(t.of) {
				of = append(of, map[string]any{"upper_bound": histogram.Bounds[i], "interval": 0, "cumulative": n})
			}
			list = append(list, map[string]any{"name": t.name, "buckets": of})
		}
		return map[string]any{"histograms": list}
	}
	computed := []any{}
	for _, t := range all {
		values := []any{}
		for _, q := range quantiles {
			var v any
			if f := t.of.Quantile(q); !math.IsNaN(f) {
				v = f
			}
			values = append(values, map[string]any{"interval": nil, "cumulative": v})
		}
		computed = append(computed, map[string]any{"name": t.name, "values": values})
	}
	return map[string]any{"histograms": map[string]any{"supported_quantiles": percents, "computed_quantiles": computed}}
}
