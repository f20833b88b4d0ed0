package cluster

import (
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want one with %q", err, text)
	}
}

// seed of the distributions; another one fails them once in a million.
const seed = 20_260_401

// counts chooses n times.
func counts(t *testing.T, c *Cluster, n int, each func(*Host)) map[string]int {
	t.Helper()
	out := map[string]int{}
	r := uint64(seed)
	for range n {
		h, err := c.Choose(Choice{Random: draw(&r)})
		if err != nil {
			t.Fatal(err)
		}
		out[h.Address]++
		if each != nil {
			each(h)
		}
	}
	return out
}

// chiSquare fails where counts differ from the weights as once in a million.
func chiSquare(t *testing.T, got map[string]int, weights map[string]float64) {
	t.Helper()
	n, sum := 0, 0.0
	for _, k := range got {
		n += k
	}
	for _, w := range weights {
		sum += w
	}
	x := 0.0
	for name, w := range weights {
		expected := float64(n) * w / sum
		x += math.Pow(float64(got[name])-expected, 2) / expected
	}
	// The quantile at 1 - 1e-6 (Wilson and Hilferty).
	k := float64(len(weights) - 1)
	bound := k * math.Pow(1-2/(9*k)+4.7534*math.Sqrt(2/(9*k)), 3)
	if x > bound {
		t.Errorf("chi square %.1f is over %.1f: %v", x, bound, got)
	}
}

// weighted is hosts with weights, host n at 10.0.0.n.
func weighted(name string, weights ...uint32) *endpointv3.ClusterLoadAssignment {
	l := &endpointv3.LocalityLbEndpoints{}
	for i, w := range weights {
		e := endpoint(port(i + 1))
		e.LoadBalancingWeight = wrapperspb.UInt32(w)
		l.LbEndpoints = append(l.LbEndpoints, e)
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{l}}
}

func TestRoundRobinTakesTurns(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, "", port(1), port(2), port(3))
	for address, n := range counts(t, c, 300, nil) {
		if n != 100 {
			t.Errorf("%s was chosen %d times", address, n)
		}
	}
}

func TestWeights(t *testing.T) {
	for _, policy := range []string{"ROUND_ROBIN", "LEAST_REQUEST"} {
		m := newManager(t, Options{})
		c := m.eds(t, `"lb_policy":"`+policy+`"`)
		if err := m.SetEndpoints(weighted("c", 1, 2, 7)); err != nil {
			t.Fatal(err)
		}
		got := counts(t, c, 1000, nil)
		for address, want := range map[string]int{port(1): 100, port(2): 200, port(3): 700} {
			if n := got[address]; n < want-2 || n > want+2 {
				t.Errorf("%s: %s was chosen %d times, want %d", policy, address, n, want)
			}
		}
		m.Close()
	}
}

func TestRandomIsEven(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, `"lb_policy":"RANDOM"`, port(1), port(2), port(3), port(4), port(5))
	chiSquare(t, counts(t, c, 20_000, nil), map[string]float64{port(1): 1, port(2): 1, port(3): 1, port(4): 1, port(5): 1})
}

// Of two hosts drawn with repetition the busy one is taken only when drawn twice.
func TestLeastRequestDrawsTwo(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, `"lb_policy":"LEAST_REQUEST"`, port(1), port(2), port(3), port(4))
	c.Hosts()[0].active.Store(10)
	chiSquare(t, counts(t, c, 20_000, nil), map[string]float64{port(1): 1. / 16, port(2): 5. / 16, port(3): 5. / 16, port(4): 5. / 16})
}

func TestLeastRequestFullScan(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, `"load_balancing_policy":{"policies":[{"typed_extension_config":{"name":"l","typed_config":{
		"@type":"type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest","selection_method":"FULL_SCAN"}}}]}`, port(1), port(2), port(3))
	c.Hosts()[0].active.Store(1)
	got := counts(t, c, 10_000, nil)
	if got[port(1)] != 0 {
		t.Error("the busier host was chosen")
	}
	delete(got, port(1))
	chiSquare(t, got, map[string]float64{port(2): 1, port(3): 1})
}

// byPriority is hosts of priorities; a host's health follows.
func byPriority(name string, healthy ...[]bool) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	n := 0
	for p, hosts := range healthy {
		l := &endpointv3.LocalityLbEndpoints{Priority: uint32(p)}
		for _, ok := range hosts {
			n++
			e := endpoint(port(n))
			if e.HealthStatus = corev3.HealthStatus_HEALTHY; !ok {
				e.HealthStatus = corev3.HealthStatus_UNHEALTHY
			}
			l.LbEndpoints = append(l.LbEndpoints, e)
		}
		out.Endpoints = append(out.Endpoints, l)
	}
	return out
}

// The tables of Envoy's documentation on priority levels, and panics.
func TestPriorities(t *testing.T) {
	up, down := true, false
	cases := []struct {
		name    string
		panic   string
		healthy [][]bool
		loads   []uint32
		panics  []bool
	}{
		{"all healthy", "50", [][]bool{{up, up}, {up}}, []uint32{100, 0}, []bool{false, false}},
		{"72 percent is enough", "50", [][]bool{{up, up, up, down}, {up}}, []uint32{100, 0}, []bool{false, false}},
		{"half", "50", [][]bool{{up, down}, {up}}, []uint32{70, 30}, []bool{false, false}},
		{"none at the first", "50", [][]bool{{down, down}, {up}}, []uint32{0, 100}, []bool{false, false}},
		{"few everywhere", "50", [][]bool{{up, down, down, down}, {up, down, down, down}}, []uint32{50, 50}, []bool{true, true}},
		{"a quarter and half", "50", [][]bool{{up, down, down, down, down}, {up, up, down, down, down}}, []uint32{50, 50}, []bool{true, true}},
		{"scaled up, no panic", "0", [][]bool{{up, down, down, down}, {up, down, down, down}}, []uint32{50, 50}, []bool{false, false}},
		{"nothing, panic off", "0", [][]bool{{down}, {down}}, []uint32{100, 0}, []bool{false, false}},
		{"nothing, panic on", "50", [][]bool{{down}, {down, down, down}}, []uint32{25, 75}, []bool{true, true}},
		{"what rounding leaves", "0", [][]bool{{up, down, down, down, down}, {up, down, down, down, down}, {up, down, down, down, down}}, []uint32{34, 33, 33}, []bool{false, false, false}},
		{"what rounding leaves in a panic", "50", [][]bool{{down}, {down}, {down}}, []uint32{34, 33, 33}, []bool{true, true, true}},
		{"the second takes part", "40", [][]bool{{up, down, down, down}, {up, up, down, down}}, []uint32{35, 65}, []bool{false, false}},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) {
			m := newManager(t, Options{})
			c := m.eds(t, `"common_lb_config":{"healthy_panic_threshold":{"value":`+one.panic+`}}`)
			if err := m.SetEndpoints(byPriority("c", one.healthy...)); err != nil {
				t.Fatal(err)
			}
			for i, set := range c.snap.Load().sets {
				if set.load != one.loads[i] || set.panic != one.panics[i] {
					t.Errorf("priority %d: load %d, panic %v, want %d, %v", i, set.load, set.panic, one.loads[i], one.panics[i])
				}
			}
		})
	}
}

func TestNoHealthyHost(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, `"common_lb_config":{"healthy_panic_threshold":{}}`)
	if err := m.SetEndpoints(byPriority("c", []bool{false, false})); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Choose(Choice{}); !errors.Is(err, ErrNoHost) {
		t.Error(err)
	}
	c = m.set(t, `{"name":"c","type":"EDS","eds_cluster_config":{"eds_config":{"ads":{}}}}`) // panic at 50 %
	if _, err := c.Choose(Choice{}); err != nil {
		t.Error(err)
	}
	if c.Stats()["lb_healthy_panic"] != 1 || c.Stats()["membership_healthy"] != 0 || c.Stats()["membership_total"] != 2 {
		t.Error(c.Stats())
	}
}

func TestRetriesGoElsewhere(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, "")
	if err := m.SetEndpoints(byPriority("c", []bool{true, true}, []bool{true})); err != nil {
		t.Fatal(err)
	}
	hosts := c.Hosts()
	for i := range uint64(50) {
		if h, _ := c.Choose(Choice{Random: i, Tried: hosts[:1], Attempts: 5}); h == hosts[0] {
			t.Fatal("a host was tried again")
		}
		// The first priority was tried: the next one's turn.
		if h, _ := c.Choose(Choice{Random: i, Tried: hosts[:1], PriorityEvery: 1}); h != hosts[2] {
			t.Fatalf("%s was chosen", h.Address)
		}
		if h, _ := c.Choose(Choice{Random: i, Tried: []*Host{hosts[0], hosts[2]}, PriorityEvery: 1}); h == hosts[2] {
			t.Fatal("after all priorities it does not begin again")
		}
	}
}

// A host that refuses at once has nothing to do while the others are busy, and a
// balancer by load draws it again and again.
func TestRetriesLeaveTheIdleHostThatRefuses(t *testing.T) {
	for name, lb := range map[string]string{
		"two choices": `"lb_policy":"LEAST_REQUEST"`,
		"full scan": `"load_balancing_policy":{"policies":[{"typed_extension_config":{"name":"l","typed_config":{
			"@type":"type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest","selection_method":"FULL_SCAN"}}}]}`,
		"random":    `"lb_policy":"RANDOM"`,
		"ring hash": `"lb_policy":"RING_HASH"`,
	} {
		t.Run(name, func(t *testing.T) {
			c := newManager(t, Options{}).eds(t, lb, port(1), port(2), port(3))
			hosts := c.Hosts()
			hosts[1].active.Store(10)
			hosts[2].active.Store(20)
			for i := range uint64(5_000) {
				if h, err := c.Choose(Choice{Random: i, Tried: hosts[:1], Attempts: 1}); err != nil || h == hosts[0] {
					t.Fatalf("the host that refused is tried again (%v)", err)
				}
				if h, err := c.Choose(Choice{Random: i, Tried: []*Host{hosts[0], hosts[1]}, Attempts: 5}); err != nil || h != hosts[2] {
					t.Fatalf("not the only one that was not tried (%v)", err)
				}
			}
			if h, err := c.Choose(Choice{Tried: hosts, Attempts: 5}); err != nil || h == nil {
				t.Errorf("after all were tried: %v", err)
			}
		})
	}
}

func TestLocalityWeights(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, `"common_lb_config":{"locality_weighted_lb_config":{}}`)
	locality := func(zone string, weight uint32, first, n int) *endpointv3.LocalityLbEndpoints {
		l := &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Zone: zone}, LoadBalancingWeight: wrapperspb.UInt32(weight)}
		for i := range n {
			l.LbEndpoints = append(l.LbEndpoints, endpoint(port(first+i)))
		}
		return l
	}
	load := &endpointv3.ClusterLoadAssignment{ClusterName: "c", Endpoints: []*endpointv3.LocalityLbEndpoints{locality("a", 80, 1, 2), locality("b", 20, 3, 4)}}
	if err := m.SetEndpoints(load); err != nil {
		t.Fatal(err)
	}
	zones := map[string]int{}
	counts(t, c, 1000, func(h *Host) { zones[h.Locality().Zone]++ })
	if zones["a"] < 795 || zones["a"] > 805 {
		t.Error(zones)
	}
	// All of zone a were tried: another zone's are left, but none of one without a weight.
	load.Endpoints[0].LoadBalancingWeight = wrapperspb.UInt32(1_000_000)
	load.Endpoints = append(load.Endpoints, locality("c", 0, 7, 1))
	if err := m.SetEndpoints(load); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(1000) {
		h, err := c.Choose(Choice{Random: i, Tried: c.Hosts()[:2], Attempts: 5})
		if err != nil || h.Locality().Zone != "b" {
			t.Fatalf("%v in zone %q", err, h.Locality().Zone)
		}
	}
}

func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, Options{})
		c := m.eds(t, `"round_robin_lb_config":{"slow_start_config":{"slow_start_window":"60s","min_weight_percent":{"value":10}}}`, port(1), port(2))
		pass(2 * time.Minute)
		if err := m.SetEndpoints(assignment("c", port(1), port(2), port(3))); err != nil {
			t.Fatal(err)
		}
		share := func() int { return counts(t, c, 2100, nil)[port(3)] }
		if n := share(); n < 90 || n > 110 { // 0.1 of 2.1
			t.Errorf("at first %d of 2100", n)
		}
		time.Sleep(30 * time.Second)          //nolint:forbidigo // as above
		if n := share(); n < 410 || n > 430 { // 0.5 of 2.5
			t.Errorf("half way %d of 2100", n)
		}
		pass(31 * time.Second)
		if n := share(); n != 700 {
			t.Errorf("at the end %d of 2100", n)
		}
		m.Close()
	})
}
