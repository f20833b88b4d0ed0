package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestTour holds that objects do what their documentation says, from the YAML to the
// request, with our waypoint and with an Envoy that our control plane configures.
func TestTour(t *testing.T) {
	build(t)
	engines(t, func(t *testing.T, engine string) {
		w := newTour(t, engine)
		alike := 0
		for _, s := range tourStops {
			patience, times := 20*time.Second, 1
			differs := underIstiod() && istiodDiffers[s.name] != ""
			if differs { // and not only at times
				patience, times = 5*time.Second, 10
			}
			w.write(t, "stop.yaml", s.yaml)
			missing := w.settled(s, patience, times)
			switch {
			case missing == "" && differs:
				t.Errorf("%s: under istiod it is as it should be, and istiodDiffers says otherwise: %s", s.name, istiodDiffers[s.name])
			case missing == "":
				alike++
			case !differs:
				t.Errorf("%s: %s", s.name, missing)
			}
		}
		t.Logf("%d of %d stops are as they should be", alike, len(tourStops))
	})
}

// settled is what is missing of a stop that is to be all there several times in a row,
// after some patience, or "".
func (w *tour) settled(s stop, patience time.Duration, times int) (missing string) {
	seen := 0
	for start := time.Now(); seen < times && time.Since(start) < patience; seen++ {
		if missing = w.missing(s); missing != "" {
			seen = -1
		}
	}
	return missing
}

// virtualService is one for reviews, of rules in YAML.
func virtualService(http string) string {
	return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews, namespace: shop}\nspec:\n  hosts: [reviews]\n  http:\n" + indented(http, "  ") + subsets
}

const subsets = `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
`

const (
	toV1  = "route: [{destination: {host: reviews, subset: v1}}]"
	toV2  = "route: [{destination: {host: reviews, subset: v2}}]"
	other = "- " + toV1 + "\n"
)

func matching(match string) string { return "- match: [" + match + "]\n  " + toV2 + "\n" + other }

// httpRoute is one for reviews, of rules in YAML.
func httpRoute(rules string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: reviews, namespace: shop}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: reviews}]\n  rules:\n" + indented(rules, "  ")
}

// versionService is a Service of the version alone, as the Gateway API names versions.
func versionService(version string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: reviews-%s, namespace: shop}\nspec:\n  selector: {app: reviews, version: %s}\n  ports: [{name: http, port: 80, targetPort: 8080}]\n", version, version)
}

func indented(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+by) + "\n"
}

func destinationRuleOf(policy string) string {
	return "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews, namespace: shop}\nspec:\n  host: reviews\n  trafficPolicy:\n" + indented(policy, "    ")
}

// ofV1 and ofV2 are how an answer of a version begins.
const (
	ofV1 = "^200 one$"
	ofV2 = "^200 two$"
)

// same wants n requests at one server, for each of some values of a header, and not all
// of them at the same.
func same(header string, values int) func(*tour) string {
	return func(w *tour) string {
		servers := map[string]bool{}
		for v := range values {
			at := ""
			for range 4 {
				got, _, _ := strings.Cut(w.ask("GET reviews/", map[string]string{header: fmt.Sprintf("k=%d", v)}), "\n")
				if at == "" {
					at = got
				}
				if got != at || !strings.HasPrefix(got, "200") {
					return fmt.Sprintf("%s %d went to %q and to %q", header, v, at, got)
				}
			}
			servers[at] = true
		}
		if len(servers) != 2 {
			return fmt.Sprintf("all went to %v", servers)
		}
		return ""
	}
}

// connections wants what comes back from places; "" is that nothing does.
func (w *tour) connections(places map[string]string) string {
	for place, want := range places {
		got := w.connect(place)
		if want == "" && strings.Contains(got, "tcp of") || !regexp.MustCompile(want).MatchString(got) {
			return fmt.Sprintf("%s: %q, want %q", place, got, want)
		}
	}
	return ""
}

// always wants all requests at one server.
func always(first string) func(*tour) string {
	return func(w *tour) string {
		for range 20 {
			if got, _, _ := strings.Cut(w.ask("GET reviews/", nil), "\n"); got != first {
				return got
			}
		}
		return ""
	}
}

// spread wants requests at both servers.
func spread(w *tour) string {
	at := map[string]int{}
	for range 40 {
		got, _, _ := strings.Cut(w.ask("GET reviews/", nil), "\n")
		at[got]++
	}
	if at["200 one"] < 4 || at["200 two"] < 4 {
		return fmt.Sprintf("40 requests went to %v", at)
	}
	return ""
}
