package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// loadOptions are the load generator's flags.
type loadOptions struct {
	url         string
	concurrency int
	rate        float64
	duration    time.Duration
	requests    int64
	bytes       int64
	keepAlive   bool
	timeout     time.Duration
	interval    time.Duration
	headers     headers
	count       *regexp.Regexp // or nil
}

// headers is a flag that lists header fields.
type headers http.Header

func (h headers) String() string { return fmt.Sprint(map[string][]string(h)) }

// Set implements flag.Value: "name: value".
func (h headers) Set(s string) error {
	name, value, ok := strings.Cut(s, ":")
	if !ok {
		return errors.New("want name: value")
	}
	http.Header(h).Add(name, strings.TrimSpace(value))
	return nil
}

// runLoad asks a server again and again and prints one JSON object at the end:
// counts, errors by kind, latency. With a rate it is an open loop (requests start
// on time, whatever became of the others, and a late start counts as latency);
// without one a closed loop.
func runLoad(ctx context.Context, env Env) error {
	o := loadOptions{headers: headers{}}
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.SetOutput(env.Stderr)
	flags.StringVar(&o.url, "url", "", "http://host:port/path, or tcp://host:port for an echo server")
	flags.IntVar(&o.concurrency, "concurrency", 1, "how many at once; with --rate, at most")
	flags.Float64Var(&o.rate, "rate", 0, "requests per second, 0 for as many as come back")
	flags.DurationVar(&o.duration, "duration", 0, "how long; 0 until --requests, or for ever")
	flags.Int64Var(&o.requests, "requests", 0, "how many requests; 0 for no limit")
	flags.Int64Var(&o.bytes, "bytes", 0, "bytes sent with each request (tcp: and wanted back, at least 1)")
	flags.BoolVar(&o.keepAlive, "keep-alive", false, "use connections again")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Second, "of one request")
	flags.DurationVar(&o.interval, "interval", 0, "print a line this often as well; 0 for never")
	flags.Var(o.headers, "header", "a field of each request's head, \"name: value\"; may be repeated")
	flags.Func("count", "count the answers by the first group of this regular expression in their body", func(s string) (err error) {
		if o.count, err = regexp.Compile(s); err == nil && o.count.NumSubexp() == 0 {
			err = errors.New("it has no group")
		}
		return err
	})
	if err := flags.Parse(env.Args); err != nil {
		return err
	}
	ask, err := newAsker(o)
	if err != nil {
		return err
	}
	if o.concurrency < 1 {
		return fmt.Errorf("--concurrency %d: want at least 1", o.concurrency)
	}
	end := ctx
	if o.duration > 0 {
		var cancel context.CancelFunc
		end, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	l := &load{options: o, ask: ask, started: time.Now(), errors: map[string]int64{}, counts: map[string]int64{}}
	out := json.NewEncoder(env.Stdout)
	if o.interval > 0 {
		stop := l.report(end, out)
		defer stop()
	}
	l.run(end)
	return out.Encode(l.result())
}

// load is one run.
type load struct {
	options loadOptions
	ask     asker
	started time.Time
	taken   atomic.Int64 // requests that were started

	// mu guards below.
	mu        sync.Mutex
	ok, bytes int64
	errors    map[string]int64
	counts    map[string]int64
	latencies []time.Duration
}

// maxLatencies bounds memory: past it every other sample is dropped, and so on.
const maxLatencies = 1 << 20

// maxCounts bounds the kinds of answers that are told apart.
const maxCounts = 100

// asker asks once. The kind is what --count found in the answer.
type asker func(context.Context) (bytes int64, kind string, err error)

func (l *load) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range l.options.concurrency {
		workers.Go(func() {
			for ctx.Err() == nil {
				n := l.taken.Add(1)
				if l.options.requests > 0 && n > l.options.requests {
					return
				}
				due := time.Now()
				if l.options.rate > 0 {
					due = l.started.Add(time.Duration(float64(n-1) / l.options.rate * float64(time.Second)))
					wait(ctx, time.Until(due))
					if ctx.Err() != nil {
						return
					}
				}
				// A request that has begun may end: cutting it off would look like an error.
				once, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.options.timeout)
				n, kind, err := l.ask(once)
				cancel()
				l.record(n, kind, err, time.Since(due))
			}
		})
	}
	workers.Wait()
}

func (l *load) record(n int64, kind string, err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes += n
	if err != nil {
		l.errors[errorKind(err)]++
		return
	}
	l.ok++
	if _, known := l.counts[kind]; kind != "" && (known || len(l.counts) < maxCounts) {
		l.counts[kind]++
	}
	if len(l.latencies) == maxLatencies {
		for i := range maxLatencies / 2 {
			l.latencies[i] = l.latencies[2*i]
		}
		l.latencies = l.latencies[:maxLatencies/2]
	}
	l.latencies = append(l.latencies, took)
}

func (l *load) report(ctx context.Context, out *json.Encoder) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(l.options.interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_ = out.Encode(l.result())
			}
		}
	}()
	return func() { cancel(); <-done }
}

// LoadResult is what the load generator prints.
type LoadResult struct {
	Seconds   float64          `json:"seconds"`
	Requests  int64            `json:"requests"`
	OK        int64            `json:"ok"`
	Failed    int64            `json:"failed"`
	Errors    map[string]int64 `json:"errors,omitempty"`
	Counts    map[string]int64 `json:"counts,omitempty"`
	Bytes     int64            `json:"bytes"`
	PerSecond float64          `json:"perSecond"`
	LatencyMS Latency          `json:"latencyMs"`
}

// Latency of the requests that succeeded, in milliseconds.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
}

func (l *load) result() LoadResult {
	l.mu.Lock()
	sorted := slices.Clone(l.latencies)
	r := LoadResult{OK: l.ok, Bytes: l.bytes, Errors: map[string]int64{}, Counts: maps.Clone(l.counts)}
	for kind, n := range l.errors {
		r.Errors[kind] = n
		r.Failed += n
	}
	l.mu.Unlock()
	r.Seconds = time.Since(l.started).Seconds()
	r.Requests = r.OK + r.Failed
	r.PerSecond = float64(r.OK) / r.Seconds
	slices.Sort(sorted)
	if len(sorted) == 0 {
		return r
	}
	at := func(q float64) float64 {
		return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Microseconds()) / 1000
	}
	sum := time.Duration(0)
	for _, d := range sorted {
		sum += d
	}
	r.LatencyMS = Latency{Mean: float64(sum.Microseconds()) / float64(len(sorted)) / 1000, P50: at(.5), P90: at(.9), P99: at(.99), Max: at(1)}
	return r
}

func errorKind(err error) string {
	var status statusError
	var tooLong interface{ Timeout() bool }
	switch {
	case errors.As(err, &status):
		return status.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "eof"
	case errors.Is(err, errWrongAnswer):
		return "wrong answer"
	case errors.As(err, &tooLong) && tooLong.Timeout():
		return "timeout"
	}
	return "other: " + innermost(err).Error()
}

func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

func newAsker(o loadOptions) (asker, error) {
	u, err := url.Parse(o.url)
	if err != nil {
		return nil, fmt.Errorf("--url: %w", err)
	}
	switch {
	case u.Host == "":
	case u.Scheme == "http":
		return askHTTP(o), nil
	case u.Scheme == "tcp":
		return askTCP(u.Host, cmp.Or(o.bytes, 1), o), nil
	}
	return nil, fmt.Errorf("--url %q: want http://host:port/path or tcp://host:port", o.url)
}
