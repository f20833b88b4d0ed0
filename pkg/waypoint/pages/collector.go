package pages

import (
	"regexp"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/histogram"
)

// collector shows statistics as Envoy shows them to Prometheus: the variable parts of
// a name are labels, and the rest of it begins with envoy_.
type collector struct {
	stats   func() []stat
	timings []timing
}

// Describe implements [prometheus.Collector]: which ones there are is not known before.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (c collector) Collect(ch chan<- prometheus.Metric) {
	seen := map[string]bool{}
	again := func(name string, values []string) bool { // of two clusters with one name for statistics
		id := name + "\x00" + strings.Join(values, "\x00")
		was := seen[id]
		seen[id] = true
		return was
	}
	for _, t := range c.timings {
		name, labels, values := translate(t.name)
		if again(name, values) {
			continue
		}
		of := map[float64]uint64{}
		for i, n := range t.of.Buckets() {
			of[histogram.Bounds[i]] = n
		}
		ch <- prometheus.MustNewConstHistogram(prometheus.NewDesc(name, "A histogram of /stats.", labels, nil), t.of.Count, float64(t.of.Sum), of, values...)
	}
	for _, s := range c.stats() {
		name, labels, values := translate(s.Name)
		if again(name, values) {
			continue
		}
		kind := prometheus.CounterValue
		if gauge(s.Name) {
			kind = prometheus.GaugeValue
		}
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, "A statistic of /stats.", labels, nil), kind, float64(s.Value), values...)
	}
}

// tags are what Envoy takes out of names, in this order: the first group is the
// label's value, and all of the match but what is before and behind is left out.
var tags = []struct {
	label   string
	pattern *regexp.Regexp
	without string
}{
	{"envoy_cluster_name", regexp.MustCompile(`^cluster\.(.+?)\.((?:external\.)?upstream_|ssl\.|lb_|membership_|update_|outlier_detection\.|circuit_breakers\.|retry|bind|version|max_|default)`), "cluster.$2"},
	{"envoy_http_conn_manager_prefix", regexp.MustCompile(`^http\.(.+)\.((?:downstream_|fault\.).*)$`), "http.$2"},
	{"envoy_listener_address", regexp.MustCompile(`^listener\.(.+)\.(downstream_.*)$`), "listener.$2"},
	{"envoy_response_code", regexp.MustCompile(`_rq_(\d{3})$`), "_rq"},
	{"envoy_response_code_class", regexp.MustCompile(`_rq_(\d)xx$`), "_rq_xx"},
}

var unnamed = regexp.MustCompile(`[^a-zA-Z0-9_]`)

// translate is a statistic's name and labels for Prometheus.
func translate(stat string) (name string, labels, values []string) {
	for _, t := range tags {
		m := t.pattern.FindStringSubmatch(stat)
		if m == nil {
			continue
		}
		labels, values = append(labels, t.label), append(values, m[1])
		stat = t.pattern.ReplaceAllString(stat, t.without)
	}
	if !strings.HasPrefix(stat, "fairlead.") {
		stat = "envoy." + stat
	}
	return unnamed.ReplaceAllString(stat, "_"), labels, values
}

var gauges = regexp.MustCompile(`(_active|_open|_healthy|membership_total|remaining_\w+|active_clusters|_now|\.refused|server\.\w+|total_listeners_active|ejections_active|active_faults)$`)

func gauge(name string) bool { return gauges.MatchString(name) && name != "fairlead.config.refused" }

// withoutEnvoy leaves out what is shown already.
type withoutEnvoy struct{ of prometheus.Gatherer }

// Gather implements [prometheus.Gatherer].
func (g withoutEnvoy) Gather() ([]*dto.MetricFamily, error) {
	all, err := g.of.Gather()
	out := all[:0]
	for _, f := range all {
		if !strings.HasPrefix(f.GetName(), "envoy_") && !strings.HasPrefix(f.GetName(), "fairlead_config_") && !strings.HasPrefix(f.GetName(), "fairlead_filter_chains_") && f.GetName() != "fairlead_faults" {
			out = append(out, f)
		}
	}
	return out, err
}
