package pages

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// stat is a counter or gauge under Envoy's name.
type stat struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

// serverStats are those of the process, its listeners and its connection managers.
func (p *Pages) serverStats() (out []stat) {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	live := int64(0)
	if !p.o.Engine.Draining() {
		live = 1
	}
	out = append(out,
		stat{"server.live", live}, stat{"server.state", int64(p.state())}, stat{"server.uptime", int64(time.Since(p.started) / time.Second)},
		stat{"server.concurrency", int64(runtime.GOMAXPROCS(0))},
		stat{"server.memory_allocated", int64(memory.HeapAlloc)}, stat{"server.memory_heap_size", int64(memory.HeapSys)}, //nolint:gosec // bytes
		stat{"cluster_manager.active_clusters", int64(len(p.o.Clusters.Names()))},
	)
	for name, v := range p.o.Engine.Stats() {
		out = append(out, stat{name, int64(v)}) //nolint:gosec // a counter
	}
	return out
}

// clusterStats are those of the clusters.
func (p *Pages) clusterStats() (out []stat) {
	for _, name := range p.o.Clusters.Names() {
		c := p.o.Clusters.Get(name)
		if c == nil {
			continue
		}
		prefix := "cluster." + c.StatName() + "."
		for key, v := range c.Stats() {
			if p.o.Included == nil || p.o.Included(prefix+key) {
				out = append(out, stat{prefix + key, v})
			}
		}
	}
	return out
}

// metrics are those that the port for metrics has beside Istio's.
func (p *Pages) metrics() []stat {
	out := p.serverStats()
	if p.o.Included != nil {
		out = append(out, p.clusterStats()...)
	}
	return out
}

// stats is Envoy's /stats: ?format=text, json or prometheus; ?filter= is a regular
// expression for names; ?usedonly leaves out what is zero; ?histogram_buckets= is the form
// of histograms.
func (p *Pages) stats(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	format := query.Get("format")
	if format == "prometheus" {
		p.prometheus(w, r)
		return
	}
	form, ok := bucketsOf(query.Get("histogram_buckets"))
	if !ok {
		http.Error(w, "histogram_buckets: want summary, cumulative or disjoint", http.StatusBadRequest)
		return
	}
	all, timings, ok := p.chosen(w, r)
	if !ok {
		return
	}
	slices.SortFunc(all, func(a, b stat) int { return cmp.Compare(a.Name, b.Name) })
	switch format {
	case "", "text", "html", "active-html":
		w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
		for _, s := range all {
			fmt.Fprintf(w, "%s: %d\n", s.Name, s.Value)
		}
		for _, t := range timings {
			fmt.Fprintln(w, t.text(form))
		}
	case "json":
		list := []any{}
		for _, s := range all {
			list = append(list, s)
		}
		if len(timings) > 0 {
			list = append(list, histogramsJSON(timings, form))
		}
		text, err := json.Marshal(map[string]any{"stats": list})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		write(w, text)
	default:
		http.Error(w, "format: want text, json or prometheus", http.StatusBadRequest)
	}
}

// chosen are the statistics that the query asks for.
func (p *Pages) chosen(w http.ResponseWriter, r *http.Request) ([]stat, []timing, bool) {
	query := r.URL.Query()
	filter, err := pattern(query.Get("filter"))
	if err != nil {
		http.Error(w, "filter: "+err.Error(), http.StatusBadRequest)
		return nil, nil, false
	}
	used := query.Has("usedonly")
	out := func(name string, unused bool) bool {
		return filter != nil && !filter.MatchString(name) || used && unused
	}
	all := slices.DeleteFunc(append(p.serverStats(), p.clusterStats()...), func(s stat) bool { return out(s.Name, s.Value == 0) })
	timings := slices.DeleteFunc(p.timings(), func(t timing) bool { return out(t.name, t.of.Count == 0) })
	return all, timings, true
}

// prometheus is Envoy's /stats/prometheus: Istio's metrics, and Envoy's statistics with
// those of the clusters. The port for metrics leaves the latter out, unless some are
// chosen: there are as many as there are services.
func (p *Pages) prometheus(w http.ResponseWriter, r *http.Request) {
	all, timings, ok := p.chosen(w, r)
	if !ok {
		return
	}
	of := prometheus.NewRegistry()
	if err := of.Register(collector{func() []stat { return all }, timings}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	gather := prometheus.Gatherers{of}
	if r.URL.Query().Get("filter") == "" {
		gather = append(gather, withoutEnvoy{p.o.Registry})
	}
	promhttp.HandlerFor(gather, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// memory is Envoy's /memory, as far as the words have a meaning here.
func (p *Pages) memory(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	message(w, &adminv3.Memory{Allocated: m.HeapAlloc, HeapSize: m.HeapSys, PageheapUnmapped: m.HeapReleased, PageheapFree: m.HeapIdle - m.HeapReleased, TotalPhysicalBytes: m.Sys - m.HeapReleased})
}

// clusters is Envoy's /clusters, as text or with ?format=json.
func (p *Pages) clusters(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("format") == "json" {
		message(w, p.o.Clusters.Statuses())
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	_ = p.o.Clusters.WriteClusters(w) // the reader has gone
}
