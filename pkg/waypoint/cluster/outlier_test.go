package cluster

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// pass lets the bubble's clock go on.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func ejected(c *Cluster) (n int) {
	for _, h := range c.Hosts() {
		if h.ejected.Load() {
			n++
		}
	}
	return n
}

// failing answers with a status on some hosts until one is out or n tries are over;
// it returns how many tries failed per host.
func failing(t *testing.T, c *Cluster, n, status int, bad map[string]bool) map[string]int {
	t.Helper()
	out := map[string]int{}
	for i := range n {
		h, err := c.Choose(Choice{Random: uint64(i)})
		if err != nil {
			t.Fatal(err)
		}
		if bad[h.Address] {
			out[h.Address]++
			h.Report(Responded, status)
		} else {
			h.Report(Responded, 200)
		}
	}
	return out
}

// 4 endpoints of which 3 answer 500: out after 3 in a row, never more than 2, back
// after 30 to 60 s, and out for longer the second time.
func TestEjectionByServerErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, Options{})
		defer m.Close()
		c := m.eds(t, `"common_lb_config":{"healthy_panic_threshold":{"value":25}},
			"outlier_detection":{"consecutive_5xx":3,"interval":"30s","base_ejection_time":"30s","max_ejection_percent":50,"enforcing_success_rate":0}`,
			port(1), port(2), port(3), port(4))
		bad := map[string]bool{port(1): true, port(2): true, port(3): true}
		failed := failing(t, c, 400, 500, bad)
		if ejected(c) != 2 {
			t.Fatalf("%d are out", ejected(c))
		}
		three := 0
		for _, n := range failed {
			if n == 3 {
				three++
			}
		}
		if three != 2 {
			t.Errorf("failures until they were out: %v", failed)
		}
		if s := c.Stats(); s["outlier_detection.ejections_enforced_consecutive_5xx"] != 2 || s["outlier_detection.ejections_active"] != 2 || s["outlier_detection.ejections_overflow"] == 0 {
			t.Error(s)
		}
		var out *Host
		for _, h := range c.Hosts() {
			if h.ejected.Load() {
				out = h
			}
		}
		pass(29 * time.Second)
		if !out.ejected.Load() {
			t.Error("back before 30 s")
		}
		pass(2 * time.Second)
		if ejected(c) != 0 {
			t.Errorf("%d are still out after 31 s", ejected(c))
		}
		for range 3 {
			out.Report(Responded, 500)
		}
		pass(59 * time.Second)
		if !out.ejected.Load() {
			t.Error("the second ejection is not longer")
		}
		pass(32 * time.Second)
		if out.ejected.Load() {
			t.Error("the second ejection is longer than twice the first")
		}
	})
}

// 5 endpoints of which 4 answer 503: 3 are out after 2 gateway errors; 500s need 3.
func TestEjectionByGatewayErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, Options{})
		defer m.Close()
		detect := `"common_lb_config":{"healthy_panic_threshold":{}},"outlier_detection":{"consecutive_5xx":3,"consecutive_gateway_failure":2,"enforcing_consecutive_gateway_failure":100,
			"interval":"10s","base_ejection_time":"30s","max_ejection_percent":60}`
		c := m.eds(t, detect, port(1), port(2), port(3), port(4), port(5))
		bad := map[string]bool{port(1): true, port(2): true, port(3): true, port(4): true}
		failed := failing(t, c, 400, 503, bad)
		two := 0
		for _, n := range failed {
			if n == 2 {
				two++
			}
		}
		if ejected(c) != 3 || two != 3 {
			t.Errorf("%d are out, failures %v", ejected(c), failed)
		}
		pass(41 * time.Second)
		if ejected(c) != 0 {
			t.Errorf("%d are out after 41 s", ejected(c))
		}
		h := c.Hosts()[0]
		h.Report(Responded, 200)
		for i, want := range []bool{false, false, true} {
			h.Report(Responded, 500)
			if h.ejected.Load() != want {
				t.Errorf("after %d of 500: %v", i+1, !want)
			}
		}
	})
}

func TestEjectionByLocalErrors(t *testing.T) {
	m := newManager(t, Options{})
	split := `"outlier_detection":{"consecutive_5xx":3,"consecutive_local_origin_failure":2,"split_external_local_origin_errors":%v,"max_ejection_percent":100}`
	c := m.eds(t, fmt.Sprintf(split, true), port(1), port(2))
	h := c.Hosts()[0]
	h.Report(ConnectFailed, 0)
	h.Report(Responded, 200) // a response ends the row
	h.Report(ConnectFailed, 0)
	if h.ejected.Load() {
		t.Error("out after one in a row")
	}
	if h.Report(TimedOut, 0); !h.ejected.Load() {
		t.Error("not out after two in a row")
	}
	// Told together they count as 503 and 504.
	c = m.eds(t, fmt.Sprintf(split, false), port(3), port(4))
	h = c.Hosts()[0]
	for range 3 {
		h.Report(ConnectFailed, 0)
	}
	if !h.ejected.Load() {
		t.Error("not out after three")
	}
}

func TestEjectionIsOffByDefaultBeyondTenPercent(t *testing.T) {
	m := newManager(t, Options{})
	for fields, want := range map[string]int{`"consecutive_5xx":1`: 0, `"consecutive_5xx":1,"always_eject_one_host":true`: 1} {
		c := m.eds(t, `"outlier_detection":{`+fields+`}`, port(1), port(2), port(3), port(4))
		for _, h := range c.Hosts() {
			h.Report(Responded, 500)
		}
		if n := ejected(c); n != want {
			t.Errorf("%s: %d are out, want %d", fields, n, want)
		}
		m.Remove("c")
	}
}

// Success rates {100, 100, 100, 100, 50}: the last one is below mean less 1.9
// deviations.
func TestEjectionBySuccessRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, Options{})
		defer m.Close()
		c := m.eds(t, `"outlier_detection":{"consecutive_5xx":1000,"interval":"10s","max_ejection_percent":100,"enforcing_failure_percentage":100,"failure_percentage_threshold":90}`,
			port(1), port(2), port(3), port(4), port(5))
		for _, h := range c.Hosts() {
			for i := range 200 {
				status := 200
				if h.Address == port(5) && i%2 == 0 {
					status = 500
				}
				h.Report(Responded, status)
			}
		}
		pass(11 * time.Second)
		if s := c.Stats(); ejected(c) != 1 || !c.Hosts()[4].ejected.Load() || s["outlier_detection.ejections_enforced_success_rate"] != 1 {
			t.Errorf("%d are out: %v", ejected(c), s)
		}
		pass(40 * time.Second)
		for _, h := range c.Hosts() {
			for range 60 {
				status := 200
				if h.Address == port(1) {
					status = 500
				}
				h.Report(Responded, status)
			}
		}
		pass(10 * time.Second)
		if s := c.Stats(); !c.Hosts()[0].ejected.Load() || s["outlier_detection.ejections_enforced_failure_percentage"] != 1 {
			t.Error("failure percentage:", s)
		}
	})
}

// What is out stays out over updates that do not concern it.
func TestEjectionSurvivesUpdates(t *testing.T) {
	m := newManager(t, Options{})
	detect := `"outlier_detection":{"consecutive_5xx":1,"max_ejection_percent":100}`
	c := m.eds(t, detect, port(1), port(2), port(3))
	h := c.Hosts()[0]
	h.Report(Responded, 500)
	c = m.eds(t, detect+`,"lb_policy":"RANDOM"`, port(1), port(2), port(4))
	if c.Hosts()[0] != h || !h.ejected.Load() || h.Healthy() {
		t.Error("an update forgot the ejection")
	}
	for i := range uint64(50) {
		if chosen, _ := c.Choose(Choice{Random: i}); chosen == h {
			t.Fatal("a host that is out was chosen")
		}
	}
	m.eds(t, "", port(1), port(2))
	if h.ejected.Load() || c.Stats()["outlier_detection.ejections_active"] != 0 {
		t.Error("without outlier detection it is still out")
	}
}

// A row that cannot eject, as too many are out already, begins anew.
func TestRowBeginsAnewAfterAnOverflow(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, `"outlier_detection":{"consecutive_5xx":3,"max_ejection_percent":0}`, port(1), port(2))
	for range 9 {
		c.Hosts()[0].Report(Responded, 500)
	}
	if s := c.Stats(); s["outlier_detection.ejections_overflow"] != 3 || s["outlier_detection.ejections_detected_consecutive_5xx"] != 3 {
		t.Error(s)
	}
}
