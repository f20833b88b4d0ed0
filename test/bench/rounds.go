package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"

	"github.com/fairlead-mesh/fairlead/test/bench/measure"
)

const clusterYAML = `apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
---
apiVersion: v1
kind: Namespace
metadata: {name: mesh, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Namespace
metadata: {name: plain}
`

func podYAML(namespace, name, node string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s}\nspec:\n  nodeName: %s\n  containers: [{name: app, image: echo}]\n", name, namespace, node)
}

// peer is one way from a client to the sink.
type peer struct {
	name, ns, addr string
	pids           []int
}

// scenario is a load, and the unit that its CPU time is shown by.
type scenario struct {
	name, what string
	args       []string
	unit       string
	units      func(measured) float64
	peers      []string
}

func scenarios() []scenario {
	gib := func(m measured) float64 { return float64(m.Bytes) / (1 << 30) }
	ops := func(m measured) float64 { return float64(m.Operations) / 1e6 }
	tunnels := []string{"direct", "fairlead", "gotls", "haproxy"}
	return []scenario{
		{"bulk1", "one stream, Gb/s", []string{"--mode", "bulk", "--conns", "1"}, "s/GiB", gib, tunnels},
		{"bulk8", "8 streams, Gb/s", []string{"--mode", "bulk", "--conns", "8"}, "s/GiB", gib, tunnels},
		{"bulk16", "16 streams, Gb/s", []string{"--mode", "bulk", "--conns", "16"}, "s/GiB", gib, tunnels},
		{"rr1", "1 B round trips a second, 1 connection", []string{"--mode", "rr", "--conns", "1", "--size", "1"}, "us", ops, tunnels},
		{"rr1k", "1 KiB round trips a second, 1 connection", []string{"--mode", "rr", "--conns", "1", "--size", "1024"}, "us", ops, tunnels},
		{"rr16", "1 KiB round trips a second, 16 connections", []string{"--mode", "rr", "--conns", "16", "--size", "1024"}, "us", ops, tunnels},
		{"crr", "connections a second, 8 at a time, warm tunnel", []string{"--mode", "crr", "--conns", "8"}, "us", ops, tunnels},
		{"pass", "plaintext to a pod outside the mesh, Gb/s", []string{"--mode", "bulk", "--conns", "1"}, "s/GiB", gib, []string{"direct", "passthrough", "gocopy"}},
	}
}

// sample is one peer in one round.
type sample struct {
	Scenario, Peer string
	Round          int
	Rate           float64 // as the scenario says
	CPU            float64 // of the component under test, per unit
	P50, P99       float64
	Load           float64 // the machine's, before
	Path           path    // of the mesh's: what the programs and the agents counted
}

func compare(ctx context.Context, o options) ([]sample, error) {
	if !slices.ContainsFunc(scenarios(), func(s scenario) bool { return o.wants(s.name) }) {
		return nil, nil
	}
	yaml := clusterYAML
	for _, ns := range []string{"mesh", "plain"} {
		yaml += podYAML(ns, "client", "n1") + podYAML(ns, "server", "n2")
	}
	c, err := up(ctx, o, yaml)
	if err != nil {
		return nil, err
	}
	defer c.down()
	peers, err := c.peers(ctx)
	if err != nil {
		return nil, err
	}
	var all []sample
	for _, s := range scenarios() {
		if !o.wants(s.name) {
			continue
		}
		var of []sample
		for round := range o.rounds + 1 { // the first warms up
			for i := range s.peers {
				name := s.peers[(i+round)%len(s.peers)]
				got, err := c.one(ctx, o, s, peers[name], round)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", s.name, name, err)
				}
				if round > 0 {
					of = append(of, got)
				}
			}
			fmt.Fprintf(os.Stderr, "\r%s: round %d of %d ", s.name, round, o.rounds)
		}
		fmt.Fprint(os.Stderr, "\r")
		report(s, of)
		all = append(all, of...)
	}
	return all, nil
}

func (c *running) one(ctx context.Context, o options, s scenario, p peer, round int) (sample, error) {
	out := sample{Scenario: s.name, Peer: p.name, Round: round, Load: measure.Load()}
	meshed := p.name == "fairlead" || p.name == "passthrough"
	var walked path
	var err error
	if meshed {
		if walked, err = c.path(ctx); err != nil {
			return out, err
		}
	}
	before, err := measure.CPU(p.pids...)
	if err != nil {
		return out, err
	}
	m, err := runLoad(ctx, p.ns, append(slices.Clone(s.args), "--addr", p.addr, "--duration", o.duration.String())...)
	if err != nil {
		return out, err
	}
	if m.Errors > 0 {
		return out, fmt.Errorf("%d errors, the last: %s", m.Errors, m.LastError)
	}
	after, err := measure.CPU(p.pids...)
	if err != nil {
		return out, err
	}
	if meshed {
		now, err := c.path(ctx)
		if err != nil {
			return out, err
		}
		if out.Path = now.since(walked); !out.Path.proves(p.name == "fairlead") {
			return out, fmt.Errorf("the figures are not of this path: %s", out.Path)
		}
	}
	out.P50, out.P99 = m.P50, m.P99
	out.Rate = float64(m.Operations) / m.Seconds
	if m.Operations == 0 {
		out.Rate = float64(m.Bytes) * 8 / 1e9 / m.Seconds
	}
	out.CPU = (after - before).Seconds() / s.units(m)
	return out, nil
}

// peers starts those who compete, in the pods outside the mesh.
func (c *running) peers(ctx context.Context) (map[string]peer, error) {
	meshNS, _ := c.pod("mesh", "client")
	meshServer, meshIP := c.pod("mesh", "server")
	plainNS, _ := c.pod("plain", "client")
	plainServer, plainIP := c.pod("plain", "server")
	for _, ns := range []string{meshNS, meshServer, plainNS, plainServer} {
		if out, err := exec.CommandContext(ctx, "nsenter", "--net="+ns, "sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=64").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("sysctl: %w: %s", err, out)
		}
	}
	pem, err := writePEM(c.Dir)
	if err != nil {
		return nil, err
	}
	client, err := haproxy(c.Dir, "client", "127.0.0.1:9003", hostPort(plainIP, 9004), pem, false)
	if err != nil {
		return nil, err
	}
	server, err := haproxy(c.Dir, "server", ":9004", "127.0.0.1:9000", pem, true)
	if err != nil {
		return nil, err
	}
	pids := map[string][]int{"fairlead": {c.Agent("n1"), c.Agent("n2")}, "passthrough": {c.Agent("n1")}}
	for _, p := range []struct {
		of, ns string
		port   int
		argv   []string
	}{
		{"", meshServer, 9000, []string{"sink", ":9000"}},
		{"", plainServer, 9000, []string{"sink", ":9000"}},
		{"gotls", plainServer, 9002, []string{"relay", "--kind", "tls-server", "--listen", ":9002", "--to", "127.0.0.1:9000", "--pem", pem}},
		{"gotls", plainNS, 9001, []string{"relay", "--kind", "tls-client", "--listen", "127.0.0.1:9001", "--to", hostPort(plainIP, 9002), "--pem", pem}},
		{"haproxy", plainServer, 9004, []string{"haproxy", "-db", "-q", "-f", server}},
		{"haproxy", plainNS, 9003, []string{"haproxy", "-db", "-q", "-f", client}},
		{"gocopy", plainNS, 9005, []string{"relay", "--kind", "copy", "--listen", "127.0.0.1:9005", "--to", hostPort(plainIP, 9000)}},
	} {
		pid, err := c.start(ctx, p.ns, p.port, p.argv...)
		if err != nil {
			return nil, err
		}
		pids[p.of] = append(pids[p.of], pid)
	}
	out := map[string]peer{}
	for _, p := range []peer{
		{"direct", plainNS, hostPort(plainIP, 9000), nil}, {"fairlead", meshNS, hostPort(meshIP, 9000), pids["fairlead"]},
		{"gotls", plainNS, "127.0.0.1:9001", pids["gotls"]}, {"haproxy", plainNS, "127.0.0.1:9003", pids["haproxy"]},
		{"passthrough", meshNS, hostPort(plainIP, 9000), pids["passthrough"]}, {"gocopy", plainNS, "127.0.0.1:9005", pids["gocopy"]},
	} {
		out[p.name] = p
	}
	return out, nil
}

// report prints medians, and the median of ours over each other's in the same round.
func report(s scenario, all []sample) {
	fmt.Printf("\n%s: %s\n  %-12s %12s %14s %10s %10s   %s\n", s.name, s.what, "", "rate", "CPU "+s.unit, "p50 us", "p99 us", "ours / its: rate, CPU (95 %)")
	own := "fairlead"
	if slices.Contains(s.peers, "passthrough") {
		own = "passthrough"
	}
	of := func(name string, value func(sample) float64) (out []float64) {
		for round := 1; ; round++ {
			i := slices.IndexFunc(all, func(x sample) bool { return x.Peer == name && x.Round == round })
			if i < 0 {
				return out
			}
			out = append(out, value(all[i]))
		}
	}
	rate := func(x sample) float64 { return x.Rate }
	used := func(x sample) float64 { return x.CPU }
	for _, p := range s.peers {
		line := fmt.Sprintf("  %-12s %12.2f %14.3f %10.0f %10.0f", p, measure.Median(of(p, rate)), measure.Median(of(p, used)), measure.Median(of(p, func(x sample) float64 { return x.P50 })), measure.Median(of(p, func(x sample) float64 { return x.P99 })))
		if p == own {
			line += "   " + pathOf(all, p).String()
		} else {
			line += "   " + measure.RatioOf(of(own, rate), of(p, rate)).String() + ", " + measure.RatioOf(of(own, used), of(p, used)).String()
		}
		fmt.Println(line)
	}
	if direct := of("direct", rate); len(direct) > 0 && slices.Max(direct) > 1.15*slices.Min(direct) {
		fmt.Printf("  noisy: plain veth moved by %.0f %% between rounds\n", 100*(slices.Max(direct)/slices.Min(direct)-1))
	}
}
