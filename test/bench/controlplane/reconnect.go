package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// reconnect measures agents that come back all at once: after the control plane was
// started again, each names what it holds.
func reconnect(ctx context.Context, o options, kubeconfig, dir string, plane *process, agents []agent) (*process, error) {
	clients := make([]*client, o.reconnects)
	if err := each(ctx, len(clients), func(_ context.Context, i int) error {
		c, err := newClient(agents[i%len(agents)], plane.address, plane.roots)
		if err != nil {
			return err
		}
		clients[i] = c
		_, err = c.sync(ctx, i == 0)
		return err
	}); err != nil {
		return plane, err
	}
	for _, c := range clients[1:] {
		c.held = clients[0].held
	}
	defer func() {
		for _, c := range clients {
			c.close()
			_ = c.conn.Close()
		}
	}()
	held := clients[0].count
	fmt.Printf("%d clients hold %d resources each; the control plane is started again\n", len(clients), held)
	plane.stop()
	for _, c := range clients {
		c.close()
	}
	next, err := startPlane(o, kubeconfig, dir, plane)
	if err != nil {
		return plane, err
	}
	_ = retries.take()
	if o.before { // they wait at the door
		go func() { _, _ = next.ready(ctx) }()
	} else if _, err := next.ready(ctx); err != nil {
		return next, err
	}
	ready, before, start := time.Since(next.started), next.cpu(), time.Now()
	var sent, worst atomic.Int64
	done := make(chan error, len(clients))
	for _, c := range clients {
		go func() {
			n, err := c.sync(ctx, false)
			sent.Add(int64(n))
			for took := int64(time.Since(start)); ; {
				old := worst.Load()
				if took <= old || worst.CompareAndSwap(old, took) {
					break
				}
			}
			done <- err
		}()
	}
	for range clients {
		if err := <-done; err != nil {
			return next, err
		}
	}
	took, cpu := time.Since(start), next.cpu()-before
	now, most := next.memory()
	fmt.Printf("%d reconnects in a world of %d resources: %.1f s (ready after %.1f s), CPU %.2f ms each, %d resources sent, tries again %v, memory %.0f MB (at most %.0f)\n",
		len(clients), held, took.Seconds(), ready.Seconds(), milliseconds(cpu)/float64(len(clients)), sent.Load(), retries.take(), now, most)
	return next, nil
}
