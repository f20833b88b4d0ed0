package differential

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
)

// eds adds a cluster whose endpoints come by EDS; more is merged into it.
func (w *world) eds(name, more string) {
	full := w.nameOf(name)
	c := map[string]any{"name": full, "type": "EDS", "connect_timeout": "5s", "eds_cluster_config": yamlMap("eds_config: {ads: {}, resource_api_version: V3}")}
	maps.Copy(c, yamlMap(more))
	w.clusters = append(w.clusters, full)
	for _, p := range proxies() {
		w.resources[p][clusterType][full] = parse(c, &clusterv3.Cluster{})
	}
}

// assignment is what EDS says of a cluster: localities, each with its endpoints. The
// language: endpoints separated by blanks, as number, "!" unhealthy, "~" degraded or "-"
// draining, "*weight"; localities separated by "|", each begun by "priority:" or
// "priority*weight:" where it has one.
func (w *world) assignment(name, text string) {
	a := map[string]any{"cluster_name": w.nameOf(name)}
	var localities []any
	for i, part := range strings.Split(text, "|") {
		l := map[string]any{"locality": map[string]any{"zone": fmt.Sprint("z", i)}}
		if head, rest, ok := strings.Cut(part, ":"); ok {
			var priority, weight int
			if _, err := fmt.Sscanf(head, "%d*%d", &priority, &weight); err == nil {
				l["load_balancing_weight"] = weight
			}
			l["priority"], part = priority, rest
		}
		var members []any
		for _, word := range strings.Fields(part) {
			var n, weight int
			health := "HEALTHY"
			for mark, h := range map[string]string{"!": "UNHEALTHY", "~": "DEGRADED", "-": "DRAINING"} {
				if strings.Contains(word, mark) {
					word, health = strings.Replace(word, mark, "", 1), h
				}
			}
			_, err := fmt.Sscanf(word, "%d*%d", &n, &weight)
			if err != nil {
				weight = 1
			}
			e := lbEndpoint(endpointAddress(n), upstreams.port)
			e["health_status"], e["load_balancing_weight"] = health, weight
			members = append(members, e)
		}
		l["lb_endpoints"] = members
		if len(members) > 0 {
			localities = append(localities, l)
		}
	}
	a["endpoints"] = localities
	for _, p := range proxies() {
		w.resources[p][endpointType][w.nameOf(name)] = parse(a, &endpointv3.ClusterLoadAssignment{})
	}
}

// reassign has both proxies take an assignment, and waits until requests go where it says,
// to the endpoints that are named in allowed.
func (w *world) reassign(name, text string, port int, allowed map[string]float64) {
	w.t.Helper()
	w.assignment(name, text)
	for _, p := range proxies() {
		full := w.nameOf(name)
		p.ads.set(map[string]map[string]proto.Message{endpointType: {full: w.resources[p][endpointType][full]}}, nil)
	}
	for _, p := range proxies() {
		p.ads.settle(w.t)
		kept := &keptConn{p: p, port: port}
		row := 0
		until(w.t, p.name+" sends by "+text, func() bool {
			if allowed[w.where(p, kept)] > 0 {
				row++
			} else {
				row = 0
			}
			return row == 30
		})
		kept.close()
	}
}

// where is the endpoint that answered a request, or what else was answered.
func (w *world) where(p *proxy, kept *keptConn) string {
	mark := fmt.Sprintf("%s%06d", p.mark, lastCase.Add(1))
	a := kept.ask(request{}.withDefaults(), mark)
	if tries := upstreams.seenOf(mark); len(tries) == 1 && a.status == 200 {
		return fmt.Sprint(tries[0].endpoint)
	}
	return fmt.Sprintf("%d %s, %d tries", a.status, a.body, len(upstreams.seenOf(mark)))
}

// Endpoints that come by EDS have their shares: by weight, health and priority.
func TestEndpoints(t *testing.T) {
	w := newWorld(t)
	w.eds("up", "")
	w.eds("zones", "common_lb_config: {locality_weighted_lb_config: {}}")
	w.eds("calm", "common_lb_config: {healthy_panic_threshold: {value: 0}}")
	ports := map[string]int{}
	for _, c := range []string{"up", "zones", "calm"} {
		w.assignment(c, "9")
		ports[c] = w.http("", oneRoute("- {match: {prefix: /}, route: {cluster: @"+c+"}}"))
	}
	w.load()
	nobody := map[string]float64{"503 no healthy upstream, 0 tries": 1}
	const n = 1000
	for _, c := range []struct {
		cluster, assignment string
		shares              map[string]float64
	}{
		{"up", "0 1 2 3", map[string]float64{"0": .25, "1": .25, "2": .25, "3": .25}},
		{"up", "0*1 1*3", map[string]float64{"0": .25, "1": .75}},
		{"up", "2 3", map[string]float64{"2": .5, "3": .5}},
		{"up", "0 1! 2", map[string]float64{"0": .5, "2": .5}},
		{"up", "0- 1 2", map[string]float64{"1": .5, "2": .5}},
		{"up", "0 1! 2! 3!", map[string]float64{"0": .25, "1": .25, "2": .25, "3": .25}}, // panic
		{"up", "0~ 1~", map[string]float64{"0": .5, "1": .5}},
		{"up", "0 1~", map[string]float64{"0": .7, "1": .3}},
		{"up", "0: 0 1 | 1: 2 3", map[string]float64{"0": .5, "1": .5}},
		{"up", "0: 0 1! | 1: 2 3", map[string]float64{"0": .7, "2": .15, "3": .15}},
		{"up", "0: 0! 1! | 1: 2 3", map[string]float64{"2": .5, "3": .5}},
		{"up", "0: 0! 1! | 1: 2! 3 | 2: 4", map[string]float64{"3": .7, "4": .3}},
		{"up", "", nobody},
		{"up", "5", map[string]float64{"5": 1}},
		{"zones", "0*1: 0 | 0*3: 1 2", map[string]float64{"0": .25, "1": .375, "2": .375}},
		{"zones", "0*1: 0 1! | 0*1: 2 3", map[string]float64{"0": .7 / 1.7, "2": .5 / 1.7, "3": .5 / 1.7}},
		{"calm", "0! 1!", nobody},
		{"calm", "0 1! 2! 3!", map[string]float64{"0": 1}},
		{"calm", "0: 0! | 1: 1! 2", map[string]float64{"2": 1}},
	} {
		w.reassign(c.cluster, c.assignment, ports[c.cluster], c.shares)
		counts := map[*proxy]map[string]int{}
		for _, p := range proxies() {
			kept := &keptConn{p: p, port: ports[c.cluster]}
			counts[p] = map[string]int{}
			for range n {
				counts[p][w.where(p, kept)]++
			}
			kept.close()
		}
		w.compareShares(c.cluster+" "+c.assignment, n, counts, c.shares)
		w.compareMembership(c.assignment)
	}
}

// compareMembership compares how many endpoints the proxies count, and of which health.
func (w *world) compareMembership(assignment string) {
	w.t.Helper()
	var got [2]map[string]string
	for i, p := range proxies() {
		stats, err := p.stats()
		if err != nil {
			w.t.Fatal(err)
		}
		got[i] = map[string]string{}
		for _, c := range w.clusters {
			for _, s := range []string{"membership_total", "membership_healthy", "membership_degraded"} {
				got[i]["stat "+c+"."+s] = fmt.Sprint(stats["cluster."+c+"."+s])
			}
		}
	}
	w.differ("membership with "+assignment, got[0], got[1])
}

// Endpoints come and go while requests run, and none of them fails.
func TestEndpointsChange(t *testing.T) {
	w := newWorld(t)
	w.eds("up", "")
	w.assignment("up", "0 1 2 3")
	port := w.http("", oneRoute("- {match: {prefix: /}, route: {cluster: @up}}"))
	w.load()
	stop := make(chan struct{})
	var senders sync.WaitGroup
	answered := map[*proxy]*atomic.Int64{envoyProxy: {}, ourProxy: {}}
	for _, p := range proxies() {
		for i := range 6 {
			senders.Go(func() {
				kept := &keptConn{p: p, port: port}
				defer kept.close()
				for {
					select {
					case <-stop:
						return
					default:
					}
					mark := fmt.Sprintf("%s%06d", p.mark, lastCase.Add(1))
					r := request{script: "delay=5ms body=abc"}
					if i%2 == 1 {
						r.method, r.body = "POST", "some bytes"
					}
					if a := kept.ask(r.withDefaults(), mark); a.status != 200 || a.body != "abc" || a.end != "" {
						t.Errorf("%s: %d %q %s, %d tries", p.name, a.status, a.body, a.end, len(upstreams.seenOf(mark)))
						return
					}
					answered[p].Add(1)
				}
			})
		}
	}
	for i := range 16 {
		a, b, c := i%5, (i+2)%5, (i+3)%5
		text := fmt.Sprintf("%d %d %d!", a, b, c)
		if i%4 == 3 {
			text = fmt.Sprintf("0: %d! | 1: %d %d", c, a, b)
		}
		w.reassign("up", text, port, map[string]float64{fmt.Sprint(a): .5, fmt.Sprint(b): .5})
	}
	close(stop)
	senders.Wait()
	for p, n := range answered {
		if n.Load() < 200 {
			t.Errorf("%s answered %d requests", p.name, n.Load())
		}
		count(w.name, int(n.Load())/2)
	}
}
