package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/test/bench/cluster"
	"github.com/fairlead-mesh/fairlead/test/bench/measure"
)

// memory is what was measured of an agent, in bytes and seconds.
type memory map[string]float64

// idle measures the agents with nothing to do, with idle connections, and after
// each of these had a burst.
func idle(ctx context.Context, o options) (memory, error) {
	c, err := up(ctx, o, clusterYAML+podYAML("mesh", "client", "n1")+podYAML("mesh", "server", "n2"))
	if err != nil {
		return nil, err
	}
	defer c.down()
	client, _ := c.pod("mesh", "client")
	server, ip := c.pod("mesh", "server")
	if _, err := c.start(ctx, server, 9000, "sink", ":9000"); err != nil {
		return nil, err
	}
	out := memory{"connections": float64(o.idle)}
	note := func(what string) error {
		for _, n := range c.Nodes {
			// What is garbage is not what is held.
			if _, err := cluster.Ask(ctx, n.NetNS, "http://localhost:15000/debug/pprof/heap?gc=1"); err != nil {
				return err
			}
			b, err := measure.RSS(n.Agent.PID)
			if err != nil {
				return err
			}
			out[what+" "+n.Name] = float64(b)
			fmt.Printf("  agent %s, %-28s %6.1f MB\n", n.Name, what, float64(b)/1e6)
		}
		return nil
	}
	fmt.Printf("\nidle: resident memory, %d connections from n1 to n2\n", o.idle)
	if err := note("idle"); err != nil {
		return nil, err
	}
	holder := inside(ctx, client, "hold", "--addr", hostPort(ip, 9000), "--conns", fmt.Sprint(o.idle))
	in, err := holder.StdinPipe()
	if err != nil {
		return nil, err
	}
	pipe, err := holder.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := holder.Start(); err != nil {
		return nil, err
	}
	c.processes = append(c.processes, holder)
	says := bufio.NewReader(pipe)
	if line, _ := says.ReadString('\n'); line != "held\n" {
		return nil, fmt.Errorf("the connections were not made")
	}
	if err := note("with idle connections"); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintln(in, "burst"); err != nil {
		return nil, err
	}
	if line, _ := says.ReadString('\n'); line != "done\n" {
		return nil, fmt.Errorf("the burst was not carried")
	}
	if err := note("after 64 KiB on each"); err != nil {
		return nil, err
	}
	wait := min(time.Minute, 20*o.duration)
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := note(fmt.Sprintf("%s later", wait)); err != nil {
		return nil, err
	}
	return out, in.Close()
}

// manyPods measures what a pod costs its node's agent.
func manyPods(ctx context.Context, o options) (memory, error) {
	yaml := func(labels string) string {
		return fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Namespace
metadata: {name: many%s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many, namespace: many}
spec:
  replicas: %d
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      containers: [{name: app, image: echo}]
`, labels, o.pods)
	}
	c, err := up(ctx, o, yaml(""))
	if err != nil {
		return nil, err
	}
	defer c.down()
	pid := c.Agent("n1")
	out := memory{"pods": float64(o.pods)}
	look := func(when string) error {
		if _, err := cluster.Ask(ctx, c.Nodes[0].NetNS, "http://localhost:15000/debug/pprof/heap?gc=1"); err != nil {
			return err
		}
		b, err := measure.RSS(pid)
		if err != nil {
			return err
		}
		used, err := measure.CPU(pid)
		if err != nil {
			return err
		}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return err
		}
		out["rss "+when], out["cpu "+when], out["files "+when] = float64(b), used.Seconds(), float64(len(files))
		return nil
	}
	if err := look("before"); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := c.Write("cluster.yaml", yaml(", labels: {istio.io/dataplane-mode: ambient}")); err != nil {
		return nil, err
	}
	for want := fmt.Sprintf("fairlead_pods{state=\"enrolled\"} %d\n", o.pods); ; {
		page, err := cluster.Ask(ctx, c.Nodes[0].NetNS, "http://localhost:15020/metrics")
		if err != nil {
			return nil, err
		}
		if strings.Contains(page, want) {
			break
		}
		if time.Since(start) > 5*time.Minute {
			return nil, fmt.Errorf("the %d pods are not all enrolled after 5 minutes", o.pods)
		}
	}
	out["seconds"] = time.Since(start).Seconds()
	if err := look("after"); err != nil {
		return nil, err
	}
	n := out["pods"]
	fmt.Printf("\npods: %.0f enrolled in %.1f s from the label's change; for each: %.1f ms CPU, %.0f kB resident, %.1f open files (agent %.1f to %.1f MB)\n",
		n, out["seconds"], 1000*(out["cpu after"]-out["cpu before"])/n, (out["rss after"]-out["rss before"])/n/1000, (out["files after"]-out["files before"])/n, out["rss before"]/1e6, out["rss after"]/1e6)
	return out, nil
}
