// Command kube starts and ends real Kubernetes clusters on this machine, for use by hand:
//
//	go run ./test/kube/cmd/kube up [-name NAME] [-nodes N [-families dual]] [IMAGE.tar ...]   prints the kubeconfig's path
//	go run ./test/kube/cmd/kube down [NAME]
//	go run ./test/kube/cmd/kube list
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{""}
	}
	switch args[0] {
	case "up":
		return up(ctx, args[1:])
	case "down":
		name := "hand"
		if len(args) > 1 {
			name = args[1]
		}
		return cluster.Down(name)
	case "list":
		names, err := cluster.List()
		for _, n := range names {
			fmt.Println(n)
		}
		return err
	}
	return fmt.Errorf("%q: up, down and list are the commands", args[0])
}

func up(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("up", flag.ContinueOnError)
	o := cluster.Options{Detached: true}
	f.StringVar(&o.Name, "name", "hand", "the cluster's name, in the names of all it makes")
	f.IntVar(&o.Nodes, "nodes", 0, "nodes with kubelet and containerd; 0: the API server alone")
	families := f.String("families", "", "IP families of nodes, pods and services: ipv6, or dual; empty: IPv4")
	f.StringVar(&o.Parts, "parts", "", "directory of the built parts; default $FAIRLEAD_PARTS, else .cache/parts of the main working tree")
	if err := f.Parse(args); err != nil {
		return err
	}
	o.Images, o.Families = f.Args(), cluster.Families(*families)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "up after %s; kubectl: %s; end it: go run ./test/kube/cmd/kube down %s\n", time.Since(begin).Round(time.Millisecond), c.KubectlPath(), o.Name)
	fmt.Println(c.Kubeconfig)
	return nil
}
