package admin

import (
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func start(t *testing.T, o Options) *Server {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	o.AdminAddress, o.MetricsAddress, o.ReadinessAddress = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Readiness == nil {
		o.Readiness = &Readiness{}
	}
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func get(t *testing.T, method, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestReadinessNamesWhatItWaitsFor(t *testing.T) {
	r := &Readiness{}
	workloads, policies := r.Wait("workloads"), r.Wait("policies")
	s := start(t, Options{Readiness: r})
	url := "http://" + s.Addr("readiness").String() + "/healthz/ready"
	for _, c := range []struct {
		then func()
		code int
		body string
	}{
		{func() {}, 500, "not ready, pending: workloads, policies\n"},
		{workloads, 500, "not ready, pending: policies\n"},
		{workloads, 500, "not ready, pending: policies\n"},
		{policies, 200, "ready\n"},
		{func() { r.Set("certificates", true); r.Set("certificates", true) }, 500, "not ready, pending: certificates\n"},
		{func() { r.Set("certificates", false) }, 200, "ready\n"},
	} {
		c.then()
		if code, body := get(t, "GET", url); code != c.code || body != c.body {
			t.Errorf("%d %q, want %d %q", code, body, c.code, c.body)
		}
	}
}

func TestMetricsAreCompressed(t *testing.T) {
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "a_total", Help: "An example."})
	registry.MustRegister(counter)
	s := start(t, Options{Registry: registry})
	for _, path := range []string{"/metrics", "/stats/prometheus"} {
		request, err := http.NewRequest("GET", "http://"+s.Addr("metrics").String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept-Encoding", "gzip")
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		unzipped, err := gzip.NewReader(response.Body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if body, err := io.ReadAll(unzipped); err != nil || !strings.Contains(string(body), "a_total 0") {
			t.Errorf("%s: %v %s", path, err, body)
		}
	}
}

func TestLogLevel(t *testing.T) {
	level := level.New(slog.LevelInfo)
	s := start(t, Options{Level: level})
	url := "http://" + s.Addr("admin").String() + "/logging"
	for _, c := range []struct {
		method, query string
		code          int
		want          slog.Level
	}{
		{"GET", "", 200, slog.LevelInfo},
		{"GET", "?level=debug", 405, slog.LevelInfo},
		{"POST", "?level=debug", 200, slog.LevelDebug},
		{"POST", "?level=loud", 400, slog.LevelDebug},
		{"POST", "?reset", 200, slog.LevelInfo},
	} {
		code, body := get(t, c.method, url+c.query)
		if code != c.code || level.Level() != c.want {
			t.Errorf("%s %s: %d %q, level %v; want %d, level %v", c.method, c.query, code, body, level.Level(), c.code, c.want)
		}
	}
}

func TestQuitNeedsPost(t *testing.T) {
	asked := make(chan struct{}, 2)
	s := start(t, Options{Quit: func() { asked <- struct{}{} }})
	url := "http://" + s.Addr("admin").String() + "/quitquitquit"
	if code, _ := get(t, "GET", url); code != 405 || len(asked) != 0 {
		t.Errorf("GET: %d, asked %d", code, len(asked))
	}
	if code, _ := get(t, "POST", url); code != 200 || len(asked) != 1 {
		t.Errorf("POST: %d, asked %d", code, len(asked))
	}
}

func TestTakenAddressIsNamed(t *testing.T) {
	s := start(t, Options{})
	_, err := Listen(Options{AdminAddress: s.Addr("admin").String(), Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "admin address 127.0.0.1:") {
		t.Errorf("error %v does not name the address", err)
	}
}

// The dump is read by other programs: its keys are a contract.
func TestDumpIsGolden(t *testing.T) {
	workload := &mesh.Workload{
		UID: "Kubernetes//Pod/default/a-1", Name: "a-1", Namespace: "default", TrustDomain: "cluster.local", ServiceAccount: "a",
		Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}, Cluster: "Kubernetes", Node: "n1",
		Locality: mesh.Locality{Region: "r1", Zone: "z1"}, Tunnel: mesh.TunnelHBONE, WorkloadName: "a", WorkloadType: "pod",
		CanonicalName: "a", CanonicalRevision: "v1", Healthy: true, Capacity: 1, Policies: []string{"default/deny"},
		Services: map[mesh.ServiceKey][]mesh.Port{{Namespace: "default", Hostname: "a.default.svc.cluster.local"}: {{Service: 80, Target: 8080}}},
	}
	service := &mesh.Service{
		Key: mesh.ServiceKey{Namespace: "default", Hostname: "a.default.svc.cluster.local"}, Name: "a", Canonical: true,
		VIPs:  []mesh.NetworkAddr{mesh.NewNetworkAddr("", netip.MustParseAddr("10.96.0.1"))},
		Ports: []mesh.Port{{Service: 80, Target: 8080}}, IPFamilies: 3,
		Balancing: mesh.Balancing{Mode: mesh.BalanceFailover, Scopes: []mesh.Scope{mesh.ScopeNetwork, mesh.ScopeRegion}},
		Waypoint:  &mesh.GatewayAddr{Service: mesh.ServiceKey{Namespace: "default", Hostname: "wp"}, Port: 15008},
	}
	strict := &mesh.Policy{
		Name: "deny", Namespace: "default", Scope: mesh.ScopeWorkload, Action: mesh.ActionDeny,
		Rules: []mesh.PolicyRule{{Clauses: []mesh.PolicyClause{{Matches: []mesh.PolicyMatch{{
			NotPrincipals: []mesh.StringMatch{{Kind: mesh.MatchPresence}},
			Namespaces:    []mesh.StringMatch{{Value: "a"}, {Kind: mesh.MatchPrefix, Value: "b"}},
			SourceIPs:     []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, DestinationPorts: []uint16{80},
			ServiceAccounts: []mesh.ServiceAccountMatch{{Namespace: "n", ServiceAccount: "s"}},
		}}}}}},
	}
	dump := NewDump([]*mesh.Workload{workload}, []*mesh.Service{service}, []*mesh.Policy{strict})
	dump.WorkloadState["1"] = PodState{State: "Up", Info: PodInfo{Name: "a-1", Namespace: "default", TrustDomain: "cluster.local", ServiceAccount: "a"}}
	got, err := json.MarshalIndent(dump, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/config_dump.json"
	if *update {
		if os.Getenv("CI") == "true" {
			t.Fatal("golden files are not rewritten in CI")
		}
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
		t.Errorf("dump (-want +got):\n%s", diff)
	}
}
