package waypoint

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/test/bench/measure"
)

// manyRoutes compares a proxy that has 5,000 routes with one that has one: what they
// hold, and how many requests a second they carry.
func (w *world) manyRoutes(ctx context.Context) (any, error) {
	const hosts, perHost = 50, 100
	var many []virtualHost
	for i := range hosts {
		h := virtualHost{Name: fmt.Sprintf("server-%d", i), Domains: []string{fmt.Sprintf("server.ns-%d.svc.cluster.local", i), fmt.Sprintf("server.ns-%d", i)}}
		for j := range perHost - 1 {
			h.Prefixes = append(h.Prefixes, fmt.Sprintf("/route-%d/", j))
		}
		many = append(many, h)
	}
	out := map[string]any{}
	fmt.Printf("\nw4: %d routes of %d hosts\n", hosts*perHost, hosts)
	for _, name := range []string{"fairlead", "envoy"} {
		var samples [2][]Sample
		var proxies [2]*proxy
		for i, set := range []setting{{Hosts: many}, {Hosts: oneRoute}} {
			p, err := w.start(ctx, name, set)
			if err != nil {
				return nil, err
			}
			defer w.stop(p)
			proxies[i] = p
		}
		s := scenario{name: "w4", load: load{tool: "wrk", conns: 16, host: "server.ns-25"}}
		for round := range w.o.Rounds + 1 {
			for k := range 2 {
				i := (k + round) % 2
				got, err := w.sample(ctx, s, proxies[i])
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				if round > 0 {
					samples[i] = append(samples[i], got)
				}
			}
		}
		of := func(i int, value func(Sample) float64) (v []float64) {
			for _, x := range samples[i] {
				v = append(v, value(x))
			}
			return v
		}
		rate := measure.RatioOf(of(0, func(x Sample) float64 { return x.Rate }), of(1, func(x Sample) float64 { return x.Rate }))
		cpu := measure.RatioOf(of(0, func(x Sample) float64 { return x.CPU }), of(1, func(x Sample) float64 { return x.CPU }))
		rss := measure.Median(of(0, func(x Sample) float64 { return x.RSS })) / 1e6
		one := measure.Median(of(1, func(x Sample) float64 { return x.RSS })) / 1e6
		fmt.Printf("  %-10s %.1f MB under load (with one route %.1f); to one route: rate %s, CPU %s\n", name, rss, one, rate, cpu)
		out[name] = map[string]any{"rss": rss, "rss of one": one, "rate": rate, "cpu": cpu}
	}
	return out, nil
}

// idle measures what proxies hold with nothing to do, and with idle clients that
// each had an answer.
func (w *world) idle(ctx context.Context) (any, error) {
	out := map[string]float64{}
	fmt.Printf("\nl7idle: resident memory, %d connections\n", w.o.Idle)
	for _, name := range []string{"fairlead", "envoy"} {
		p, err := w.start(ctx, name, setting{Hosts: oneRoute})
		if err != nil {
			return nil, err
		}
		defer w.stop(p)
		note := func(what string) error {
			rss, err := measure.RSS(p.pid)
			if err != nil {
				return err
			}
			out[name+" "+what] = float64(rss)
			fmt.Printf("  %-10s %-32s %6.1f MB\n", name, what, float64(rss)/1e6)
			return nil
		}
		if err := note("idle"); err != nil {
			return nil, err
		}
		holder, says, err := w.part(ctx, "l7-hold", "--to", local(p.port), "--conns", fmt.Sprint(w.o.Idle))
		if err != nil {
			return nil, err
		}
		if err := holder.Start(); err != nil {
			return nil, err
		}
		w.processes = append(w.processes, holder)
		if line, _ := says.ReadString('\n'); line != "held\n" {
			return nil, fmt.Errorf("%s: the connections were not made", name)
		}
		if err := note("with idle connections"); err != nil {
			return nil, err
		}
		select { // what is quiet for a while may take less
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := note("five seconds later"); err != nil {
			return nil, err
		}
		if name == "fairlead" { // what is garbage is not what is held
			if err := get("http://" + local(p.admin) + "/debug/pprof/heap?gc=1"); err != nil {
				return nil, err
			}
			if err := note("collected"); err != nil {
				return nil, err
			}
		}
		_ = holder.Process.Kill()
	}
	return out, nil
}

func get(url string) error {
	res, err := http.Get(url) //nolint:gosec,noctx // of this run alone
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// holdMain keeps connections, each after one answer.
func holdMain(args []string) error {
	f := flag.NewFlagSet("l7-hold", flag.ExitOnError)
	to, conns := f.String("to", "", ""), f.Int("conns", 1, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	_ = run.RaiseOpenFiles() // what cannot be held is said below
	buf := make([]byte, 4096)
	var held []net.Conn
	for range *conns {
		c, err := net.Dial("tcp", *to)
		if err != nil {
			return fmt.Errorf("after %d: %w", len(held), err)
		}
		if _, err := io.WriteString(c, "GET /1k HTTP/1.1\r\nHost: server.shop\r\n\r\n"); err != nil {
			return fmt.Errorf("after %d: %w", len(held), err)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		for got := 0; got < 1<<10; {
			n, err := c.Read(buf)
			if got += n; err != nil {
				return fmt.Errorf("after %d: %w", len(held), err)
			}
		}
		held = append(held, c)
	}
	fmt.Println("held")
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
	return nil
}
