package waypoint

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/test/bench/cluster"
	"github.com/fairlead-mesh/fairlead/test/bench/measure"
)

// The mesh of the changes: routes in files of their own, of services with one server.
const (
	changeNS         = "fairlead"
	changeServices   = 50
	routesOfService  = 60
	changeApart      = 50 * time.Millisecond
	churnApart       = 50 * time.Millisecond
	changeBackground = 4 // clients that ask without a pause
)

// routeYAML is a route whose answers say its number and which version of it is live.
func routeYAML(service, route, version int) string {
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route-%[1]d-%[2]d, namespace: %[4]s}
spec:
  parentRefs: [{group: "", kind: Service, name: server-%[1]d, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /route-%[2]d}}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-route, value: "%[1]d-%[2]d-%[3]d"}]}}]
    backendRefs: [{name: server-%[1]d, port: 80}]
`, service, route, version, changeNS)
}

func routeFile(service, route int) string { return fmt.Sprintf("route-%d-%d.yaml", service, route) }

// changes measures how long it takes from a file's change to the first answer by it,
// with every answer looked at.
func (w *world) changes(ctx context.Context) (any, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	yaml := nodesYAML + "---\n" + namespaceYAML(changeNS, "fairlead", self)
	files := map[string]string{}
	for s := range changeServices {
		yaml += fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: server-%d, namespace: %s}\nspec: {selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080}]}\n", s, changeNS)
		for r := range routesOfService {
			files[routeFile(s, r)] = routeYAML(s, r, 0)
		}
	}
	files["cluster.yaml"] = yaml
	c, err := cluster.Up(ctx, w.o.Bin, files)
	if err != nil {
		return nil, err
	}
	defer c.Down()
	pid, err := waypointPID(ctx, c, changeNS)
	if err != nil {
		return nil, err
	}
	var addresses []string
	for s := range changeServices {
		addresses = append(addresses, c.Service(changeNS, fmt.Sprintf("server-%d", s))+":80")
	}
	rss, err := measure.RSS(pid)
	if err != nil {
		return nil, err
	}
	if err := written(ctx, c); err != nil {
		return nil, err
	}
	out := map[string]any{"rss before": rss}
	fmt.Printf("\nc1: %d changes of one of %d routes, %s apart, from the file's change to the first answer by it; waypoint %.1f MB\n", w.o.Changes, changeServices*routesOfService, changeApart, float64(rss)/1e6)
	for _, churn := range []bool{false, true} {
		cmd, says, err := w.part(ctx, "l7-changes", "--dir", c.Dir, "--changes", strconv.Itoa(w.o.Changes), "--to", strings.Join(addresses, ","), "--churn="+strconv.FormatBool(churn))
		if err != nil {
			return nil, err
		}
		cmd.Args = append([]string{"nsenter", "--net=" + c.Pod(changeNS, "client").NetNS, "taskset"}, cmd.Args[1:]...)
		cmd.Path = "/usr/bin/nsenter"
		before, err := measure.CPU(c.ControlPlane.PID)
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		var o changed
		if err := errors.Join(json.NewDecoder(says).Decode(&o), cmd.Wait()); err != nil {
			return nil, err
		}
		after, err := measure.CPU(c.ControlPlane.PID)
		if err != nil {
			return nil, err
		}
		o.CPU = float64((after - before).Microseconds()) / 1e3 / float64(o.Changes)
		rss, err := measure.RSS(pid)
		if err != nil {
			return nil, err
		}
		name := map[bool]string{false: "alone", true: "under churn"}[churn]
		fmt.Printf("  %-12s p50 %.1f ms, p99 %.1f ms, worst %.1f ms; CPU of the control plane %.1f ms for each of %d changes; %d answers meanwhile, %d wrong, %d failures; waypoint %.1f MB\n", name, o.P50, o.P99, o.Worst, o.CPU, o.Changes, o.Answers, o.Wrong, o.Failures, float64(rss)/1e6)
		out[name] = o
		if o.Wrong+o.Failures > 0 {
			return nil, fmt.Errorf("%d wrong answers and %d failures, the last: %s", o.Wrong, o.Failures, o.Last)
		}
	}
	return out, nil
}

// calm is how long the control plane must have written nothing.
const calm = 3 * time.Second

// written waits until the control plane has written what is to be said of the routes: a
// mesh that starts is not measured, and thousands of files take it seconds.
func written(ctx context.Context, c *cluster.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	dir := filepath.Join(c.Dir, "config", ".fairlead", "status")
	for {
		said, err := filepath.Glob(filepath.Join(dir, "httproute_*.yaml"))
		if err != nil {
			return err
		}
		last, err := os.Stat(dir) // it changes with each file that is made or replaced
		if err != nil {
			return err
		}
		if len(said) >= changeServices*routesOfService && time.Since(last.ModTime()) > calm {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d routes have a status, the last was written %v ago: %w", len(said), changeServices*routesOfService, time.Since(last.ModTime()), ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// changed is what one that changes routes saw; times are in milliseconds.
type changed struct {
	P50, P99, Worst          float64
	CPU                      float64 // of the control plane, for each of Changes
	Changes                  int64   // with those that nobody waits for
	Answers, Wrong, Failures int64
	Last                     string
}

// changer knows what is live of each route: the version that was last written, and the
// one before it where the new one has not answered yet.
type changer struct {
	dir string
	to  []string

	// mu guards below.
	mu   sync.Mutex
	live [changeServices][routesOfService]struct{ old, new int }
	out  changed
}

// changesMain changes routes one after the other, and asks by each until it answers.
func changesMain(args []string) error {
	f := flag.NewFlagSet("l7-changes", flag.ExitOnError)
	dir, to := f.String("dir", "", ""), f.String("to", "", "")
	changes, churn := f.Int("changes", 100, ""), f.Bool("churn", false, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	c := &changer{dir: *dir, to: strings.Split(*to, ",")}
	// A run before this one left its versions.
	for s := range changeServices {
		for r := range routesOfService {
			text, err := os.ReadFile(filepath.Join(c.dir, "config", routeFile(s, r)))
			if err != nil {
				return err
			}
			_, after, _ := strings.Cut(string(text), fmt.Sprintf(`value: "%d-%d-`, s, r))
			v, err := strconv.Atoi(after[:strings.IndexByte(after, '"')])
			if err != nil {
				return err
			}
			c.live[s][r].old, c.live[s][r].new = v, v
		}
	}
	if err := c.ready(); err != nil {
		return err
	}
	var stop atomic.Bool
	var all sync.WaitGroup
	for range changeBackground {
		all.Go(func() { c.background(&stop) })
	}
	if *churn {
		all.Go(func() { c.churn(&stop) })
	}
	var took []float64
	at := time.Now()
	for i := range *changes {
		time.Sleep(time.Until(at)) //nolint:forbidigo // the pace is what is measured under
		at = at.Add(changeApart)
		d, err := c.change((7*i)%changeServices, (11*i)%(routesOfService/2))
		if err != nil {
			return err
		}
		took = append(took, float64(d.Microseconds())/1e3)
		if late := time.Now(); late.After(at) {
			at = late
		}
	}
	stop.Store(true)
	all.Wait()
	c.out.P50, c.out.P99 = percentiles(took)
	c.out.Worst = took[len(took)-1] // sorted now
	return json.NewEncoder(os.Stdout).Encode(c.out)
}

// ready waits until every service is reached: a mesh that starts is not measured.
func (c *changer) ready() error {
	end := time.Now().Add(time.Minute)
	for s := 0; s < changeServices; {
		err := c.reached(s)
		if err == nil {
			s++
		} else if time.Now().After(end) {
			return fmt.Errorf("service %d: %w", s, err)
		}
	}
	return nil
}

func (c *changer) reached(s int) error {
	conn, err := dialRoute(c.to[s])
	if err != nil {
		return err
	}
	defer conn.Close()
	status, _, err := conn.get(fmt.Sprintf("server-%d.%s", s, changeNS), "/route-0")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

// write changes a route's file.
func (c *changer) write(s, r int) (version int, err error) {
	c.mu.Lock()
	v := &c.live[s][r]
	v.old, v.new = v.new, v.new+1
	version = v.new
	c.out.Changes++
	c.mu.Unlock()
	tmp := filepath.Join(c.dir, fmt.Sprintf("saving-%d-%d", s, r))
	if err := os.WriteFile(tmp, []byte(routeYAML(s, r, version)), 0o600); err != nil {
		return 0, err
	}
	return version, os.Rename(tmp, filepath.Join(c.dir, "config", routeFile(s, r)))
}

func (c *changer) change(s, r int) (time.Duration, error) {
	conn, err := dialRoute(c.to[s])
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	version, err := c.write(s, r)
	start := time.Now()
	if err != nil {
		return 0, err
	}
	for {
		got, err := c.ask(conn, s, r)
		switch {
		case err != nil:
			return 0, err
		case got == version:
			c.settle(s, r, version)
			return time.Since(start), nil
		case time.Since(start) > 20*time.Second:
			return 0, fmt.Errorf("route %d-%d: version %d is not live", s, r, version)
		}
	}
}

// settle says that the old version may not answer again.
func (c *changer) settle(s, r, version int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := &c.live[s][r]; v.new == version {
		v.old = version
	}
}

// ask has an answer by a route and tells its version; a wrong one is counted.
func (c *changer) ask(conn *routeConn, s, r int) (version int, err error) {
	c.mu.Lock()
	before := c.live[s][r]
	c.mu.Unlock()
	status, route, err := conn.get(fmt.Sprintf("server-%d.%s", s, changeNS), fmt.Sprintf("/route-%d", r))
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.out.Failures++
		c.out.Last = err.Error()
		return 0, err
	}
	c.out.Answers++
	text, ok := strings.CutPrefix(route, fmt.Sprintf("%d-%d-", s, r))
	version, verr := strconv.Atoi(text)
	if status != http.StatusOK || !ok || verr != nil || version < before.old || version > c.live[s][r].new {
		c.out.Wrong++
		c.out.Last = fmt.Sprintf("route %d-%d: status %d, %q, want versions %d to %d", s, r, status, route, before.old, c.live[s][r].new)
	}
	return version, nil
}

// background asks by routes at random.
func (c *changer) background(stop *atomic.Bool) {
	conns := map[int]*routeConn{}
	for !stop.Load() {
		s := rand.IntN(changeServices) //nolint:gosec // draws a route
		if conns[s] == nil {
			conn, err := dialRoute(c.to[s])
			if err != nil {
				c.mu.Lock()
				c.out.Failures++
				c.out.Last = err.Error()
				c.mu.Unlock()
				continue
			}
			defer conn.Close()
			conns[s] = conn
		}
		if _, err := c.ask(conns[s], s, rand.IntN(routesOfService)); err != nil { //nolint:gosec // as above
			delete(conns, s)
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // leaves the machine to what is measured
	}
}

// churn changes the routes that nobody waits for, all the time.
func (c *changer) churn(stop *atomic.Bool) {
	tick := time.NewTicker(churnApart)
	defer tick.Stop()
	for !stop.Load() {
		<-tick.C
		s, r := rand.IntN(changeServices), routesOfService/2+rand.IntN(routesOfService/2) //nolint:gosec // as above
		if _, err := c.write(s, r); err != nil {
			fmt.Fprintln(os.Stderr, "l7-changes:", err)
			return
		}
	}
}

// routeConn is a connection that asks one request at a time.
type routeConn struct {
	net.Conn
	r *bufio.Reader
}

func dialRoute(addr string) (*routeConn, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &routeConn{c, bufio.NewReader(c)}, nil
}

func (c *routeConn) get(host, path string) (status int, route string, err error) {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, "", err
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host); err != nil {
		return 0, "", err
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0, "", err
	}
	return res.StatusCode, res.Header.Get("X-Route"), nil
}
