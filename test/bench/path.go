package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/fairlead-mesh/fairlead/test/bench/cluster"
)

// path is what proves which way connections went, as the client's node counted.
type path struct {
	// Captured is the programs' count of connections taken to the agent.
	Captured float64
	// Tunnelled are the connections that the agent opened in mutual TLS, Plain the
	// others.
	Tunnelled, Plain float64
}

func (p path) String() string {
	return fmt.Sprintf("captured %.0f, tunnelled %.0f, plain %.0f", p.Captured, p.Tunnelled, p.Plain)
}

func (p path) since(before path) path {
	return path{p.Captured - before.Captured, p.Tunnelled - before.Tunnelled, p.Plain - before.Plain}
}

// proves reports whether every connection was captured by the programs, and went
// through a tunnel, or through none.
func (p path) proves(tunnel bool) bool {
	carried, other := p.Tunnelled, p.Plain
	if !tunnel {
		carried, other = other, carried
	}
	return p.Captured > 0 && carried == p.Captured && other == 0
}

func (c *running) path(ctx context.Context) (out path, err error) {
	page, err := cluster.Ask(ctx, c.Nodes[0].NetNS, "http://localhost:15020/metrics")
	if err != nil {
		return out, fmt.Errorf("metrics: %w", err)
	}
	for line := range strings.Lines(page) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch opened := strings.HasPrefix(series, "istio_tcp_connections_opened_total") && strings.Contains(series, `reporter="source"`); {
		case strings.HasPrefix(series, "fairlead_bpf_verdicts_total") && strings.Contains(series, `verdict="captured"`):
			out.Captured += v
		case opened && strings.Contains(series, `"mutual_tls"`):
			out.Tunnelled += v
		case opened:
			out.Plain += v
		}
	}
	return out, nil
}

// pathOf adds up the rounds of a peer.
func pathOf(all []sample, peer string) (out path) {
	for _, s := range all {
		if s.Peer == peer {
			out = path{out.Captured + s.Path.Captured, out.Tunnelled + s.Path.Tunnelled, out.Plain + s.Path.Plain}
		}
	}
	return out
}
