package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const ownWeights = `apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: reviews-canary
  namespace: default
spec:
  hosts:
    - reviews
  http:
    - route:
        - destination:
            host: reviews
            subset: v1
          weight: 90
        - destination:
            host: reviews
            subset: v2
          weight: 10
---
# Later: 50 and 50.
---
# Then v2 alone.
`

// versions are the subsets that the tutorial uses and does not define.
func versions(host string) string {
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %[1]s-versions, namespace: default}
spec:
  host: %[1]s
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
`, host)
}

// TestRowCanaryByWeight is row S7: 90/10, 50/50, v2 alone, by editing the YAML. Each
// change is live within a second, and no request of 500 a second fails.
func TestRowCanaryByWeight(t *testing.T) {
	needRows(t)
	engines(t, func(t *testing.T, engine string) {
		w := newWorld(t, engine, "reviews", "", "one=v1", "two=v2")
		text := manifest(t, "06-canary-weight-based.yaml", ownWeights)
		w.write(t, "versions.yaml", versions("reviews"))
		v1 := edited(t, edited(t, text, "weight: 90", "weight: 100"), "weight: 10\n", "weight: 0\n")
		v2 := edited(t, edited(t, text, "weight: 90", "weight: 0"), "weight: 10\n", "weight: 100\n")
		w.write(t, "routes.yaml", v1)
		w.live("v1", nil)
		load := w.steady(500)
		share := func(what, yaml string, low, high int) {
			w.write(t, "routes.yaml", yaml)
			written := time.Now()
			eventually(t, "a second is over", func() bool { return time.Since(written) > time.Second })
			between(t, what, w.tally(w.many(10_000, 16, nil))["v2"], low, high)
		}
		share("90/10: v2 of 10,000", text, 880, 1120)
		share("50/50: v2 of 10,000", edited(t, edited(t, text, "weight: 90", "weight: 50"), "weight: 10\n", "weight: 50\n"), 4800, 5200)
		share("v2 alone: v2 of 10,000", v2, 10_000, 10_000)
		// The sharpest change: from all to nothing.
		for _, c := range []struct{ yaml, from, to string }{{v1, "v2", "v1"}, {v2, "v1", "v2"}, {v1, "v2", "v1"}} {
			written := time.Now()
			w.write(t, "routes.yaml", c.yaml)
			eventually(t, c.to+" answers alone", func() bool {
				return time.Since(written) > 1500*time.Millisecond && load.lastOf(c.to).After(load.lastOf(c.from).Add(500*time.Millisecond))
			})
			if late := load.lastOf(c.from).Sub(written); late > time.Second {
				t.Errorf("%s was sent a request %s after the change", c.from, late)
			} else {
				t.Logf("from %s to %s in %s", c.from, c.to, max(late, 0).Round(time.Millisecond))
			}
		}
		load.stop()
		t.Logf("%d requests beside them, %d failed", load.sent, len(load.failed))
		if len(load.failed) > 0 {
			t.Errorf("%d of %d requests failed: %s", len(load.failed), load.sent, load.failed[0])
		}
	})
}

const ownContent = `apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: reviews-canary
  namespace: default
spec:
  hosts:
    - reviews
  http:
    - match:
        - headers:
            cookie:
              regex: "^(.*?;)?(test-user=true)(;.*)?$"
      route: [{destination: {host: reviews, subset: v2}}]
    - match:
        - headers:
            user-agent:
              regex: ".*(iPhone|Android).*"
      route: [{destination: {host: reviews, subset: v2}}]
    - match:
        - headers:
            x-canary:
              exact: "true"
      route: [{destination: {host: reviews, subset: v2}}]
    - route: [{destination: {host: reviews, subset: v1}, weight: 100}]
`

// TestRowCanaryByContent is row S8: 1000 of 1000 for each cookie, user agent and header;
// a hostile cookie costs linear time.
func TestRowCanaryByContent(t *testing.T) {
	needRows(t)
	engines(t, func(t *testing.T, engine string) {
		w := newWorld(t, engine, "reviews", "", "one=v1", "two=v2")
		w.write(t, "versions.yaml", versions("reviews"))
		w.write(t, "routes.yaml", manifest(t, "07-canary-content-based.yaml", ownContent))
		w.live("v2", http.Header{"X-Canary": {"true"}})
		w.live("v1", nil)
		for _, c := range []struct{ name, value, want string }{
			{"Cookie", "test-user=true", "v2"}, {"Cookie", "a=1;test-user=true;b=2", "v2"}, {"Cookie", "test-user=true; a=1", "v2"},
			{"Cookie", "a=1; test-user=true", "v1"}, {"Cookie", "xtest-user=true", "v1"}, {"Cookie", "test-user=false", "v1"},
			{"User-Agent", "Mozilla/5.0 (iPhone; CPU)", "v2"}, {"User-Agent", "Mozilla/5.0 (Linux; Android 14)", "v2"}, {"User-Agent", "Mozilla/5.0 (X11)", "v1"},
			{"X-Canary", "true", "v2"}, {"X-Canary", "TRUE", "v1"}, {"X-Other", "true", "v1"},
		} {
			got := w.tally(w.many(1000, 16, func(int) http.Header { return http.Header{c.name: {c.value}} }))
			if got[c.want] != 1000 {
				t.Errorf("%s: %s: %v, want 1000 of %s", c.name, c.value, got, c.want)
			}
		}
		cost := func(size int) time.Duration {
			cookie := strings.Repeat(";test-user=tru", size/14)
			best := time.Hour
			for range 20 {
				a := w.ask(http.Header{"Cookie": {cookie}})
				if a.err != nil || a.status != 200 && a.status != 431 {
					t.Fatalf("a cookie of %d bytes: status %d, %v", size, a.status, a.err)
				}
				best = min(best, a.took)
			}
			return best
		}
		small, large := cost(7_500), cost(59_000)
		t.Logf("a cookie of 7.5 KB takes %s, of 59 KB %s", small, large)
		if large > 16*small+20*time.Millisecond { // eight times the bytes
			t.Errorf("a cookie of 59 KB takes %s, one of 7.5 KB %s", large, small)
		}
	})
}

// TestRowAffinity is the half of row S25 that is about users: 1000 users with 10 requests
// each stay on one version; they move only from v1 to v2 as the weight grows, over
// restarts of the waypoint and its replicas, and all return.
func TestRowAffinity(t *testing.T) {
	needRows(t)
	weights := func(v2 int) string {
		return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default, annotations: {fairlead.dev/session-affinity: cookie=user}}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: %d}
    - {destination: {host: reviews, subset: v2}, weight: %d}
    headers: {response: {set: {x-weight: "%d"}}}
`, 100-v2, v2, v2)
	}
	persistence := func(v2 int) string {
		return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: default}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews, port: 9080}]
  rules:
  - sessionPersistence: {sessionName: user, type: Cookie}
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-weight, value: "%d"}]}}]
    backendRefs:
    - {name: reviews-v1, port: 9080, weight: %d}
    - {name: reviews-v2, port: 9080, weight: %d}
---
apiVersion: v1
kind: Service
metadata: {name: reviews-v1, namespace: default}
spec: {selector: {app: reviews, version: v1}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews-v2, namespace: default}
spec: {selector: {app: reviews, version: v2}, ports: [{name: http, port: 9080}]}
`, v2, 100-v2, v2)
	}
	for name, yaml := range map[string]func(int) string{"VirtualService": weights, "HTTPRoute": persistence} {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, engine string) {
				w := newWorld(t, engine, "reviews", `, fairlead.dev/waypoint-replicas: "2"`, "one=v1", "two=v2")
				if name == "VirtualService" {
					w.write(t, "versions.yaml", versions("reviews"))
				}
				affinity(t, w, yaml)
			})
		})
	}
}

func affinity(t *testing.T, w *world, yaml func(v2 int) string) {
	const users = 1000
	before := map[int]bool{} // who was on v2
	for _, step := range []struct {
		v2, low, high int
		restart       bool
	}{{10, 62, 138, false}, {25, 195, 305, true}, {50, 437, 563, false}, {75, 695, 805, true}, {100, users, users, false}, {10, 62, 138, false}, {0, 0, 0, false}} {
		w.write(t, "routes.yaml", yaml(step.v2))
		var last answer // that was not as it should be
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("at %d %%: %+v", step.v2, last)
			}
		})
		eventually(t, fmt.Sprintf("v2 has %d %%, in both replicas", step.v2), func() bool {
			for _, a := range w.many(40, 8, nil) {
				if a.err != nil || a.header.Get("x-weight") != fmt.Sprint(step.v2) {
					last = a
					return false
				}
			}
			return true
		})
		now := map[int]bool{}
		if step.restart {
			if ready, _ := w.pods(t, "default", "waypoint"); len(ready) > 0 {
				w.run(t, "lab", "delete", "--name", w.name, "pod", "default/"+ready[0])
			}
		}
		got := w.many(users*10, 16, func(i int) http.Header {
			return http.Header{"Cookie": {fmt.Sprintf("theme=dark; user=u%d", i%users)}}
		})
		w.tally(got)
		for i, a := range got {
			user, onV2 := i%users, a.version == "v2"
			if was, known := now[user]; known && was != onV2 {
				t.Fatalf("at %d %% user %d saw both versions", step.v2, user)
			}
			now[user] = onV2
		}
		n, back, there := 0, 0, 0
		for user, onV2 := range now {
			if onV2 {
				n++
			}
			switch {
			case before[user] && !onV2:
				back++
			case !before[user] && onV2:
				there++
			}
		}
		between(t, fmt.Sprintf("at %d %%, users on v2", step.v2), n, step.low, step.high)
		grows := n >= len(onVersion2(before))
		if grows && back > 0 || !grows && there > 0 {
			t.Errorf("at %d %%: %d users went to v2 and %d back", step.v2, there, back)
		}
		before = now
	}
}

// onVersion2 are the users on v2.
func onVersion2(of map[int]bool) (out []int) {
	for user, on := range of {
		if on {
			out = append(out, user)
		}
	}
	return out
}
