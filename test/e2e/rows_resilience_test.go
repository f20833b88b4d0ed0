package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const ownProductpage = `apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: productpage
  namespace: default
spec:
  hosts:
    - productpage
  gateways:
    - mesh
  http:
    - match:
        - headers:
            x-user-type:
              exact: premium
      route: [{destination: {host: productpage, subset: v2}, weight: 100}]
      timeout: 10s
    - route:
        - {destination: {host: productpage, subset: v1}, weight: 90}
        - {destination: {host: productpage, subset: v2}, weight: 10}
      retries:
        attempts: 3
        perTryTimeout: 2s
        retryOn: 5xx,reset,connect-failure
`

var premium = http.Header{"X-User-Type": {"premium"}}

// took fails the test where an answer came too soon or too late.
func took(t *testing.T, what string, a answer, status int, low, high time.Duration) {
	t.Helper()
	if a.err != nil || a.status != status || a.took < low || a.took > high {
		t.Errorf("%s: status %d after %s, %v; want %d after %s to %s", what, a.status, a.took, a.err, status, low, high)
		return
	}
	t.Logf("%s: %d after %.2f s", what, a.status, a.took.Seconds())
}

// TestRowVirtualService is row S4: who is premium gets v2, others 90/10; a backend that
// hangs costs a premium request 10 s, another one four tries of 2 s.
func TestRowVirtualService(t *testing.T) {
	needRows(t)
	w := newWorld(t, "fairlead", "productpage", "", "one=v1", "two=v2")
	w.write(t, "versions.yaml", versions("productpage"))
	w.write(t, "routes.yaml", manifest(t, "03-virtual-service.yaml", ownProductpage))
	w.live("v2", premium)
	between(t, "premium: v2 of 1000", w.tally(w.many(1000, 16, func(int) http.Header { return premium }))["v2"], 1000, 1000)
	between(t, "others: v2 of 10,000", w.tally(w.many(10_000, 16, nil))["v2"], 880, 1120)
	one, two := w.backends["one"], w.backends["two"]
	one.does(hangs)
	two.does(hangs)
	one.forget()
	two.forget()
	took(t, "premium, and the backend hangs", w.ask(premium), 504, 10*time.Second, 12*time.Second)
	between(t, "its tries", one.seen()+two.seen(), 1, 1)
	one.forget()
	two.forget()
	took(t, "another, and the backend hangs", w.ask(nil), 504, 8*time.Second, 10*time.Second)
	between(t, "its tries", one.seen()+two.seen(), 4, 4)
}

const ownPool = `apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata:
  name: productpage
  namespace: default
spec:
  host: productpage
  trafficPolicy:
    connectionPool:
      tcp:
        maxConnections: 100
        connectTimeout: 5s
      http:
        h2UpgradePolicy: DEFAULT
        http1MaxPendingRequests: 100
        http2MaxRequests: 100
        maxRequestsPerConnection: 2
    outlierDetection:
      consecutive5xxErrors: 3
      interval: 30s
      baseEjectionTime: 30s
      maxEjectionPercent: 50
      minHealthPercent: 25
  subsets:
    - name: v1
      labels: {version: v1}
      trafficPolicy:
        connectionPool:
          http:
            http1MaxPendingRequests: 50
    - name: v2
      labels: {version: v2}
`

// atOnce sends requests that are all under way together.
func (w *world) atOnce(n int, header http.Header) []answer {
	return w.many(n, n, func(int) http.Header { return header })
}

// spaced sends requests one after the other, and waits for none of them until all are sent.
func (w *world) spaced(n int, apart time.Duration, header http.Header) []answer {
	c := w.http(n)
	defer c.CloseIdleConnections()
	out := make([]answer, n)
	var work sync.WaitGroup
	tick := time.NewTicker(apart)
	defer tick.Stop()
	for i := range out {
		<-tick.C
		work.Go(func() { out[i] = w.askOn(c, header) })
	}
	work.Wait()
	return out
}

// slow takes a second.
func slow(_ http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(time.Second):
	case <-r.Context().Done():
	}
}

// overflow counts answers by status and wants each 503 to say that it is overload.
func overflow(t *testing.T, answers []answer) (ok, over int) {
	t.Helper()
	for _, a := range answers {
		switch {
		case a.err != nil:
			t.Fatal(a.err)
		case a.status == 200:
			ok++
		case a.status == 503 && a.header.Get("x-envoy-overloaded") == "true":
			over++
		default:
			t.Fatalf("status %d: %v %s", a.status, a.header, a.body)
		}
	}
	return ok, over
}

// TestRowDestinationRule is row S5: the pool's limits, and ejection with its percentage
// and its times.
func TestRowDestinationRule(t *testing.T) {
	needRows(t)
	rule := manifest(t, "04-destination-rule.yaml", ownPool)
	t.Run("pool", func(t *testing.T) {
		w := newWorld(t, "fairlead", "productpage", "", "two=v2", "old=v1") // old: as below
		w.write(t, "rule.yaml", rule)
		w.write(t, "routes.yaml", manifest(t, "03-virtual-service.yaml", ownProductpage))
		w.live("v2", premium)
		two := w.backends["two"]
		two.does(slow)
		two.forget()
		// One after the other: 100 at once, and the others wait for them.
		ok, over := overflow(t, w.spaced(150, 4*time.Millisecond, premium))
		between(t, "one after the other, at once at the backend", two.most, 90, 100)
		between(t, "answered 200", ok, 145, 150)
		between(t, "refused with x-envoy-overloaded", over, 0, 5)
		// All in the same moment: who waits for a connection to be made is among those that
		// may wait, so that as few as these are answered.
		two.forget()
		ok, over = overflow(t, w.atOnce(300, premium))
		between(t, "at once at the backend", two.most, 50, 100)
		between(t, "requests on a connection", two.perConnection, 1, 2)
		between(t, "answered 200", ok, 100, 200)
		between(t, "refused with x-envoy-overloaded", over, 100, 200)
	})
	t.Run("ejection", func(t *testing.T) {
		// Nobody premium is sent to old, which shows that the routes are live.
		w := newWorld(t, "fairlead", "productpage", "", "a=v2", "b=v2", "c=v2", "d=v2", "old=v1")
		w.write(t, "rule.yaml", rule)
		w.write(t, "routes.yaml", manifest(t, "03-virtual-service.yaml", ownProductpage))
		w.live("v2", premium)
		for _, name := range []string{"a", "b", "c"} {
			w.backends[name].does(replies(500))
		}
		w.outliers(outliers{header: premium, bad: []string{"a", "b", "c"}, most: 2, errors: 3, low: 30 * time.Second, high: 60 * time.Second, twice: true})
		// Raised to 100 %, and nobody is healthy: all are used.
		w.write(t, "rule.yaml", edited(t, rule, "maxEjectionPercent: 50", "maxEjectionPercent: 100"))
		w.backends["d"].does(replies(500))
		v2 := []string{"a", "b", "c", "d"}
		eventually(t, "all four are used where nobody is healthy", func() bool {
			for _, name := range v2 {
				w.backends[name].forget()
			}
			for _, a := range w.many(200, 4, func(int) http.Header { return premium }) {
				if a.err != nil || a.status != 500 {
					t.Fatalf("status %d, %v %v; the backends answer 500", a.status, a.header, a.err)
				}
			}
			return !slices.ContainsFunc(v2, func(name string) bool { return w.backends[name].seen() < 10 })
		})
	})
}

const ownBreaker = `apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata:
  name: reviews-circuitbreaker
  namespace: default
spec:
  host: reviews
  trafficPolicy:
    connectionPool:
      tcp:
        maxConnections: 50
        connectTimeout: 5s
      http:
        http1MaxPendingRequests: 30
        http2MaxRequests: 50
        maxRequestsPerConnection: 5
        maxRetries: 2
        idleTimeout: 60s
    outlierDetection:
      consecutive5xxErrors: 3
      interval: 10s
      baseEjectionTime: 30s
      maxEjectionPercent: 60
      minHealthPercent: 30
      consecutiveGatewayErrors: 2
`

// TestRowCircuitBreaker is row S10.
func TestRowCircuitBreaker(t *testing.T) {
	needRows(t)
	rule := manifest(t, "08-circuit-breaker.yaml", ownBreaker)
	t.Run("pool", func(t *testing.T) {
		w := newWorld(t, "fairlead", "reviews", "", "one=v1")
		w.write(t, "rule.yaml", rule)
		one := w.backends["one"]
		w.inEffect("outbound")
		one.does(slow)
		one.forget()
		// One after the other: 50 at once, and 30 wait for them.
		ok, over := overflow(t, w.spaced(80, 5*time.Millisecond, nil))
		between(t, "one after the other, at once at the backend", one.most, 45, 50)
		between(t, "answered 200", ok, 75, 80)
		between(t, "refused with x-envoy-overloaded", over, 0, 5)
		// All in the same moment: who waits for a connection to be made is among the 30, so
		// that as few as these are answered.
		one.forget()
		start := time.Now()
		answers := w.atOnce(200, nil)
		ok, over = overflow(t, answers)
		between(t, "at once at the backend", one.most, 25, 50)
		between(t, "requests on a connection", one.perConnection, 1, 5)
		between(t, "answered 200: those at once and those that waited", ok, 30, 80)
		between(t, "refused with x-envoy-overloaded", over, 120, 170)
		for _, a := range answers {
			if a.status == 503 && a.took > 900*time.Millisecond {
				t.Errorf("a refusal took %s", a.took)
				break
			}
		}
		t.Logf("all in %.1f s", time.Since(start).Seconds())
		one.does(nil)
		one.forget()
		w.tally(w.many(500, 4, nil))
		between(t, "requests on a connection that is kept", one.perConnection, 5, 5)
		// Idle ones close after a minute.
		idle := time.Now()
		one.mu.Lock()
		open := len(one.open)
		one.mu.Unlock()
		closed := func() bool {
			one.mu.Lock()
			defer one.mu.Unlock()
			return len(one.open) == 0
		}
		for !closed() && time.Since(idle) < 2*time.Minute {
			<-time.After(100 * time.Millisecond)
		}
		if after := time.Since(idle); open > 0 && (after < 55*time.Second || after > 75*time.Second) {
			t.Errorf("%d idle connections closed after %s, want 60 s", open, after)
		} else {
			t.Logf("%d idle connections closed after %.1f s", open, after.Seconds())
		}
	})
	t.Run("ejection", func(t *testing.T) {
		w := newWorld(t, "fairlead", "reviews", "", "a=v1", "b=v1", "c=v1", "d=v1", "e=v1")
		w.write(t, "rule.yaml", rule)
		w.write(t, "routes.yaml", `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: no-retries, namespace: default}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews}}], retries: {attempts: 0}}]
`)
		w.inEffect("outbound")
		bad := []string{"a", "b", "c", "d"}
		for _, name := range bad {
			w.backends[name].does(replies(503))
		}
		w.outliers(outliers{bad: bad, most: 3, errors: 2, low: 30 * time.Second, high: 40 * time.Second})
	})
	t.Run("500s need three", func(t *testing.T) {
		w := newWorld(t, "fairlead", "reviews", "", "a=v1", "b=v1", "c=v1", "d=v1", "e=v1")
		w.write(t, "rule.yaml", rule)
		w.inEffect("outbound")
		w.backends["a"].does(replies(500))
		w.outliers(outliers{bad: []string{"a"}, most: 1, errors: 3, low: 30 * time.Second, high: 40 * time.Second})
	})
	t.Run("retries", func(t *testing.T) {
		w := newWorld(t, "fairlead", "reviews", "", "one=v1")
		w.write(t, "rule.yaml", edited(t, rule, "maxEjectionPercent: 60", "maxEjectionPercent: 0"))
		w.write(t, "routes.yaml", `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: retries, namespace: default}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: reviews}}]
    retries: {attempts: 1, retryOn: 5xx}
    headers: {response: {set: {x-live: "yes"}}}
`)
		eventually(t, "the routes are live", func() bool { return w.ask(nil).header.Get("x-live") == "yes" })
		one := w.backends["one"]
		// A second try takes a while, so that all would be under way together.
		var mu sync.Mutex
		again, most := 0, 0
		known := map[string]bool{}
		one.does(func(rw http.ResponseWriter, r *http.Request) {
			id := r.Header.Get("x-request-id")
			mu.Lock()
			second := known[id]
			known[id] = true
			if second {
				again++
				most = max(most, again)
			}
			mu.Unlock()
			if second {
				slow(rw, r)
				mu.Lock()
				again--
				mu.Unlock()
			}
			rw.WriteHeader(503)
		})
		w.atOnce(40, nil)
		between(t, "retries at once", most, 1, 2)
	})
}

// inEffect waits until the waypoint has a part in what is asked.
func (w *world) inEffect(string) {
	w.t.Helper()
	eventually(w.t, "the rule is in effect", func() bool {
		out := w.run(w.t, "lab", "exec", "--name", w.name, "default/waypoint", "--", "curl", "-s", "localhost:15000/clusters")
		return strings.Contains(out, "max_requests::50") || strings.Contains(out, "max_connections::50")
	})
}

const ownResilience = `apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: reviews-resilience
  namespace: default
spec:
  hosts:
    - reviews
  http:
    - route: [{destination: {host: reviews, subset: v1}}]
      timeout: 10s
      retries:
        attempts: 3
        perTryTimeout: 3s
        retryOn: 5xx,reset,connect-failure,refused-stream
        retryRemoteLocalities: true
      fault:
        abort:
          percentage:
            value: 0.1
          httpStatus: 500
`

// TestRowResilience is row S12: time limits, retries, and faults that no backend sees.
func TestRowResilience(t *testing.T) {
	needRows(t)
	t.Run("refused", func(t *testing.T) {
		w := newWorld(t, "fairlead", "reviews", "", "one=v1", "dead=v1")
		w.resilient()
		// Nobody listens in one of the two pods: another endpoint is asked.
		w.backends["dead"].listener.Close()
		w.faulty(300)
	})
	w := newWorld(t, "fairlead", "reviews", "", "one=v1")
	w.resilient()
	one := w.backends["one"]
	one.does(hangs)
	one.forget()
	a := w.patient(nil)
	took(t, "a backend that never answers", a, 504, 10*time.Second, 12*time.Second)
	one.mu.Lock()
	for i, at := range one.arrivals[1:] {
		t.Logf("try %d came %.2f s after the one before", i+2, at.Sub(one.arrivals[i]).Seconds())
	}
	one.mu.Unlock()
	one.does(replies(503))
	one.forget()
	if a := w.patient(nil); a.status != 503 {
		t.Errorf("a backend that answers 503: %d", a.status)
	}
	between(t, "tries at a backend that answers 503", one.seen(), 4, 4)

}

// resilient waits until the row's routes are live.
func (w *world) resilient() {
	w.t.Helper()
	text := manifest(w.t, "10-retry-timeout.yaml", ownResilience)
	w.write(w.t, "versions.yaml", versions("reviews"))
	w.write(w.t, "routes.yaml", edited(w.t, text, "value: 0.1", "value: 100"))
	eventually(w.t, "the routes are live", func() bool { return w.ask(nil).status == 500 })
	w.write(w.t, "routes.yaml", text)
	eventually(w.t, "the routes are live", func() bool { return w.ask(nil).status == 200 })
}

// patient asks until the answer is none of the fault's.
func (w *world) patient(header http.Header) answer {
	for {
		if a := w.ask(header); !strings.Contains(a.body, "fault filter abort") {
			return a
		}
	}
}

// faulty sends n requests that succeed or meet the fault, and counts the latter.
func (w *world) faulty(n int) (faults int) {
	w.t.Helper()
	for i, a := range w.many(n, 16, nil) {
		switch {
		case a.err == nil && a.status == 200:
		case a.err == nil && a.status == 500 && a.body == "fault filter abort":
			faults++
		default:
			w.t.Fatalf("request %d of %d: status %d, %v %s", i, n, a.status, a.err, a.body)
		}
	}
	return faults
}

// TestRowFaults is the other half of row S12: of 100,000 requests one in a thousand.
func TestRowFaults(t *testing.T) {
	needRows(t)
	w := newWorld(t, "fairlead", "reviews", "", "one=v1")
	w.resilient()
	one := w.backends["one"]
	one.forget()
	const n = 100_000
	faults := w.faulty(n)
	between(t, fmt.Sprintf("of %d requests met the fault", n), faults, 60, 140)
	between(t, "requests at the backend and faults", one.seen()+faults, n, n)
}
