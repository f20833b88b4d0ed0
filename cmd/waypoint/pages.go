package main

import (
	"fmt"
	"net/http"
	"slices"
)

// statsPage is Envoy's /stats: a counter a line.
func (p *proxy) statsPage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	var lines []string
	for name, v := range p.engine.Stats() {
		lines = append(lines, fmt.Sprintf("%s: %d\n", name, v))
	}
	for _, name := range p.clusters.Names() {
		c := p.clusters.Get(name)
		if c == nil {
			continue
		}
		for stat, v := range c.Stats() {
			lines = append(lines, fmt.Sprintf("cluster.%s.%s: %d\n", name, stat, v))
		}
	}
	slices.Sort(lines)
	for _, l := range lines {
		if _, err := w.Write([]byte(l)); err != nil {
			return
		}
	}
}

// listenersPage is Envoy's /listeners.
func (p *proxy) listenersPage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	for _, l := range p.engine.Listeners() {
		fmt.Fprintf(w, "%s::%s\n", l.Name, l.Address)
	}
}
