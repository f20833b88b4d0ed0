package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/fairlead-mesh/fairlead/test/bench/measure"
)

// fleet is clients of one server that take what comes.
type fleet struct {
	server  *process
	clients []*client
	arrived chan arrival
	stop    context.CancelFunc
	group   sync.WaitGroup
}

// arrival is a response that a client has acknowledged.
type arrival struct {
	client             *client
	came, acknowledged time.Time
	data               []byte
}

// connect opens the clients, at most some at once, and has each take what comes.
func connect(ctx context.Context, server *process, agents []agent, n int) (*fleet, error) {
	f := &fleet{server: server, clients: make([]*client, n), arrived: make(chan arrival, 4*n)}
	ctx, f.stop = context.WithCancel(ctx)
	if err := each(ctx, n, func(_ context.Context, i int) error {
		c, err := newClient(agents[i%len(agents)], server.address, server.roots)
		if err != nil {
			return err
		}
		f.clients[i] = c
		_, err = c.sync(ctx, false) // not of the group's: it ends with it
		return err
	}); err != nil {
		f.close()
		return nil, err
	}
	for _, c := range f.clients {
		f.group.Go(func() { f.take(c) })
	}
	return f, nil
}

func (f *fleet) take(c *client) {
	for {
		r, err := c.receive()
		if err != nil {
			return
		}
		came := time.Now()
		if c.acknowledge(r) != nil {
			return
		}
		if r.typeURL == addressType {
			f.arrived <- arrival{c, came, time.Now(), r.data}
		}
	}
}

func (f *fleet) close() {
	f.stop()
	for _, c := range f.clients {
		if c != nil {
			c.close()
			_ = c.conn.Close()
		}
	}
	f.group.Wait()
}

// wait waits until all clients have acknowledged; it tells when the first response
// came, when the last was acknowledged, and what one of them was.
func (f *fleet) wait(ctx context.Context) (first, last time.Time, data []byte, err error) {
	for range f.clients {
		select {
		case a := <-f.arrived:
			if first.IsZero() || a.came.Before(first) {
				first = a.came
			}
			if a.acknowledged.After(last) {
				last = a.acknowledged
			}
			data = a.data
		case <-time.After(30 * time.Second):
			return first, last, nil, fmt.Errorf("%d clients were not told", len(f.clients))
		case <-ctx.Done():
			return first, last, nil, ctx.Err()
		}
	}
	return first, last, data, nil
}

// sample is one round of one server.
type sample struct {
	cpu         float64 // milliseconds for a change
	last, first []float64
}

// push measures a change of one pod that is told to all clients, against a server that
// sends the same bytes.
func push(ctx context.Context, o options, kube kubernetes.Interface, plane *process, agents []agent, dir string) error {
	bareProcess, err := startBare(dir)
	defer bareProcess.stop()
	if err != nil {
		return err
	}
	product, err := connect(ctx, plane, agents, o.clients)
	if err != nil {
		return err
	}
	defer product.close()
	least, err := connect(ctx, bareProcess, agents, o.clients)
	if err != nil {
		return err
	}
	defer least.close()
	pod, ready := appPod(0, max(o.size.agents, 100)), true
	var data []byte
	change := func() error {
		ready = !ready
		return setReady(ctx, kube, pod, address(0, 20), ready)
	}
	round := func(f *fleet, trigger func() error) (s sample, err error) {
		before := f.server.cpu()
		for range o.changes {
			start := time.Now()
			if err := trigger(); err != nil {
				return s, err
			}
			first, last, got, err := f.wait(ctx)
			if err != nil {
				return s, err
			}
			if err := pause(ctx, 100*time.Millisecond); err != nil { // a lone change
				return s, err
			}
			s.last, s.first = append(s.last, milliseconds(last.Sub(start))), append(s.first, milliseconds(last.Sub(first)))
			data = got
		}
		s.cpu = milliseconds(f.server.cpu()-before) / float64(o.changes)
		return s, nil
	}
	var cpu, total, spread [2][]float64
	for i := range o.rounds + 1 {
		of, err := round(product, change)
		if err != nil {
			return err
		}
		line := hex.EncodeToString(data) + "\n"
		than, err := round(least, func() error { _, err := fmt.Fprint(bareProcess.input, line); return err })
		if err != nil {
			return err
		}
		if i == 0 {
			continue // until everything has its size
		}
		for j, s := range []sample{of, than} {
			cpu[j], total[j], spread[j] = append(cpu[j], s.cpu), append(total[j], measure.Median(s.last)), append(spread[j], measure.Median(s.first))
		}
		fmt.Printf("round %d: CPU %.1f / %.1f ms a change, to the last ACK %.1f / %.1f ms, from the first response %.1f / %.1f ms; worst %.1f / %.1f\n", i,
			of.cpu, than.cpu, measure.Median(of.last), measure.Median(than.last), measure.Median(of.first), measure.Median(than.first), slices.Max(of.last), slices.Max(than.last))
	}
	if err := sizes(data); err != nil {
		return err
	}
	fmt.Printf("push to %d clients: %d bytes each; CPU %v, to the last ACK %v, from the first response %v of the bare stream's\n", o.clients, len(data),
		measure.RatioOf(cpu[0], cpu[1]), measure.RatioOf(total[0], total[1]), measure.RatioOf(spread[0], spread[1]))
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// hello is a response that brings nothing.
func hello(typeURL string) []byte {
	b := []byte{4<<3 | 2, byte(len(typeURL))}
	b = append(b, typeURL...)
	return append(b, 5<<3|2, 1, '1')
}
