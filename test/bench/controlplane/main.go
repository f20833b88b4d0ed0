// Command controlplane measures the control plane on a real API server: how long a world
// of many pods and EndpointSlices takes until it is served and in how much memory, what
// a change of one pod costs that thousands of agents are told, against a bare stream of
// grpc-go that sends the same bytes, and what it costs when all of them come back.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairlead-mesh/fairlead/test/bench/measure"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

type options struct {
	size                  size
	clients, reconnects   int
	rounds, changes       int
	only, bin, kubeconfig string
	before                bool
}

const usage = `Measure bin/control-plane on a real API server (after: make build kube-parts).

  start      how long a world takes until it is served, and in how much memory
  push       a change of one pod that --clients are told, against a bare stream of grpc-go
  storm      500 changes of pods in a second, and lone ones of a pod and of a Service, that 300 are told,
             against a bare stream of the same bytes
  discovery  a namespace that discoverySelectors comes to select, until its pods are told
  reconnect  --reconnects that come back at once to a control plane that was started again

A world of 30,000 pods and EndpointSlices takes a few minutes: nodes, pods and slices are
put straight into the etcd of the API server that this starts, or of one of test/kube that
--kubeconfig names; through any other API server it takes an hour.

  go run ./test/bench/controlplane --pods 30000 --slices 30000 --agents 300 --only start,reconnect --reconnects 300
  go run ./test/bench/controlplane --pods 750 --agents 1250 --only reconnect
  go run ./test/bench/controlplane --pods 10000 --of-service 10 --agents 300 --only start,storm,discovery

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == "bare" {
		err = bare(ctx, os.Args[2:])
	} else {
		err = run(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	f := flag.NewFlagSet("controlplane", flag.ContinueOnError)
	f.IntVar(&o.size.pods, "pods", 2_000, "pods of the world")
	f.IntVar(&ofService, "of-service", 30, "pods of a service")
	f.IntVar(&o.size.slices, "slices", 0, "EndpointSlices beside those that Kubernetes makes")
	f.IntVar(&o.size.agents, "agents", 2_000, "nodes with an agent, which are pods too")
	f.IntVar(&o.clients, "clients", 2_000, "connected clients that a change is told")
	f.IntVar(&o.reconnects, "reconnects", 5_000, "clients that come back at once, up to four of each agent")
	f.IntVar(&o.rounds, "rounds", 5, "interleaved rounds")
	f.IntVar(&o.changes, "changes", 20, "changes in a round")
	f.StringVar(&o.only, "only", "", "comma-separated: start, push, storm, discovery, reconnect; empty is all")
	f.StringVar(&o.bin, "bin", "bin", "where control-plane is")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "a cluster that is there already; it is filled up")
	f.BoolVar(&o.before, "door", false, "reconnect from before the control plane is ready")
	f.Usage = func() { fmt.Fprint(f.Output(), usage); f.PrintDefaults() }
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if o.size.pods < 1 || o.size.agents < 1 || ofService < 1 {
		return errors.New("--pods, --agents and --of-service must be positive")
	}
	dir, err := os.MkdirTemp("", "fairlead-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Println(measure.Machine())
	config, kubeconfig, stop, err := o.server(ctx)
	if err != nil {
		return err
	}
	defer stop()
	config.QPS = -1
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	begin := time.Now()
	store, err := openStore(kubeconfig)
	if err != nil {
		return err
	}
	defer store.close()
	if err := fill(ctx, kube, store, o.size); err != nil {
		return fmt.Errorf("fill the world: %w", err)
	}
	fmt.Printf("the world has %d pods, %d agents and %d EndpointSlices of its own (%.0f s)\n", o.size.pods, o.size.agents, o.size.slices, time.Since(begin).Seconds())
	plane, err := startPlane(o, kubeconfig, dir, nil)
	if err != nil {
		return err
	}
	defer func() { plane.stop() }()
	if err := o.start(ctx, plane); err != nil {
		return err
	}
	if !slices.ContainsFunc([]string{"push", "storm", "discovery", "reconnect"}, o.wants) {
		return nil
	}
	agents, err := tokens(ctx, kube, o.size.agents, dir)
	if err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	if o.wants("push") {
		if err := push(ctx, o, kube, plane, agents, dir); err != nil {
			return fmt.Errorf("push: %w", err)
		}
	}
	if o.wants("storm") {
		if err := storm(ctx, o, kube, plane, agents, dir); err != nil {
			return fmt.Errorf("storm: %w", err)
		}
	}
	if o.wants("discovery") {
		if err := discover(ctx, o, kube, plane, agents); err != nil {
			return fmt.Errorf("discovery: %w", err)
		}
	}
	if o.wants("reconnect") {
		if plane, err = reconnect(ctx, o, kubeconfig, dir, plane, agents); err != nil {
			return fmt.Errorf("reconnect: %w", err)
		}
	}
	return nil
}

func (o options) wants(name string) bool {
	return o.only == "" || strings.Contains(","+o.only+",", ","+name+",")
}

// start waits for the first state.
func (o options) start(ctx context.Context, plane *process) error {
	took, err := plane.ready(ctx)
	if err != nil {
		return err
	}
	cpu := plane.cpu()
	if err := pause(ctx, 5*time.Second); err != nil { // statuses are written, and memory is what it stays
		return err
	}
	now, most := plane.memory()
	fmt.Printf("objects listed %.2f s after the start of the process, ready %.2f s; CPU until then %.2f s; memory %.0f MB, at most %.0f\n",
		plane.listed().Seconds(), took.Seconds(), cpu.Seconds(), now, most)
	return nil
}

// server is the API server: one that is there, or one of its own.
func (o options) server(ctx context.Context) (config *rest.Config, kubeconfig string, stop func(), err error) {
	if o.kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", o.kubeconfig)
		return config, o.kubeconfig, func() {}, err
	}
	c, err := cluster.Start(ctx, cluster.Options{Name: "bench"})
	if err != nil {
		return nil, "", nil, err
	}
	config, err = c.Config()
	return config, c.Kubeconfig, func() { _ = c.Stop() }, err
}
