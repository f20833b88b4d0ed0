// Command bench measures the L4 mesh beside its peers, in one run and interleaved:
// plain veth, a pair of Go TLS relays, a pair of HAProxy, a Go copy relay; and the
// waypoint beside other L7 proxies (package waypoint). Each round runs every peer;
// what is shown is the median of the same-round ratios.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/test/bench/measure"
	"github.com/fairlead-mesh/fairlead/test/bench/waypoint"
)

type options struct {
	rounds   int
	duration time.Duration
	only     string
	out, bin string
	idle     int
	pods     int
	changes  int
	relays   int
}

func main() {
	maps.Copy(parts, waypoint.Parts)
	if len(os.Args) > 1 {
		if run := parts[os.Args[1]]; run != nil { // one of its own processes, in a pod
			if err := run(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, "bench", os.Args[1]+":", err)
				os.Exit(1)
			}
			return
		}
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 7, "interleaved rounds")
	flag.DurationVar(&o.duration, "duration", 2*time.Second, "of each sample")
	flag.StringVar(&o.only, "only", "", "comma-separated: bulk1, bulk8, bulk16, rr1, rr1k, rr16, crr, pass, idle, pods, handover of L4; w1, w1b, w2, w3, w4, c1, l7idle of the waypoint; empty is all")
	flag.StringVar(&o.out, "out", ".cache/bench.json", "file for each round's samples")
	flag.StringVar(&o.bin, "bin", "bin", "where fairlead, node-agent and control-plane are")
	flag.IntVar(&o.idle, "idle", 10_000, "idle connections to hold; the limit of open files is per process")
	flag.IntVar(&o.pods, "pods", 500, "pods to enrol on one node")
	flag.IntVar(&o.relays, "relays", 20_000, "plaintext connections of an agent that is replaced; the limit of open files is raised where it may be")
	flag.IntVar(&o.changes, "changes", 200, "routes to change, one after the other")
	quick := flag.Bool("quick", false, "three rounds of half a second: a look, not a result")
	flag.Usage = func() {
		fmt.Fprint(os.Stderr, `bench measures the mesh beside its peers. It needs root, and bin/ (make build).

  go run ./test/bench                    # all of it: ten minutes
  go run ./test/bench --only rr1,crr     # two scenarios
  go run ./test/bench --quick            # a look

`)
		flag.PrintDefaults()
	}
	flag.Parse()
	if *quick {
		o.rounds, o.duration = 3, 500*time.Millisecond
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o options) wants(name string) bool {
	if o.only == "" {
		return true
	}
	for _, n := range strings.Split(o.only, ",") {
		if n == name {
			return true
		}
	}
	return false
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("it needs root: the lab makes network namespaces")
	}
	result := map[string]any{"machine": measure.Machine(), "rounds": o.rounds, "duration": o.duration.String()}
	fmt.Println(measure.Machine())
	samples, err := compare(ctx, o)
	if err != nil {
		return err
	}
	result["samples"] = samples
	if o.wants("idle") {
		m, err := idle(ctx, o)
		if err != nil {
			return err
		}
		result["idle"] = m
	}
	if o.wants("pods") {
		m, err := manyPods(ctx, o)
		if err != nil {
			return err
		}
		result["pods"] = m
	}
	if o.wants("handover") {
		m, err := handover(ctx, o)
		if err != nil {
			return err
		}
		result["handover"] = m
	}
	if result["waypoint"], err = waypoint.Run(ctx, waypoint.Options{
		Rounds: o.rounds, Duration: o.duration, Bin: o.bin, Peers: ".cache", Idle: o.idle, Changes: o.changes, Wants: o.wants,
	}); err != nil {
		return fmt.Errorf("waypoint: %w", err)
	}
	b, err := json.MarshalIndent(result, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	fmt.Println("\neach sample:", o.out)
	return os.WriteFile(o.out, b, 0o644)
}
