package waypoint

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/fairlead-mesh/fairlead/test/bench/measure"
)

// scenario is a load that several proxies carry in turns.
type scenario struct {
	name, what string
	load       load
	setting    setting
	peers      []string
}

func scenarios() (all []scenario) {
	everyone := []string{"fairlead", "haproxy", "envoy", "nginx", "caddy", "nethttp", "fasthttp"}
	for _, conns := range []int{16, 128} {
		for _, size := range []int{0, 1 << 10} {
			all = append(all, scenario{
				name: fmt.Sprintf("w1-%d-%d", conns, size), what: fmt.Sprintf("HTTP/1.1, %d connections, %d bytes", conns, size),
				load: load{tool: "wrk", conns: conns, size: size}, setting: setting{Hosts: oneRoute}, peers: everyone,
			})
		}
	}
	for _, conns := range []int{16, 128} {
		all = append(all, scenario{
			name: fmt.Sprintf("w1b-%d", conns), what: fmt.Sprintf("HTTP/1.1 with authorization, access log and metrics, %d connections, 1024 bytes", conns),
			load: load{tool: "wrk", conns: conns, size: 1 << 10}, setting: setting{Hosts: oneRoute, Observed: true}, peers: []string{"fairlead", "envoy"},
		})
	}
	http2 := func(name, what string, l load, peers ...string) {
		all = append(all, scenario{name: "w2-" + name, what: what, load: l, setting: setting{Hosts: oneRoute, HTTP2: true}, peers: peers})
	}
	http2("0", "HTTP/2, 8 connections of 16 streams, 0 bytes", load{tool: "h2load", conns: 8, per: 16}, "fairlead", "haproxy", "envoy", "nginx", "caddy", "nethttp")
	http2("1024", "HTTP/2, 8 connections of 16 streams, 1024 bytes", load{tool: "h2load", conns: 8, per: 16, size: 1 << 10}, "fairlead", "haproxy", "envoy", "nginx", "caddy", "nethttp")
	http2("unary", "gRPC, unary, 8 connections of 16 streams, 100 bytes", load{tool: "grpc", conns: 8, per: 16, size: 100}, "fairlead", "haproxy", "envoy", "caddy", "nethttp")
	http2("streams", "gRPC, messages of 100 bytes back and forth on 8 x 16 streams", load{tool: "streams", conns: 8, per: 16, size: 100}, "fairlead", "haproxy", "envoy")
	return all
}

// Sample is one proxy in one round.
type Sample struct {
	Scenario, Proxy string
	Round           int
	CPU             float64 // microseconds for each request
	Rate            float64 // requests a second
	P50, P99        float64 // microseconds
	RSS             float64 // bytes, after
	Second          float64 // of the requests that the origins had, the part of the second
	Load            float64 // the machine's, before
	Steal           float64 // part of the time that the hypervisor took
}

func (w *world) compare(ctx context.Context, s scenario) (of []Sample, err error) {
	proxies := map[string]*proxy{}
	for _, name := range s.peers {
		p, err := w.start(ctx, name, s.setting)
		if err != nil {
			return nil, err
		}
		defer w.stop(p)
		proxies[name] = p
	}
	for round := range w.o.Rounds + 1 { // the first warms up
		for i := range s.peers {
			p := proxies[s.peers[(i+round)%len(s.peers)]]
			got, err := w.sample(ctx, s, p)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", p.name, round, err)
			}
			if got.Round = round; round > 0 {
				of = append(of, got)
			}
		}
		fmt.Fprintf(os.Stderr, "\r%s: round %d of %d ", s.name, round, w.o.Rounds)
	}
	fmt.Fprint(os.Stderr, "\r")
	report(s, of)
	return of, nil
}

func (w *world) sample(ctx context.Context, s scenario, p *proxy) (out Sample, err error) {
	out = Sample{Scenario: s.name, Proxy: p.name, Load: measure.Load()}
	had, err := askCounts(w.admin)
	if err != nil {
		return out, err
	}
	stolen := measure.Steal()
	before, err := measure.CPU(p.pid)
	if err != nil {
		return out, err
	}
	o, err := s.load.run(ctx, w, p.port, w.o.Duration)
	if err != nil {
		return out, err
	}
	after, err := measure.CPU(p.pid)
	if err != nil {
		return out, err
	}
	if o.Errors > 0 {
		return out, fmt.Errorf("%d of %d requests failed", o.Errors, o.Requests)
	}
	has, err := askCounts(w.admin)
	if err != nil {
		return out, err
	}
	if out.Second, err = s.proof(o, counts{has.V1 - had.V1, has.V2 - had.V2}); err != nil {
		return out, err
	}
	rss, err := measure.RSS(p.pid)
	if err != nil {
		return out, err
	}
	out.CPU = float64((after - before).Microseconds()) / float64(o.Requests)
	out.Rate, out.P50, out.P99, out.RSS = float64(o.Requests)/o.Seconds, o.P50, o.P99, float64(rss)
	out.Steal = (measure.Steal() - stolen).Seconds() / o.Seconds / 2
	return out, nil
}

// proof compares what the clients counted with what the origins did: every request
// came through the proxy, which is all that listens where the clients asked, and was
// split as configured.
func (s scenario) proof(o outcome, at counts) (second float64, err error) {
	second = float64(at.V2) / float64(at.V1+at.V2)
	if s.load.tool == "streams" {
		if at.V1+at.V2 != int64(s.load.conns*s.load.per) {
			return second, fmt.Errorf("the origins had %d streams", at.V1+at.V2)
		}
		return second, nil
	}
	// Requests under way at the end are not counted by clients.
	if got := at.V1 + at.V2; got < o.Requests || got > o.Requests+int64(2*s.load.conns*max(s.load.per, 1)) {
		return second, fmt.Errorf("the clients counted %d answers, the origins %d requests", o.Requests, got)
	}
	if second < 0.07 || second > 0.13 {
		return second, fmt.Errorf("%.1f %% of the requests went to the second version, want 10", 100*second)
	}
	return second, nil
}

// report prints medians, and the median of ours over each other's in the same round.
func report(s scenario, all []Sample) {
	fmt.Printf("\n%s: %s\n  %-10s %10s %12s %10s %10s %8s   %s\n", s.name, s.what, "", "CPU us", "a second", "p50 us", "p99 us", "RSS MB", "ours / its: CPU, p99 (95 %)")
	of := func(name string, value func(Sample) float64) (out []float64) {
		for _, x := range all {
			if x.Proxy == name {
				out = append(out, value(x))
			}
		}
		return out
	}
	cpu := func(x Sample) float64 { return x.CPU }
	p99 := func(x Sample) float64 { return x.P99 }
	for _, p := range s.peers {
		line := fmt.Sprintf("  %-10s %10.1f %12.0f %10.0f %10.0f %8.1f", p, measure.Median(of(p, cpu)),
			measure.Median(of(p, func(x Sample) float64 { return x.Rate })), measure.Median(of(p, func(x Sample) float64 { return x.P50 })),
			measure.Median(of(p, p99)), measure.Median(of(p, func(x Sample) float64 { return x.RSS / 1e6 })))
		if p != s.peers[0] {
			line += fmt.Sprintf("   %s, %s", measure.RatioOf(of(s.peers[0], cpu), of(p, cpu)), measure.RatioOf(of(s.peers[0], p99), of(p, p99)))
		}
		fmt.Println(line)
	}
	stolen := func(x Sample) bool { return x.Steal > 0.05 }
	if slices.ContainsFunc(all, stolen) {
		fmt.Println("  noisy: the hypervisor took more than 5 % of a sample's time")
	}
}
