package differential

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// draw is a configuration in which chance decides, with the share of each outcome.
type draw struct {
	name, hcm, routes string
	request           request
	shares            map[string]float64
}

// draws is how often each is drawn by either proxy.
const draws = 2000

// compareDraws sends requests by each configuration and holds what came of them against
// the shares. of tells what came of a case.
func (w *world) compareDraws(all []draw, of func(p *proxy, mark string) string) {
	w.t.Helper()
	ports := make([]int, len(all))
	for i, d := range all {
		ports[i] = w.http(d.hcm, d.routes)
	}
	w.load()
	for i, d := range all {
		counts := map[*proxy]map[string]int{}
		for _, p := range proxies() {
			kept := &keptConn{p: p, port: ports[i]}
			var marks []string
			for range draws {
				mark := fmt.Sprintf("%s%06d", p.mark, lastCase.Add(1))
				kept.ask(d.request.withDefaults(), mark)
				marks = append(marks, mark)
			}
			kept.close()
			w.awaitMarks(p, marks)
			counts[p] = map[string]int{}
			for _, m := range marks {
				counts[p][of(p, m)]++
			}
		}
		w.compareShares(d.name, draws, counts, d.shares)
	}
}

// compareShares holds how often each outcome came of n requests against its share, which is
// Envoy's; a share that is ours alone is a difference.
func (w *world) compareShares(name string, n int, counts map[*proxy]map[string]int, shares map[string]float64) {
	w.t.Helper()
	of := func(p *proxy) map[string]string {
		all := map[string]string{}
		for _, keys := range [][]string{slices.Collect(maps.Keys(shares)), slices.Collect(maps.Keys(counts[envoyProxy])), slices.Collect(maps.Keys(counts[ourProxy]))} {
			for _, outcome := range keys {
				got, share := counts[p][outcome], shares[outcome]
				all["share "+outcome] = fmt.Sprintf("%.3f", share)
				if fair(got, n, share) {
					continue
				}
				if p == envoyProxy {
					w.t.Errorf("%s/%s: envoy: %q came of %d of %d requests; its share is %.3f", w.name, name, outcome, got, n, share)
				}
				all["share "+outcome] = fmt.Sprintf("about %.1f", float64(got)/float64(n))
			}
		}
		return all
	}
	w.differ(name, of(envoyProxy), of(ourProxy))
	count(w.name, n)
}

// awaitMarks waits until a proxy's log has the requests, and no copies of them come any
// more.
func (w *world) awaitMarks(p *proxy, marks []string) {
	w.t.Helper()
	seen, since := upstreams.requests(), time.Now()
	until(w.t, p.name+" has logged its requests", func() bool {
		if err := p.readLog(); err != nil {
			w.t.Fatal(err)
		}
		if n := upstreams.requests(); n != seen {
			seen, since = n, time.Now()
		}
		return time.Since(since) > 200*time.Millisecond && !slices.ContainsFunc(marks, func(m string) bool { return len(p.recordsOf(m)) == 0 })
	})
}

// Faults come as often as they are asked for, delays and aborts each by a draw of its own.
func TestFaultShares(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	fault := func(text string) string {
		return `http_filters: [{name: envoy.filters.http.fault, typed_config: {` + faultType + `, ` + text + `}}]`
	}
	routes := oneRoute("- {match: {prefix: /}, route: {cluster: @up}}")
	w.compareDraws([]draw{
		{"an abort", fault(`abort: {http_status: 503, percentage: {numerator: 30}}`), routes, request{}, map[string]float64{"503 FI": .3, "200 -": .7}},
		{"a rare abort", fault(`abort: {http_status: 503, percentage: {numerator: 20000, denominator: MILLION}}`), routes, request{}, map[string]float64{"503 FI": .02, "200 -": .98}},
		{"a delay", fault(`delay: {fixed_delay: 0.001s, percentage: {numerator: 2500, denominator: TEN_THOUSAND}}`), routes, request{}, map[string]float64{"200 DI": .25, "200 -": .75}},
		{"both", fault(`delay: {fixed_delay: 0.001s, percentage: {numerator: 50}}, abort: {http_status: 418, percentage: {numerator: 50}}`), routes, request{}, map[string]float64{"418 DI,FI": .25, "418 FI": .25, "200 DI": .25, "200 -": .25}},
		{"an abort that the client asks for", fault(`abort: {header_abort: {}, percentage: {numerator: 100}}`), routes, request{fields: []string{"x-envoy-fault-abort-request: 429", "x-envoy-fault-abort-request-percentage: 40"}}, map[string]float64{"429 FI": .4, "200 -": .6}},
		{"an abort in a part of the requests that are routed by chance", fault(`abort: {http_status: 503, percentage: {numerator: 50}}, headers: [{name: ":path", string_match: {exact: /}}]`),
			oneRoute("- {match: {prefix: /, runtime_fraction: {default_value: {numerator: 50}}}, direct_response: {status: 201}}\n- {match: {prefix: /}, direct_response: {status: 202}}"), request{},
			map[string]float64{"503 FI": .5, "201 -": .25, "202 -": .25}},
	}, func(p *proxy, mark string) string {
		r := p.recordsOf(mark)[0]
		return fmt.Sprint(r["code"], " ", r["flags"])
	})
}

// Copies are sent as often as they are asked for.
func TestMirrorShares(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	w.cluster("other", "", 1)
	w.cluster("copy", "", 2)
	w.cluster("copy2", "", 3)
	mirrored := func(route, policies string) string {
		return "- {match: {prefix: /}, route: {" + route + ", request_mirror_policies: [" + policies + "]}}"
	}
	w.compareDraws([]draw{
		{"a fifth", "", oneRoute(mirrored("cluster: @up", `{cluster: @copy, runtime_fraction: {default_value: {numerator: 20}}}`)), request{}, map[string]float64{"0 2": .2, "0": .8}},
		{"a few, with bodies", "", oneRoute(mirrored("cluster: @up", `{cluster: @copy, runtime_fraction: {default_value: {numerator: 300, denominator: TEN_THOUSAND}}}`)), request{method: "POST", body: "abc"}, map[string]float64{"0 2": .03, "0": .97}},
		{"two mirrors", "", oneRoute(mirrored("cluster: @up", `{cluster: @copy, runtime_fraction: {default_value: {numerator: 30}}}, {cluster: @copy2, runtime_fraction: {default_value: {numerator: 600000, denominator: MILLION}}}`)), request{},
			map[string]float64{"0 2 3": .18, "0 2": .12, "0 3": .42, "0": .28}},
		{"of weighted clusters", "", oneRoute(mirrored("weighted_clusters: {clusters: [{name: @up, weight: 50}, {name: @other, weight: 50}]}", `{cluster: @copy, runtime_fraction: {default_value: {numerator: 50}}}`)), request{},
			map[string]float64{"0 2": .5, "1": .5}},
		{"behind a fraction", "", oneRoute("- {match: {prefix: /, runtime_fraction: {default_value: {numerator: 50}}}, route: {cluster: @up, request_mirror_policies: [{cluster: @copy, runtime_fraction: {default_value: {numerator: 50}}}]}}\n" + mirrored("cluster: @other", `{cluster: @copy2, runtime_fraction: {default_value: {numerator: 50}}}`)), request{},
			map[string]float64{"0 2": .5, "1": .5}},
	}, func(_ *proxy, mark string) string {
		var endpoints []string
		for _, s := range upstreams.seenOf(mark) {
			endpoints = append(endpoints, fmt.Sprint(s.endpoint))
		}
		slices.Sort(endpoints)
		return strings.Join(endpoints, " ")
	})
}
