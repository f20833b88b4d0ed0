// Package waypoint measures the waypoint beside other L7 proxies, all on loopback
// with one core each: the proxy has the first CPU, clients and origin the second.
// What counts is the CPU time of the proxy's process for each request, and the ratio
// of two proxies' in the same round. It is a part of test/bench.
package waypoint

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// Options of a run.
type Options struct {
	Rounds   int
	Duration time.Duration // of each sample
	Bin      string        // where the product's binaries are
	Peers    string        // where envoy/envoy, caddy/caddy and bench/fasthttp are
	Idle     int           // connections to hold
	Changes  int           // of routes
	Wants    func(name string) bool
}

// Parts are the processes that a run starts of its own program.
var Parts = map[string]func([]string) error{
	"l7-origin": originMain, "l7-nethttp": nethttpMain, "l7-streams": streamsMain, "l7-hold": holdMain, "l7-changes": changesMain,
}

// Run measures what is wanted, and returns all samples.
func Run(ctx context.Context, o Options) (map[string]any, error) {
	out := map[string]any{}
	dir, err := os.MkdirTemp("", "fairlead-bench-l7")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	w := &world{o: o, dir: dir}
	defer w.close()
	var all []Sample
	for _, s := range scenarios() {
		if !o.Wants(s.name) && !o.Wants(strings.SplitN(s.name, "-", 2)[0]) {
			continue
		}
		got, err := w.compare(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		all = append(all, got...)
	}
	out["samples"] = all
	for _, more := range []struct {
		name string
		run  func(context.Context) (any, error)
	}{{"w3", w.inMesh}, {"w4", w.manyRoutes}, {"c1", w.changes}, {"l7idle", w.idle}} {
		if !o.Wants(more.name) {
			continue
		}
		if out[more.name], err = more.run(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", more.name, err)
		}
	}
	return out, nil
}
