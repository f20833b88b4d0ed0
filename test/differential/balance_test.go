package differential

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// Endpoints are chosen with the same frequencies.
func TestBalancers(t *testing.T) {
	w := newWorld(t)
	weighted := func(policy string) string {
		text := "lb_policy: " + policy + "\nload_assignment: {cluster_name: x, endpoints: [{lb_endpoints: ["
		for i, n := range []int{1, 3, 6} {
			text += fmt.Sprintf("{load_balancing_weight: %d, endpoint: {address: {socket_address: {address: %s, port_value: %d}}}},", n, endpointAddress(i), upstreams.port)
		}
		return text + "]}]}"
	}
	type kind struct {
		name  string
		port  int
		share []float64 // by endpoint
	}
	var kinds []kind
	even := []float64{.25, .25, .25, .25}
	for _, policy := range []string{"ROUND_ROBIN", "RANDOM", "LEAST_REQUEST"} {
		w.cluster(policy, "lb_policy: "+policy, 0, 1, 2, 3)
		kinds = append(kinds, kind{policy, w.http("", oneRoute("- {match: {prefix: /}, route: {cluster: @"+policy+"}}")), even})
		w.cluster(policy+"_weighted", weighted(policy))
		share := []float64{.1, .3, .6}
		if policy == "RANDOM" { // which does not look at weights
			share = []float64{1. / 3, 1. / 3, 1. / 3}
		}
		kinds = append(kinds, kind{policy + " weighted", w.http("", oneRoute("- {match: {prefix: /}, route: {cluster: @"+policy+"_weighted}}")), share})
	}
	w.cluster("v1", "", 0)
	w.cluster("v2", "", 1)
	kinds = append(kinds, kind{"weighted clusters", w.http("", oneRoute("- {match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: @v1, weight: 90}, {name: @v2, weight: 10}]}}}")), []float64{.9, .1}},
		kind{"fractions of one number", w.http("", oneRoute("- {match: {prefix: /, runtime_fraction: {default_value: {numerator: 300000, denominator: MILLION}}}, route: {cluster: @v1}}\n- {match: {prefix: /, runtime_fraction: {default_value: {numerator: 500000, denominator: MILLION}}}, route: {cluster: @v2}}\n- {match: {prefix: /}, route: {cluster: @v1}}")), []float64{.8, .2}},
		kind{"fraction", w.http("", oneRoute("- {match: {prefix: /, runtime_fraction: {default_value: {numerator: 2500, denominator: TEN_THOUSAND}}}, route: {cluster: @v1}}\n- {match: {prefix: /}, route: {cluster: @v2}}")), []float64{.25, .75}})
	w.load()
	const n = 1000
	for _, k := range kinds {
		for _, p := range proxies() {
			kept := &keptConn{p: p, port: k.port}
			counts := map[int]int{}
			for range n {
				mark := fmt.Sprintf("%s%06d", p.mark, lastCase.Add(1))
				kept.ask(request{}.withDefaults(), mark)
				for _, s := range upstreams.seenOf(mark) {
					counts[s.endpoint]++
				}
			}
			kept.close()
			for endpoint, share := range k.share {
				if !fair(counts[endpoint], n, share) {
					t.Errorf("%s: %s: endpoint %d got %d of %d requests; its share is %v", k.name, p.name, endpoint, counts[endpoint], n, share)
				}
			}
		}
		count(w.name, n)
	}
}

// fair tells whether a share could come up so often in n draws; a fair draw fails it once
// in a hundred million.
func fair(count, n int, share float64) bool {
	return math.Abs(float64(count)-float64(n)*share) <= 6*math.Sqrt(float64(n)*share*(1-share))
}

// What is hashed finds the same endpoint through either proxy.
func TestHashing(t *testing.T) {
	w := newWorld(t)
	policies := []string{
		`[{header: {header_name: x-key}}]`, `[{query_parameter: {name: k}}]`, `[{cookie: {name: session}}]`, `[{connection_properties: {source_ip: true}}]`, `[{header: {header_name: x-key}, terminal: true}, {query_parameter: {name: k}}]`, `[{header: {header_name: x-key}}, {query_parameter: {name: k}}]`,
		`[{header: {header_name: x-key, regex_rewrite: {pattern: {regex: "^(.).*"}, substitution: '\1'}}}]`, `[{header: {header_name: ":path"}}]`,
	}
	var ports []int
	var names []string
	for _, lb := range []string{"lb_policy: RING_HASH", "lb_policy: MAGLEV", "lb_policy: RING_HASH\nring_hash_lb_config: {minimum_ring_size: 64, maximum_ring_size: 128}", "lb_policy: RING_HASH\nring_hash_lb_config: {hash_function: MURMUR_HASH_2}", "lb_policy: MAGLEV\nmaglev_lb_config: {table_size: 251}"} {
		c := fmt.Sprintf("hashed%d", len(w.clusters))
		w.cluster(c, lb, 0, 1, 2, 3, 4)
		for _, p := range policies {
			ports = append(ports, w.http("", oneRoute("- {match: {prefix: /}, route: {cluster: @"+c+", hash_policy: "+p+"}}")))
			names = append(names, lb+" "+p)
		}
	}
	w.load()
	b := w.batch(4)
	for i, port := range ports {
		for k := range 25 {
			key := fmt.Sprintf("key-%d", k*7919)
			b.send(names[i]+" "+key, port, request{path: "/p" + key + "?k=" + key, fields: []string{"x-key: " + key + "h", "cookie: session=" + key}})
		}
		b.send(names[i]+" two", port, request{path: "/?k=1", fields: []string{"x-key: b", "x-key: a", "cookie: session=1"}})
	}
	b.work.Wait()
	w.compare()
	w.compareStats()
}

// Where a breaker opens, as many requests are refused, and in the same way.
func TestCircuitBreakers(t *testing.T) {
	w := newWorld(t)
	limits := []string{`max_connections: 1, max_pending_requests: 1`, `max_connections: 2, max_pending_requests: 0`, `max_requests: 3`, `max_pending_requests: 0`}
	type one struct {
		port int
		name string
	}
	var all []one
	for i, l := range limits {
		for _, two := range []string{"", http2Upstream} {
			if two != "" && !strings.Contains(l, "requests: 3") {
				continue // how many come before the connection is there is chance
			}
			c := fmt.Sprintf("limited%d%v", i, two != "")
			w.cluster(c, "circuit_breakers: {thresholds: [{"+l+"}]}\n"+two, 0)
			all = append(all, one{w.http("", oneRoute("- {match: {prefix: /}, route: {cluster: @"+c+"}}")), l + " " + c})
		}
	}
	w.load()
	for _, o := range all {
		b := w.batch(8)
		seen := upstreams.requests()
		for i := range 8 {
			b.send(o.name, o.port, request{script: "delay=600ms body=x"})
			if i == 0 && !strings.Contains(o.name, "pending_requests: 0") { // the connection is there
				until(t, "the first request came", func() bool { return upstreams.requests() >= seen+2 })
			}
		}
		b.work.Wait()
		w.compareTogether(o.name)
	}
	w.compareStats()
}

// compareTogether compares the cases so far as a multiset: which request met with what
// is chance.
func (w *world) compareTogether(name string) {
	w.awaitLogs()
	of := func(p *proxy) map[string]string {
		lines := map[string]int{}
		for _, c := range w.cases {
			out := c.outcome(p)
			lines[fmt.Sprintf("requests: %s %s flags %s, %s, overloaded %s, tries %s", out["status"], out["body"], out["log flags"], out["log details"], out["header x-envoy-overloaded"], out["tries"])]++
		}
		text := map[string]string{}
		for l, n := range lines {
			text[l] = fmt.Sprint(n)
		}
		return text
	}
	w.differ(name, of(envoyProxy), of(ourProxy))
	count(w.name, len(w.cases))
	w.cases = nil
}

// Endpoints that fail are ejected after as many failures.
func TestOutliers(t *testing.T) {
	w := newWorld(t)
	for i, o := range []struct{ detection, script string }{
		{`{consecutive_5xx: 3, interval: 3600s, base_ejection_time: 3600s, max_ejection_percent: 100}`, "at=3:500"}, {`{consecutive_gateway_failure: 3, enforcing_consecutive_gateway_failure: 100, consecutive_5xx: 1000, interval: 3600s, base_ejection_time: 3600s, max_ejection_percent: 100}`, "at=3:503"},
		{`{consecutive_gateway_failure: 3, enforcing_consecutive_gateway_failure: 100, consecutive_5xx: 1000, interval: 3600s, base_ejection_time: 3600s, max_ejection_percent: 100}`, "at=3:500"}, {`{consecutive_5xx: 3, interval: 3600s, base_ejection_time: 3600s, max_ejection_percent: 10}`, "at=3:500 at=2:500"},
		{`{consecutive_5xx: 3, interval: 3600s, base_ejection_time: 3600s, max_ejection_percent: 50}`, "at=3:500 at=2:500 at=1:500"}, {`{consecutive_5xx: 0, interval: 3600s}`, "at=3:500"}, {`{consecutive_5xx: 2, enforcing_consecutive_5xx: 0, interval: 3600s}`, "at=3:500"}, {`{consecutive_5xx: 3, interval: 3600s, base_ejection_time: 3600s, max_ejection_percent: 100}`, "status=503"},
		{`{split_external_local_origin_errors: true, consecutive_local_origin_failure: 2, consecutive_5xx: 3, interval: 3600s, base_ejection_time: 3600s, max_ejection_percent: 100}`, "at=3:500"},
	} {
		c := fmt.Sprintf("watched%d", i)
		w.cluster(c, "common_lb_config: {healthy_panic_threshold: {value: 0}, update_merge_window: 0s}\noutlier_detection: "+o.detection, 0, 1, 2, 3)
		port := w.http("", oneRoute("- {match: {prefix: /}, route: {cluster: @"+c+"}}"))
		w.load()
		for range 48 {
			w.send(o.detection, port, request{script: o.script}, anyEndpoint)
		}
		w.compareTogether(fmt.Sprintf("%d %s %s", i, o.detection, o.script))
	}
	w.compareStats()
}
