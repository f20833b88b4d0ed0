package differential

import (
	"fmt"
	"testing"
	"time"
)

// manyRetries lets requests be repeated at the same time; by default three are.
// A connection serves one request, so that none ends just when it is used again.
const (
	manyRetries = `circuit_breakers: {thresholds: [{max_retries: 1000, max_connections: 5000}]}` + "\n" + oneEach
	oneEach     = `typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http_protocol_options: {}}, common_http_protocol_options: {max_requests_per_connection: 1}}}`
	manyOver2   = `circuit_breakers: {thresholds: [{max_retries: 1000}]}` + "\n" + `typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}, common_http_protocol_options: {max_requests_per_connection: 1}}}`
)

// Every word of retry_on meets every kind of failure.
func TestRetries(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", manyRetries, 0)
	w.cluster("up2", manyOver2, 1)
	w.cluster("dead", manyRetries, -1)
	words := []string{"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited", "retriable-4xx", "refused-stream", "retriable-status-codes", "retriable-headers", "http3-post-connect-failure",
		"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable", "5xx,reset,connect-failure"}
	failures := []string{"status=500", "status=502", "status=503", "status=504", "status=409", "status=418", "status=429", "status=404", "status=503 h=x-envoy-ratelimited:true", "reset", "close", "status=200 h=x-retry:yes",
		"raw=garbage%0d%0a%0d%0a last", "size=1000 resetmid", "size=1000 closemid", "delay=3s"}
	for _, code := range []int{1, 4, 8, 13, 14, 2} {
		failures = append(failures, fmt.Sprintf("h=content-type:application/grpc h=grpc-status:%d", code))
	}
	var ports, ports2, dead []int
	for _, word := range words {
		policy := fmt.Sprintf(`retry_policy: {retry_on: "%s", num_retries: 2, per_try_timeout: 0.3s, retriable_status_codes: [418], retriable_headers: [{name: x-retry, string_match: {exact: "yes"}}], retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}}`, word)
		host := func(c string) string {
			return "name: inline\nvirtual_hosts:\n- {name: all, domains: ['*'], include_request_attempt_count: true, include_attempt_count_in_response: true, routes: [{name: r, match: {prefix: /}, route: {cluster: @" + c + ", timeout: 2s, " + policy + "}}]}"
		}
		ports, ports2, dead = append(ports, w.http("", host("up"))), append(ports2, w.http("", host("up2"))), append(dead, w.http("", host("dead")))
	}
	w.load()
	b := w.batch(16)
	for i, word := range words {
		for _, f := range failures {
			for name, script := range map[string]string{"once": f + "|status=200 body=ok", "always": f} {
				r := request{script: script}
				if len(f) > 2 && f[:2] == "h=" {
					r.fields, r.method = []string{"content-type: application/grpc", "te: trailers"}, "POST"
				}
				b.send(fmt.Sprintf("%s on %s %s", word, f, name), ports[i], r)
				if f[:3] != "raw" {
					b.send(fmt.Sprintf("%s on %s %s HTTP/2", word, f, name), ports2[i], r)
				}
			}
		}
		b.send(word+" on refused stream", ports2[i], request{script: "refuse|status=200"})
		b.send(word+" on refused connection", dead[i], request{})
		b.send(word+" on a body and 503", ports[i], request{method: "POST", body: "hello", script: "status=503|status=200"})
		b.send(word+" on a body and reset", ports[i], request{method: "POST", body: "hello", script: "reset|status=200"})
	}
	b.work.Wait()
	w.compare()
	w.compareStats()
}

// What else decides on retries.
func TestRetryPolicies(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", manyRetries, 0)
	w.cluster("three", manyRetries, 1, 2, 3)
	w.cluster("budget", `circuit_breakers: {thresholds: [{max_retries: 0}]}`, 4)
	w.cluster("live", "", 5, -1)
	policies := []string{
		`num_retries: 0`, `num_retries: 1`, `num_retries: 5`, ``, `num_retries: 3, retriable_request_headers: [{name: ":method", string_match: {exact: GET}}]`, `num_retries: 3, retriable_request_headers: [{name: x-retry, present_match: true}]`,
		`num_retries: 3, retry_back_off: {base_interval: 0.05s}`, `num_retries: 3, per_try_timeout: 0.2s`, `num_retries: 2, per_try_timeout: 5s`, `num_retries: 2, rate_limited_retry_back_off: {reset_headers: [{name: retry-after, format: SECONDS}], max_interval: 2s}`,
		`num_retries: 2, rate_limited_retry_back_off: {reset_headers: [{name: retry-after, format: SECONDS}, {name: x-until, format: UNIX_TIMESTAMP}], max_interval: 3.5s}`,
	}
	var ports []int
	for _, p := range policies {
		ports = append(ports, w.http("", oneRoute(`- {match: {prefix: /}, route: {cluster: @up, timeout: 5s, retry_policy: {retry_on: "5xx,connect-failure", `+p+`}}}`)))
	}
	hosts := w.http("", oneRoute(`- {match: {prefix: /}, route: {cluster: @three, retry_policy: {retry_on: 5xx, num_retries: 2, retry_host_predicate: [{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], host_selection_retry_max_attempts: 20}}}`))
	budget := w.http("", oneRoute(`- {match: {prefix: /}, route: {cluster: @budget, retry_policy: {retry_on: 5xx, num_retries: 2}}}`))
	live := w.http("", oneRoute(`- {match: {prefix: /}, route: {cluster: @live, retry_policy: {retry_on: connect-failure, num_retries: 4}}}`))
	vhost := w.http("", `{name: inline, virtual_hosts: [{name: v, domains: ["*"], retry_policy: {retry_on: 5xx, num_retries: 2}, routes: [{match: {prefix: /own}, route: {cluster: @up, retry_policy: {retry_on: reset}}}, {match: {prefix: /}, route: {cluster: @up}}]}]}`)
	w.load()
	w.waits(ports[9], "status=503 h=retry-after:1|status=200", time.Second)
	w.waits(ports[10], fmt.Sprintf("status=503 h=x-until:%d|status=200", time.Now().Unix()+3), 900*time.Millisecond)
	b := w.batch(8)
	for i, p := range policies {
		for _, r := range []request{{script: "status=503"}, {script: "status=503|status=503|status=200"}, {method: "POST", body: "x", script: "status=503|status=200"}, {script: "status=503", fields: []string{"x-retry: 1"}}, {script: "delay=400ms status=503"}, {script: "delay=8s"},
			{script: "status=503 h=retry-after:1|status=200"}, {script: "status=503 h=retry-after:9 h=x-until:1|status=200"}, {script: "status=503 h=retry-after:0|status=200"},
			{script: fmt.Sprintf("status=503 h=retry-after:x h=x-until:%d|status=200", time.Now().Unix()+1000)}, {script: "status=503", fields: []string{"x-envoy-max-retries: 4"}}, {script: "status=404", fields: []string{"x-envoy-retry-on: retriable-status-codes", "x-envoy-retriable-status-codes: 404"}},
			{method: "HEAD", script: "status=503"}, {h2: true, script: "status=503|status=200"}, {method: "POST", trailers: []string{"x-t: 1"}, body: "abc", script: "status=503|status=200"}} {
			b.send(p+" on "+describe(r), ports[i], r)
		}
	}
	for range 20 {
		b.send("previous hosts", hosts, request{script: "status=503"}, anyEndpoint)
		b.send("budget", budget, request{script: "status=503"})
	}
	b.send("virtual host's", vhost, request{script: "status=503"})
	b.send("route's own", vhost, request{path: "/own", script: "status=503"})
	b.work.Wait()
	for range 10 { // which endpoint is first is drawn: what comes of it is not
		w.send("one endpoint is dead", live, request{}, anyTries, noLog)
	}
	w.compare()
	w.clusters = w.clusters[:3] // connections to the dead one are drawn
	w.compareStats()
}

// waits sends a request whose second try has to come so long after the first.
func (w *world) waits(port int, script string, least time.Duration) {
	w.t.Helper()
	c := w.send("waits on "+script, port, request{script: script})
	for _, p := range proxies() {
		tries := upstreams.seenOf(c.marks[p])
		if len(tries) != 2 || tries[1].at.Sub(tries[0].at) < least {
			w.t.Errorf("%s on %s: tries %v, want two that are %s apart", p.name, script, tries, least)
		}
	}
}
