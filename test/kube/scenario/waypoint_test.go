package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// subsets of reviews, once as Istio's DestinationRule and once as Services for HTTPRoute.
const versions = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v3, labels: {version: v3}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews-v1}
spec: {selector: {app: reviews, version: v1}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews-v3}
spec: {selector: {app: reviews, version: v3}, ports: [{name: http, port: 9080}]}
`

const virtualService = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {x-canary: {exact: "true"}}}]
    route: [{destination: {host: reviews, subset: v3}}]
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v3}, weight: 10}
`

const httpRoute = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews, port: 9080}]
  rules:
  - matches: [{headers: [{name: x-canary, value: "true"}]}]
    backendRefs: [{name: reviews-v1, port: 9080}]
  - backendRefs:
    - {name: reviews-v1, port: 9080, weight: 50}
    - {name: reviews-v3, port: 9080, weight: 50}
`

// served counts which version answered n requests for reviews.
func served(t *testing.T, m *mesh.Mesh, ns string, n int, headers ...string) map[string]int {
	t.Helper()
	args := []string{"fairlead", "app", "load", "--url", "http://reviews:9080/reviews/1", "--requests", fmt.Sprint(n), "--concurrency", "4", "--count", `"podname": *"(reviews-v[0-9])`}
	for _, h := range headers {
		args = append(args, "--header", h)
	}
	return load(t, m, ns, args...).Answers
}

func TestCanaryAndPolicyAtADeployedWaypoint(t *testing.T) {
	m := installed(t)
	const ns = "canary"
	m.Namespace(t, ns, true)
	bookinfo(t, m, ns)
	waypoint(t, m, ns)
	m.Do(t, "-n", ns, "label", "service", "reviews", "istio.io/use-waypoint=waypoint")
	m.Apply(t, versions, "-n", ns)

	m.Apply(t, virtualService, "-n", ns)
	only := func(what, version string, headers ...string) {
		t.Helper()
		mesh.Eventually(t, what, func() error {
			if got := served(t, m, ns, 20, headers...); got[version] != 20 {
				return fmt.Errorf("answered by %v, want %s alone", got, version)
			}
			return nil
		})
	}
	only("the VirtualService sends who asks for it to v3", "reviews-v3", "x-canary: true")
	got := served(t, m, ns, 400)
	if got["reviews-v1"]+got["reviews-v3"] != 400 || got["reviews-v3"] < 15 || got["reviews-v3"] > 80 {
		t.Errorf("the VirtualService's split of 90 to 10 was %v", got)
	}
	m.Do(t, "-n", ns, "delete", "virtualservice", "reviews")

	m.Apply(t, httpRoute, "-n", ns)
	only("the HTTPRoute sends who asks for it to v1", "reviews-v1", "x-canary: true")
	got = served(t, m, ns, 400)
	if got["reviews-v1"]+got["reviews-v3"] != 400 || got["reviews-v3"] < 140 || got["reviews-v3"] > 260 {
		t.Errorf("the HTTPRoute's split in halves was %v", got)
	}
	status := m.Do(t, "-n", ns, "get", "httproute", "reviews", "-o", `jsonpath={.status.parents[*].conditions[?(@.type=="Accepted")].status}`)
	if status != "True" {
		t.Errorf("the HTTPRoute's condition Accepted is %q", status)
	}

	m.Apply(t, `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reviews}
spec:
  targetRefs: [{kind: Service, group: "", name: reviews}]
  action: ALLOW
  rules:
  - from: [{source: {principals: ["cluster.local/ns/canary/sa/client"]}}]
    to: [{operation: {methods: ["GET"], paths: ["/reviews/*"]}}]
`, "-n", ns)
	code := func(args ...string) string {
		out, err := m.Exec(t.Context(), ns, "client", append([]string{"curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "http://reviews:9080/reviews/1"}, args...)...)
		if err != nil {
			return err.Error()
		}
		return out
	}
	mesh.Eventually(t, "what the policy does not allow is refused", func() error {
		if got := code("-X", "DELETE"); got != "403" {
			return errors.New("DELETE: " + got)
		}
		return nil
	})
	if got := code(); got != "200" {
		t.Errorf("what the policy allows: %s", got)
	}
	// Who is not named, be it in the mesh, is refused: productpage shows the page without reviews.
	out, err := page(t.Context(), m, ns, ns)
	if err != nil || strings.Contains(out, "Reviewer1") {
		t.Errorf("productpage, which the policy does not name, still gets reviews (%v): %s", err, out)
	}
	answeredFor(t, m, ns)
}

// answeredFor asks the command line about reviews, of which an agent and a waypoint know.
func answeredFor(t *testing.T, m *mesh.Mesh, ns string) {
	t.Helper()
	ask := func(args ...string) string {
		t.Helper()
		out, err := m.Fairlead(t.Context(), args...)
		if err != nil {
			t.Errorf("fairlead %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	says := func(out string, wants ...string) bool {
		for line := range strings.Lines(out) {
			if !slices.ContainsFunc(wants, func(want string) bool { return !strings.Contains(line, want) }) {
				return true
			}
		}
		return false
	}
	m.Apply(t, `
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: logs}
spec: {accessLogging: [{providers: [{name: envoy}]}]}
`, "-n", ns)
	mesh.Eventually(t, "the records of reviews are shown", func() error {
		_, _ = m.Exec(t.Context(), ns, "client", "curl", "-sS", "-m", "5", "http://reviews:9080/reviews/1")
		_, _ = m.Exec(t.Context(), ns, "client", "curl", "-sS", "-m", "5", "-X", "DELETE", "http://reviews:9080/reviews/1")
		out := ask("logs", "deploy/reviews-v1", "-n", ns, "--tail", "2000")
		for _, wants := range [][]string{
			{"waypoint waypoint-", "GET /reviews/1", " 200 "}, {"waypoint waypoint-", "DELETE /reviews/1", " 403 "}, {"agent ztunnel-", "reviews-v1-"},
		} {
			if !says(out, wants...) {
				return fmt.Errorf("no line with %q in:\n%s", wants, out)
			}
		}
		return nil
	})
	if out := ask("troubleshoot", "deploy/reviews-v1", "-n", ns); !says(out, "waypoint waypoint-", "403") {
		t.Errorf("what was refused is not among the recent failures:\n%s", out)
	}
	for _, kind := range []string{"route", "cluster", "listener", "endpoint"} {
		var all []map[string]any
		_, out, _ := strings.Cut(ask("proxy-config", kind, "deploy/reviews-v1", "-n", ns, "-o", "json"), "\n") // whose it is comes first, for people
		if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) == 0 || !strings.Contains(out, "reviews."+ns) {
			t.Errorf("proxy-config %s as JSON (%v): %s", kind, err, out)
		}
	}
}

// waypoint deploys a waypoint for services into a namespace and waits for its pod.
func waypoint(t *testing.T, m *mesh.Mesh, ns string) {
	t.Helper()
	if out, err := m.Fairlead(t.Context(), "waypoint", "apply", "-n", ns, "--wait"); err != nil {
		t.Fatal(err, out)
	}
	m.Do(t, "-n", ns, "rollout", "status", "deploy/waypoint", "--timeout=80s")
}
