package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The chapter of the waypoint. Bounds of shares are those that chance leaves once in a
// million.

// loaded is what the load generator says, as far as it is of interest here.
type loaded struct {
	OK, Failed int
	Errors     map[string]int
	Counts     map[string]int
	LatencyMS  struct{ P50, Max float64 }
}

// ask sends n requests for reviews from the client's pod; header is one of theirs, or "".
func (d *demo) ask(n int, header string) (l loaded, err error) {
	argv := []string{"fairlead", "app", "load", "--url", "http://reviews:9080/reviews/0", "--requests", strconv.Itoa(n), "--concurrency", "8", "--keep-alive",
		"--count", `"clustername":"([^"]*)"`}
	argv[0] = d.cli
	if header != "" {
		argv = append(argv, "--header", header)
	}
	out, err := d.exec("client", argv...)
	if err != nil {
		return l, err
	}
	return l, json.Unmarshal([]byte(out), &l)
}

// until asks until what came of a few requests is as it should be.
func (d *demo) until(header string, n int, holds func(loaded) bool) error {
	return eventually(func() error {
		l, err := d.ask(n, header)
		if err == nil && !holds(l) {
			err = fmt.Errorf("of %d requests: %v, %v", n, l.Counts, l.Errors)
		}
		return err
	})
}

// behave tells reviews v2 how to answer, and to forget what it has seen.
func (d *demo) behave(how string) error {
	_, err := d.exec("reviews-v2", "curl", "-sS", "-m", "10", "-X", "POST", "http://localhost:9080/behave?"+how)
	return err
}

// seen is how many requests v2 has seen since.
func (d *demo) seen() (n int, err error) {
	out, err := d.exec("reviews-v2", "curl", "-sS", "-m", "10", "http://localhost:9080/seen")
	if err != nil {
		return 0, err
	}
	var s struct{ Requests int }
	err = json.Unmarshal([]byte(out), &s)
	return s.Requests, err
}

const subsets = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
`

// routes writes the VirtualService of reviews with these rules.
func (d *demo) routes(rules string) error {
	return d.write("reviews-routes.yaml", `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews-canary}
spec:
  hosts: [reviews]
  http:
`+rules)
}

func weights(v1, v2 int) string {
	return fmt.Sprintf(`  - route:
    - {destination: {host: reviews, subset: v1}, weight: %d}
    - {destination: {host: reviews, subset: v2}, weight: %d}
`, v1, v2)
}

func (d *demo) waypoint() error {
	if err := d.write("waypoint.yaml", `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`); err != nil {
		return err
	}
	path := filepath.Join(d.dir, "00-cluster.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	labelled := strings.ReplaceAll(string(b), "istio.io/dataplane-mode: ambient}", "istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}")
	if err := errors.Join(os.WriteFile(path, []byte(labelled), 0o644), d.write("reviews-versions.yaml", subsets), d.routes(weights(100, 0))); err != nil {
		return err
	}
	if err := d.until("", 20, func(l loaded) bool { return l.Counts["v1"] == 20 }); err != nil {
		return err
	}
	say("a Gateway, a label, and every request to reviews goes where the VirtualService says: 20 of 20 to v1")
	return nil
}

func (d *demo) byWeight() error {
	const n = 2000
	for _, step := range []struct{ v1, v2, low, high int }{{90, 10, 134, 266}, {50, 50, 890, 1110}, {0, 100, n, n}} {
		if err := d.routes(weights(step.v1, step.v2)); err != nil {
			return err
		}
		var l loaded
		if err := eventually(func() (err error) {
			if l, err = d.ask(n, ""); err == nil && (l.Failed > 0 || l.Counts["v2"] < step.low || l.Counts["v2"] > step.high) {
				err = fmt.Errorf("weight %d: v2 got %d of %d, want %d to %d; %d failed %v", step.v2, l.Counts["v2"], n, step.low, step.high, l.Failed, l.Errors)
			}
			return err
		}); err != nil {
			return err
		}
		say("weight %3d: v2 got %4d of %d (%d to %d), %d failed", step.v2, l.Counts["v2"], n, step.low, step.high, l.Failed)
	}
	return nil
}

func (d *demo) byContent() error {
	if err := d.routes(`  - match: [{headers: {cookie: {regex: "^(.*?;)?(test-user=true)(;.*)?$"}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{headers: {user-agent: {regex: ".*(iPhone|Android).*"}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{headers: {x-canary: {exact: "true"}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews, subset: v1}}]
`); err != nil {
		return err
	}
	if err := d.until("", 20, func(l loaded) bool { return l.Counts["v1"] == 20 }); err != nil {
		return err
	}
	for _, c := range []struct{ header, want string }{
		{"cookie: a=1;test-user=true;b=2", "v2"}, {"cookie: test-user=false", "v1"}, {"user-agent: Mozilla/5.0 (iPhone)", "v2"}, {"x-canary: true", "v2"}, {"x-canary: TRUE", "v1"},
	} {
		const n = 200
		l, err := d.ask(n, c.header)
		if err == nil && l.Counts[c.want] != n {
			err = fmt.Errorf("%s: %v, want %d of %s", c.header, l.Counts, n, c.want)
		}
		if err != nil {
			return err
		}
		say("%-32s %s, %d of %d", c.header, c.want, l.Counts[c.want], n)
	}
	return nil
}

// toV2 are all requests to v2, with more of the route.
func toV2(more string) string {
	return "  - route: [{destination: {host: reviews, subset: v2}}]\n" + more
}

func (d *demo) retries() error {
	const n = 300
	if err := errors.Join(d.routes(toV2("    retries: {attempts: 0}\n")), d.behave("status=503&share=0.2")); err != nil {
		return err
	}
	if err := d.until("", 100, func(l loaded) bool { return l.Failed > 0 && l.Counts["v1"] == 0 }); err != nil {
		return err
	}
	without, err := d.ask(n, "")
	if err != nil {
		return err
	}
	if err := d.routes(toV2("    retries: {attempts: 12, perTryTimeout: 2s, retryOn: \"5xx,reset,connect-failure\"}\n")); err != nil {
		return err
	}
	var with loaded
	if err := d.until("", n, func(l loaded) bool { with = l; return l.Failed == 0 && l.Counts["v2"] == n }); err != nil {
		return err
	}
	say("v2 answers a fifth with 503: without retries %d of %d fail, with retries %d", without.Failed, n, with.Failed)
	return d.behave("")
}

func (d *demo) fault() error {
	if err := d.routes(toV2("    fault: {abort: {percentage: {value: 100}, httpStatus: 555}}\n")); err != nil {
		return err
	}
	if err := d.until("", 20, func(l loaded) bool { return l.Errors["status 555"] == 20 }); err != nil {
		return err
	}
	if err := d.routes(toV2("    fault: {abort: {percentage: {value: 10}, httpStatus: 555}}\n")); err != nil {
		return err
	}
	if err := d.until("", 20, func(l loaded) bool { return l.Counts["v2"] > 5 }); err != nil {
		return err
	}
	if err := d.behave(""); err != nil {
		return err
	}
	const n, low, high = 1000, 53, 147
	l, err := d.ask(n, "")
	if err != nil {
		return err
	}
	reached, err := d.seen()
	if err != nil {
		return err
	}
	if got := l.Errors["status 555"]; got < low || got > high || l.Failed != got || reached != n-got {
		return fmt.Errorf("%d of %d met the fault, want %d to %d; v2 saw %d; %v", got, n, low, high, reached, l.Errors)
	}
	say("a fault of 10 %%: %d of %d answered 555 (%d to %d), and v2 saw exactly the other %d", l.Errors["status 555"], n, low, high, reached)
	return nil
}

func (d *demo) timeout() error {
	if err := d.routes(toV2("    timeout: 1s\n    retries: {attempts: 0}\n")); err != nil {
		return err
	}
	if err := d.until("", 100, func(l loaded) bool { return l.Counts["v2"] == 100 }); err != nil {
		return err
	}
	if err := d.behave("silent=true"); err != nil {
		return err
	}
	out, err := d.exec("client", "curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code} %{time_total}", "http://reviews:9080/reviews/0")
	if err != nil {
		return err
	}
	status, seconds, _ := strings.Cut(out, " ")
	took, err := strconv.ParseFloat(seconds, 64)
	if err != nil || status != "504" || took < 0.95 {
		return fmt.Errorf("a server that never answers, at a timeout of 1 s: %s", out)
	}
	say("v2 never answers, timeout 1 s: %s after %.2f s", status, took)
	return d.behave("")
}

func (d *demo) ejection() error {
	// All versions behind the service's name; v2 fails.
	if err := errors.Join(d.routes("  - route: [{destination: {host: reviews}}]\n    retries: {attempts: 0}\n"), d.write("reviews-versions.yaml", subsets+`  trafficPolicy:
    loadBalancer: {localityLbSetting: {enabled: false}} # or the waypoint's own zone is asked alone
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 3s, maxEjectionPercent: 50}
`)); err != nil {
		return err
	}
	if err := d.until("", 100, func(l loaded) bool { return l.Counts["v2"] > 0 && l.Counts["v3"] > 0 && l.Failed == 0 }); err != nil {
		return err
	}
	if err := d.behave("status=500"); err != nil {
		return err
	}
	first, err := d.ask(200, "")
	if err != nil {
		return err
	}
	failing, err := d.seen()
	if err != nil {
		return err
	}
	if first.Failed == 0 || first.Failed > 40 {
		return fmt.Errorf("v2 fails: %d of 200 requests failed before it was left out, want a few: %v", first.Failed, first.Errors)
	}
	say("v2 answers 500: %d of 200 fail (v2 saw %d), then it is left out", first.Failed, failing)
	if err := d.behave(""); err != nil {
		return err
	}
	start := time.Now()
	if err := d.until("", 100, func(l loaded) bool { return l.Counts["v2"] > 0 && l.Failed == 0 }); err != nil {
		return err
	}
	say("v2 is well again: it is taken back after %.1f s (3 s per ejection)", time.Since(start).Seconds())
	return nil
}
