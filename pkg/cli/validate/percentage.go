package validate

import (
	"fmt"
	"math"
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// note is a problem's severity where nothing is wrong.
const note source.Severity = "note"

// percentages says in words what share of requests a VirtualService's faults and
// mirrors take: `value: 0.1` is one in a thousand, and often meant to be one in ten.
func percentages(d source.Document) (out []source.Problem) {
	if d.Ref.Kind != "VirtualService" {
		return nil
	}
	rules, _ := document.At(d.Value(), "spec", "http").([]any)
	for i, rule := range rules {
		for _, p := range []struct {
			path []string
			what string
		}{
			{[]string{"fault", "abort", "percentage", "value"}, "aborted"},
			{[]string{"fault", "delay", "percentage", "value"}, "delayed"},
			{[]string{"mirrorPercentage", "value"}, "mirrored"},
		} {
			value, ok := document.At(rule, p.path...).(float64)
			if !ok || value <= 0 || value >= 100 {
				continue
			}
			field := fmt.Sprintf("spec.http[%d]", i)
			for _, step := range p.path {
				field += "." + step
			}
			out = append(out, source.Problem{
				Position: source.Position{File: d.File, Line: d.Line(field)}, Severity: note, Ref: d.Ref, Field: field,
				Message: fmt.Sprintf("%s %% of requests are %s, %s", strconv.FormatFloat(value, 'g', -1, 64), p.what, inWords(value)),
			})
		}
	}
	return out
}

// inWords is a percentage as "1 in 1000", or "about 1 in 3".
func inWords(percent float64) string {
	n := 100 / percent
	if whole := math.Round(n); math.Abs(n-whole) < 1e-6 {
		return fmt.Sprintf("1 in %.0f", whole)
	}
	return fmt.Sprintf("about 1 in %.1f", n)
}
