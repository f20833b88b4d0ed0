package route

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// Compiled routes are small: 5,000 of them take a few megabytes.
func TestMemoryOfRoutes(t *testing.T) {
	const hosts, perHost = 50, 100
	var text strings.Builder
	text.WriteString("virtual_hosts:\n")
	for h := range hosts {
		fmt.Fprintf(&text, "- name: host-%d\n  domains: [server-%d.shop.svc.cluster.local]\n  routes:\n", h, h)
		for r := range perHost {
			fmt.Fprintf(&text, "  - match: {prefix: /route-%d/, headers: [{name: x-canary, string_match: {exact: always}}]}\n    route: {weighted_clusters: {clusters: [{name: v1, weight: 90}, {name: v2, weight: 10}]}}\n", r)
		}
	}
	config := parse(t, text.String())
	held := func() uint64 {
		for range 3 {
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := held()
	table, err := Compile(config, Options{})
	if err != nil {
		t.Fatal(err)
	}
	each := float64(held()-before) / (hosts * perHost)
	t.Logf("%.0f bytes for each route", each)
	if each > 2<<10 {
		t.Errorf("%.0f bytes for each route, want at most 2 KiB", each)
	}
	runtime.KeepAlive(table)
	runtime.KeepAlive(config)
}
