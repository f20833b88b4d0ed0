package differential

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// clusterStats are the counters of clusters that are compared.
var clusterStats = []string{
	"upstream_rq_total", "upstream_rq_completed", "upstream_rq_1xx", "upstream_rq_2xx", "upstream_rq_3xx", "upstream_rq_4xx", "upstream_rq_5xx",
	"upstream_rq_200", "upstream_rq_404", "upstream_rq_500", "upstream_rq_503", "upstream_rq_504", "upstream_rq_timeout", "upstream_rq_per_try_timeout", "upstream_rq_per_try_idle_timeout",
	"upstream_rq_retry_backoff_exponential", "upstream_rq_retry_backoff_ratelimited",
	"upstream_rq_retry", "upstream_rq_retry_success", "upstream_rq_retry_overflow", "upstream_rq_retry_limit_exceeded", "upstream_rq_pending_overflow",
	"upstream_rq_rx_reset", "upstream_rq_tx_reset", "upstream_rq_max_duration_reached", "upstream_cx_connect_fail", "upstream_cx_none_healthy", "upstream_cx_overflow",
	"upstream_rq_active", "upstream_rq_pending_active", "membership_total", "membership_healthy",
	"outlier_detection.ejections_active", "outlier_detection.ejections_enforced_total", "outlier_detection.ejections_enforced_consecutive_5xx",
	"outlier_detection.ejections_enforced_consecutive_gateway_failure", "outlier_detection.ejections_detected_consecutive_5xx", "outlier_detection.ejections_overflow",
	"circuit_breakers.default.rq_open", "circuit_breakers.default.cx_open", "circuit_breakers.default.rq_pending_open", "circuit_breakers.default.rq_retry_open",
}

var httpStats = []string{"downstream_rq_total", "downstream_rq_1xx", "downstream_rq_2xx", "downstream_rq_3xx", "downstream_rq_4xx", "downstream_rq_5xx",
	"downstream_rq_timeout", "downstream_rq_header_timeout", "downstream_rq_idle_timeout", "downstream_rq_max_duration_reached",
	"fault.aborts_injected", "fault.delays_injected", "fault.faults_overflow", "fault.active_faults"}

// compareStats compares what both proxies counted by now. Gauges and what is counted
// when an exchange ends settle for a moment.
func (w *world) compareStats() {
	w.t.Helper()
	if w.again > 0 {
		w.t.Log("statistics are not compared: they count what a busy machine did")
		return
	}
	var got [2]map[string]string
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Second); ; <-tick.C {
		equal := true
		for i, p := range proxies() {
			stats, err := p.stats()
			if err != nil {
				w.t.Fatal(err)
			}
			got[i] = w.ownStats(stats)
			if err := w.timed(p, got[i]); err != nil {
				w.t.Fatal(err)
			}
		}
		for k, v := range got[0] {
			equal = equal && got[1][k] == v
		}
		if equal || time.Now().After(end) {
			break
		}
	}
	w.differ("stats", got[0], got[1])
}

func (w *world) ownStats(all map[string]int64) map[string]string {
	out := map[string]string{}
	for _, c := range w.clusters {
		for _, s := range clusterStats {
			out["stat "+c+"."+s] = fmt.Sprint(all["cluster."+c+"."+s])
		}
	}
	for _, prefix := range w.prefixes {
		for _, s := range httpStats {
			out["stat "+prefix+"."+s] = fmt.Sprint(all["http."+prefix+"."+s])
		}
	}
	return out
}

// timed adds how many times the histograms of the test counted.
func (w *world) timed(p *proxy, out map[string]string) error {
	response, err := http.Get("http://" + p.admin + "/stats?format=json&histogram_buckets=disjoint&filter=_rq_time$")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var all struct {
		Stats []struct {
			Histograms []struct {
				Name    string
				Buckets []struct{ Cumulative int64 }
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&all); err != nil {
		return err
	}
	counts := map[string]int64{}
	for _, s := range all.Stats {
		for _, h := range s.Histograms {
			for _, b := range h.Buckets {
				counts[h.Name] += b.Cumulative
			}
		}
	}
	for _, c := range w.clusters {
		out["stat "+c+".upstream_rq_time"] = fmt.Sprint(counts["cluster."+c+".upstream_rq_time"])
	}
	for _, prefix := range w.prefixes {
		out["stat "+prefix+".downstream_rq_time"] = fmt.Sprint(counts["http."+prefix+".downstream_rq_time"])
	}
	return nil
}
