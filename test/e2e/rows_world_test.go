package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
	realenvoy "github.com/fairlead-mesh/fairlead/test/envoy"
)

// rowsVariable turns the rows on: they take the times that the manifests say.
const rowsVariable = "FAIRLEAD_ROWS"

func needRows(t *testing.T) {
	t.Helper()
	needRoot(t)
	if os.Getenv(rowsVariable) == "" {
		t.Skip("the rows take minutes: make test-rows")
	}
	build(t)
}

// manifest is a manifest of the tutorial where its directory is beside the repository,
// else the equivalent of our own.
func manifest(t *testing.T, name, own string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../../shared/seed/manifests", name))
	if err != nil {
		return own
	}
	return string(text)
}

// edited is a manifest with something else in the place of old.
func edited(t *testing.T, text, old, now string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("the manifest has no %q:\n%s", old, text)
	}
	return strings.Replace(text, old, now, 1)
}

// engines are the proxies in the waypoint's place: ours, and Envoy where it is
// installed.
func engines(t *testing.T, run func(t *testing.T, engine string)) {
	t.Run("fairlead", func(t *testing.T) { run(t, "fairlead") })
	if underIstiod() {
		return // which does not know of engines
	}
	t.Run("envoy", func(t *testing.T) {
		t.Setenv("FAIRLEAD_ENVOY", realenvoy.Need(t))
		run(t, "envoy")
	})
}

// world is a cluster with a client, a waypoint and backends that are this test itself,
// listening in pods' namespaces.
type world struct {
	*lab
	t        *testing.T
	client   *netns.NS
	host     string // of the service
	address  string // its, with its port
	backends map[string]*backend
}

// newWorld has the service host on port 9080 with a pod for each backend, as
// name=version.
func newWorld(t *testing.T, engine, host, annotations string, backends ...string) *world {
	t.Helper()
	yaml := twoNodes + fmt.Sprintf(`---
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: default, annotations: {fairlead.dev/waypoint-engine: %s%s}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default, labels: {app: client}}
spec:
  nodeName: n1
  containers: [{name: app, image: curlimages/curl}]
---
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: default}
spec:
  selector: {app: %s}
  ports: [{name: http, port: 9080}]
`, engine, annotations, host, host)
	for _, b := range backends {
		name, version, _ := strings.Cut(b, "=")
		yaml += fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default, labels: {app: %s, version: %s}}
spec:
  nodeName: n2
  containers: [{name: app, image: curlimages/curl}]
`, name, host, version)
	}
	w := &world{lab: newLab(t, yaml), t: t, host: host, backends: map[string]*backend{}}
	w.client = w.inside(t, "default/client")
	for _, b := range backends {
		name, version, _ := strings.Cut(b, "=")
		w.backends[name] = w.serve(name, version)
	}
	w.address = w.clusterIP(t, "default", host) + ":9080"
	eventually(t, "the waypoint serves", func() bool {
		r := w.ask(nil)
		return r.err == nil && r.status == 200
	})
	for _, b := range w.backends {
		b.forget()
	}
	return w
}

// backend is an application of this test's in a pod.
type backend struct {
	version string
	handle  atomic.Pointer[http.HandlerFunc]

	mu                         sync.Mutex
	requests, inFlight, most   int
	connections, perConnection int
	arrivals                   []time.Time
	users                      map[string]bool
	listener                   net.Listener
	open                       map[net.Conn]time.Time // since when it is idle
	idleFor                    []time.Duration        // of connections that ended idle
}

type countKey struct{}

func (w *world) serve(name, version string) *backend {
	w.t.Helper()
	b := &backend{version: version, users: map[string]bool{}, open: map[net.Conn]time.Time{}}
	b.listener = listenIn(w.t, w.inside(w.t, "default/"+name), ":9080")
	s := &httptest.Server{Listener: b.listener, Config: &http.Server{
		Handler:   b,
		ConnState: b.state,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, countKey{}, new(int))
		},
	}}
	s.Start()
	w.t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return b
}

func (b *backend) state(c net.Conn, s http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch s {
	case http.StateIdle:
		b.open[c] = time.Now()
	case http.StateClosed:
		if since, idle := b.open[c]; idle {
			b.idleFor = append(b.idleFor, time.Since(since))
		}
		delete(b.open, c)
	default:
		delete(b.open, c)
	}
}

// ServeHTTP answers with the version, or as it was told.
func (b *backend) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	b.requests++
	b.inFlight++
	b.most = max(b.most, b.inFlight)
	b.arrivals = append(b.arrivals, time.Now())
	n := r.Context().Value(countKey{}).(*int)
	if *n++; *n == 1 {
		b.connections++
	}
	b.perConnection = max(b.perConnection, *n)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.inFlight--
		b.mu.Unlock()
	}()
	rw.Header().Set("x-version", b.version)
	if h := b.handle.Load(); h != nil {
		(*h)(rw, r)
	}
}

func (b *backend) does(h http.HandlerFunc) {
	if h == nil {
		b.handle.Store(nil)
		return
	}
	b.handle.Store(&h)
}

func (b *backend) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests, b.most, b.connections, b.perConnection, b.arrivals, b.idleFor = 0, 0, 0, 0, nil, nil
}

func (b *backend) seen() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requests
}

// replies with a status, at once.
func replies(status int) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(status) }
}

// hangs answers never.
func hangs(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// answer is what a request came to.
type answer struct {
	status  int
	version string
	header  http.Header
	body    string
	took    time.Duration
	err     error
}

// dial connects from the client's pod.
func (w *world) dial(context.Context, string, string) (net.Conn, error) {
	return dialFrom(w.client, w.address, 10*time.Second)
}

func (w *world) http(connections int) *http.Client {
	tr := &http.Transport{DialContext: w.dial, MaxIdleConnsPerHost: connections, DisableCompression: true}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Timeout: 40 * time.Second, Transport: tr}
}

// ask sends one request on a connection of its own.
func (w *world) ask(header http.Header) answer {
	c := w.http(1)
	defer c.CloseIdleConnections()
	return w.askOn(c, header)
}

func (w *world) askOn(c *http.Client, header http.Header) (a answer) {
	r, err := http.NewRequest(http.MethodGet, "http://"+w.host+":9080/", nil)
	if err != nil {
		return answer{err: err}
	}
	if header != nil {
		r.Header = header.Clone()
	}
	start := time.Now()
	res, err := c.Do(r)
	if err != nil {
		return answer{err: err, took: time.Since(start)}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	return answer{res.StatusCode, res.Header.Get("x-version"), res.Header, string(body), time.Since(start), err}
}

// many sends n requests on kept connections, as many at once as workers; header says
// with what, or is nil.
func (w *world) many(n, workers int, header func(i int) http.Header) []answer {
	w.t.Helper()
	c := w.http(workers)
	defer c.CloseIdleConnections()
	out := make([]answer, n)
	var next atomic.Int64
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				var h http.Header
				if header != nil {
					h = header(i)
				}
				out[i] = w.askOn(c, h)
			}
		})
	}
	work.Wait()
	return out
}

// tally counts answers by version, and fails the test for those that are none.
func (w *world) tally(answers []answer) map[string]int {
	w.t.Helper()
	out := map[string]int{}
	for i, a := range answers {
		if a.err != nil || a.status != 200 {
			w.t.Fatalf("request %d of %d: status %d, %v", i, len(answers), a.status, a.err)
		}
		out[a.version]++
	}
	return out
}

// steady sends requests at a rate until it is stopped, and says what failed and when
// a version answered last.
type steady struct {
	mu     sync.Mutex
	sent   int
	failed []string
	last   map[string]time.Time // by version, when the request was sent
	stop   func()
}

func (w *world) steady(rate int) *steady {
	s := &steady{last: map[string]time.Time{}}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	const workers = 20
	c := w.http(workers)
	for i := range workers {
		work.Go(func() {
			tick := time.NewTicker(time.Duration(workers) * time.Second / time.Duration(rate))
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				sent := time.Now()
				a := w.askOn(c, nil)
				s.mu.Lock()
				s.sent++
				if a.err != nil || a.status != 200 {
					s.failed = append(s.failed, fmt.Sprintf("worker %d: status %d, %v", i, a.status, a.err))
				} else if sent.After(s.last[a.version]) {
					s.last[a.version] = sent
				}
				s.mu.Unlock()
			}
		})
	}
	s.stop = func() { cancel(); work.Wait() }
	return s
}

// lastOf is when a request that a version answered was sent last.
func (s *steady) lastOf(version string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[version]
}

// live waits until the routes are the object's: until all of some requests are answered
// by the version.
func (w *world) live(version string, header http.Header) {
	w.t.Helper()
	eventually(w.t, "all requests are answered by "+version, func() bool {
		return !slices.ContainsFunc(w.many(20, 4, func(int) http.Header { return header }), func(a answer) bool { return a.version != version })
	})
}

// between fails the test where n is out of bounds.
func between(t *testing.T, what string, n, low, high int) {
	t.Helper()
	if n < low || n > high {
		t.Errorf("%s: %d, want %d to %d", what, n, low, high)
		return
	}
	t.Logf("%s: %d (%d to %d)", what, n, low, high)
}
