package routing

import (
	"math"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	realenvoy "github.com/fairlead-mesh/fairlead/test/envoy"
)

// Backends with filters of their own get the shares of their weights from a real Envoy,
// and each its own filters.
func TestEnvoySplitsByFilters(t *testing.T) {
	realenvoy.Need(t)
	name := func(service string) string {
		return envoy.ClusterName(envoy.HTTP, service+".default.svc.cluster.local", 9080, "")
	}
	text := httpRoute("default", "split", january, `{matches: [{path: {value: /a}}], backendRefs: [
{name: reviews-v1, port: 9080, weight: 3, filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]},
{name: reviews-v2, port: 9080, weight: 2},
{name: details, port: 9080, weight: 0, filters: [{type: RequestRedirect, requestRedirect: {statusCode: 307}}]},
{name: ratings, port: 9080, weight: 1, filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /elsewhere}}}]},
{name: missing, port: 9080, weight: 1}]}`)
	config := ports(t, New(parse(t, base(t), []byte(text)), nil), nil)[name("reviews")].config
	w := start(t, config, []string{name("reviews-v1"), name("reviews-v2"), name("ratings"), name("details")}, map[string]string{"any": ""})
	const requests = 2100 // the client follows the redirect to where no rule is
	got := map[string]int{}
	for range requests {
		body, _ := w.get("any", "/a/x", nil)
		got[body]++
	}
	for answer, share := range map[string]float64{name("reviews-v1") + " /b/x": 3. / 7, name("reviews-v2") + " /a/x": 2. / 7, "404": 1. / 7, "500": 1. / 7} {
		// Six standard deviations.
		if off := math.Abs(float64(got[answer]) - share*requests); off > 6*math.Sqrt(requests*share*(1-share)) {
			t.Errorf("%s: %d of %d, want %.0f", answer, got[answer], requests, share*requests)
		}
		delete(got, answer)
	}
	if len(got) > 0 {
		t.Errorf("also answered: %v", got)
	}
}

// The shares of parts are those of the weights, and the last part has the rest.
func TestPartsAddUp(t *testing.T) {
	for _, weights := range [][]uint32{{1, 1, 1}, {1_000_000, 1, 999_999}, {90, 10}, {1}} {
		var g gatewayRule
		var total uint32
		for _, w := range weights {
			g.pieces = append(g.pieces, &gatewayRule{refs: []backendRef{{weight: w}}})
			total += w
		}
		g.setParts()
		var before uint32
		for i, p := range g.parts {
			want := float64(weights[i]) * million / float64(total)
			if math.Abs(float64(p.until-before)-want) > 1 {
				t.Errorf("%v: part %d has %d millionths, want %.1f", weights, i, p.until-before, want)
			}
			before = p.until
		}
		if before != million || g.parts[len(weights)-1].of(match{envoy: matchAll}).envoy.RuntimeFraction != nil {
			t.Errorf("%v: the last part ends at %d", weights, before)
		}
	}
}
