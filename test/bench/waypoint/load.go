package waypoint

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// load is what is asked of a proxy.
type load struct {
	tool             string // wrk, h2load, grpc or streams
	conns, per, size int    // per: streams of each connection
	host             string // or "", the address
	rate             int    // requests a second of all connections; 0 is what comes
	// Where there is no proxy on loopback: the command that leads to the client, and
	// whom it asks.
	inside []string
	addr   string
}

// target is the command line of a client, and the URL that it asks for.
func (l load) target(port int, path string, argv ...string) (command []string, url string) {
	addr := l.addr
	if addr == "" {
		addr = local(port)
	}
	return slices.Concat(l.inside, []string{"taskset", "-c", otherCPU}, argv), "http://" + addr + path
}

// outcome is what the clients saw; times are in microseconds.
type outcome struct {
	Requests int64
	Seconds  float64
	P50, P99 float64
	Errors   int64
}

func (l load) path() string {
	if l.size > 0 {
		return "/1k"
	}
	return "/0"
}

func (l load) run(ctx context.Context, w *world, port int, d time.Duration) (outcome, error) {
	switch l.tool {
	case "wrk":
		return l.wrk(ctx, port, d)
	case "streams":
		return l.streams(ctx, w, port, d)
	}
	return l.h2load(ctx, w, port, d)
}

var (
	wrkTotal   = regexp.MustCompile(`(\d+) requests in ([\d.]+)(ms|s|m)`)
	wrkErrors  = regexp.MustCompile(`(?m)^\s*(?:Socket errors|Non-2xx).*$`)
	wrkLatency = regexp.MustCompile(`(?m)^\s+(50|99)%\s+([\d.]+)(us|ms|s)`)
)

var unit = map[string]float64{"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}

func (l load) wrk(ctx context.Context, port int, d time.Duration) (o outcome, err error) {
	args, url := l.target(port, l.path(), "wrk", "-t1", "-c"+strconv.Itoa(l.conns), "-d"+strconv.Itoa(max(1, int(d.Seconds())))+"s", "--latency")
	if l.host != "" {
		args = append(args, "-H", "Host: "+l.host)
	}
	out, err := exec.CommandContext(ctx, args[0], append(args[1:], url)...).Output()
	if err != nil {
		return o, fmt.Errorf("wrk: %w: %s", err, out)
	}
	if line := wrkErrors.Find(out); line != nil {
		return o, fmt.Errorf("wrk: %s", line)
	}
	m := wrkTotal.FindSubmatch(out)
	if m == nil {
		return o, fmt.Errorf("wrk said %q", out)
	}
	o.Requests, _ = strconv.ParseInt(string(m[1]), 10, 64)
	o.Seconds = number(m[2], m[3]) / 1e6
	for _, m := range wrkLatency.FindAllSubmatch(out, -1) {
		if string(m[1]) == "50" {
			o.P50 = number(m[2], m[3])
		} else {
			o.P99 = number(m[2], m[3])
		}
	}
	return o, nil
}

func number(digits, in []byte) float64 {
	v, _ := strconv.ParseFloat(string(digits), 64)
	return v * unit[string(in)]
}

var h2loadTotal = regexp.MustCompile(`requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)

func (l load) h2load(ctx context.Context, w *world, port int, d time.Duration) (o outcome, err error) {
	times := filepath.Join(w.dir, "h2load.log")
	defer os.Remove(times)
	path := l.path()
	if l.tool == "grpc" {
		path = "/bench.Echo/Unary"
	}
	args, url := l.target(port, path, "h2load", "-t1", "-c", strconv.Itoa(l.conns), "-m", strconv.Itoa(l.per), "-D", strconv.Itoa(max(1, int(d.Seconds()))), "--log-file", times)
	if l.rate > 0 {
		args = append(args, "--h1", "--rps", strconv.Itoa(l.rate/l.conns))
	}
	if l.tool == "grpc" {
		body := filepath.Join(w.dir, "message")
		if err := os.WriteFile(body, append([]byte{0, 0, 0, 0, byte(l.size)}, make([]byte, l.size)...), 0o600); err != nil {
			return o, err
		}
		args = append(args, "-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers")
	}
	out, err := exec.CommandContext(ctx, args[0], append(args[1:], url)...).Output()
	if err != nil {
		return o, fmt.Errorf("h2load: %w: %s", err, out)
	}
	m := h2loadTotal.FindSubmatch(out)
	if m == nil {
		return o, fmt.Errorf("h2load said %q", out)
	}
	o.Requests, _ = strconv.ParseInt(string(m[2]), 10, 64)
	o.Seconds = max(1, math.Floor(d.Seconds()))
	for _, bad := range m[3:] {
		n, _ := strconv.ParseInt(string(bad), 10, 64)
		o.Errors += n
	}
	log, err := os.ReadFile(times)
	if err != nil {
		return o, err
	}
	var took []float64
	for line := range strings.Lines(string(log)) {
		if f := strings.Fields(line); len(f) == 3 {
			v, _ := strconv.ParseFloat(f[2], 64)
			took = append(took, v)
		}
	}
	o.P50, o.P99 = percentiles(took)
	return o, nil
}

func percentiles(v []float64) (p50, p99 float64) {
	if len(v) == 0 {
		return 0, 0
	}
	slices.Sort(v)
	return v[len(v)/2], v[len(v)*99/100]
}

func (l load) streams(ctx context.Context, w *world, port int, d time.Duration) (o outcome, err error) {
	cmd, says, err := w.part(ctx, "l7-streams", "--to", local(port), "--conns", strconv.Itoa(l.conns), "--streams", strconv.Itoa(l.per), "--size", strconv.Itoa(l.size), "--duration", d.String())
	if err != nil {
		return o, err
	}
	if err := cmd.Start(); err != nil {
		return o, err
	}
	err = json.NewDecoder(says).Decode(&o)
	return o, errors.Join(err, cmd.Wait())
}

// streamsMain holds gRPC streams open and sends a message on each when the last one
// has come back: a request is a message.
func streamsMain(args []string) error {
	f := flag.NewFlagSet("l7-streams", flag.ExitOnError)
	to, conns, streams := f.String("to", "", ""), f.Int("conns", 1, ""), f.Int("streams", 1, "")
	size, duration := f.Int("size", 0, ""), f.Duration("duration", time.Second, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	var o outcome
	var mu sync.Mutex
	var took []float64
	var stop atomic.Bool
	var all sync.WaitGroup
	start := time.Now()
	for range *conns {
		c, err := net.Dial("tcp", *to)
		if err != nil {
			return err
		}
		conn, err := codec.NewHTTP2Client(codec.TCPConn{TCPConn: c.(*net.TCPConn)}, codec.Options{})
		if err != nil {
			return err
		}
		for range *streams {
			all.Go(func() {
				times, err := talk(conn, *size, &stop)
				mu.Lock()
				defer mu.Unlock()
				o.Requests += int64(len(times))
				took = append(took, times...)
				if err != nil {
					fmt.Fprintln(os.Stderr, "l7-streams:", err)
					o.Errors++
				}
			})
		}
	}
	time.AfterFunc(*duration, func() { stop.Store(true) })
	all.Wait()
	o.Seconds = time.Since(start).Seconds()
	o.P50, o.P99 = percentiles(took)
	return json.NewEncoder(os.Stdout).Encode(o)
}

func talk(conn *codec.HTTP2Client, size int, stop *atomic.Bool) (times []float64, err error) {
	s := conn.Open()
	defer s.Close()
	request := &message.Request{
		Version: message.HTTP2, Method: "POST", Scheme: "http", Authority: "server.shop", Path: "/bench.Echo/Stream", ContentLength: message.Unknown,
		Fields: message.Fields{{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}},
	}
	if err := s.Send(request, false); err != nil {
		return nil, err
	}
	text := append([]byte{0, 0, 0, 0, byte(size)}, make([]byte, size)...)
	for !stop.Load() {
		start := time.Now()
		if _, err := s.Write(text); err != nil {
			return times, err
		}
		if err := s.Flush(); err != nil {
			return times, err
		}
		if len(times) == 0 {
			if r, err := s.Response(); err != nil || r.Status != 200 {
				return times, fmt.Errorf("response %+v: %w", r, err)
			}
		}
		for got := 0; got < len(text); {
			b, err := s.Next()
			if got += len(b); err != nil {
				return times, err
			}
		}
		times = append(times, float64(time.Since(start).Nanoseconds())/1e3)
	}
	if err := s.Finish(nil); err != nil {
		return times, err
	}
	for {
		if _, err := s.Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return times, err
		}
	}
	if status := s.Trailers().Get("grpc-status"); status != "0" {
		return times, fmt.Errorf("grpc-status %q", status)
	}
	return times, nil
}
