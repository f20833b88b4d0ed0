package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3" // named below
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// Balancer, breakers and endpoints change: the connection stays. How connections are
// made changes: it drains.
func TestConnectionsSurviveWhatDoesNotConcernThem(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := m.eds(t, "", s.addr)
	use := func(connections int64) {
		t.Helper()
		if status, _, err := do(c, Choice{}, OpenOptions{}); status != 200 || err != nil {
			t.Fatal(status, err)
		}
		if n := s.connections.Load(); n != connections {
			t.Errorf("%d connections, want %d", n, connections)
		}
	}
	use(1)
	h := c.Hosts()[0]
	if m.eds(t, `"lb_policy":"RANDOM","circuit_breakers":{"thresholds":[{"max_requests":7}]}`, s.addr, "127.0.0.1:1"); m.Get("c") != c {
		t.Fatal("an update makes another cluster")
	}
	if err := m.SetEndpoints(assignment("c", s.addr)); err != nil {
		t.Fatal(err)
	}
	use(1)
	if c.Hosts()[0] != h {
		t.Error("the host is another one")
	}
	m.eds(t, `"connect_timeout":"1s"`, s.addr)
	eventually(t, "the old connection is closed", func() bool { return s.open.Load() == 0 })
	use(2)
	if err := m.SetEndpoints(assignment("c")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connections of a host that left are closed", func() bool { return s.open.Load() == 0 })
	if _, _, err := do(c, Choice{}, OpenOptions{}); !errors.Is(err, ErrNoHost) {
		t.Error(err)
	}
}

// An exchange under way ends well when its host leaves.
func TestExchangeOutlivesItsHost(t *testing.T) {
	s := newServer(t)
	s.hold = make(chan struct{})
	m := newManager(t, Options{})
	c := m.eds(t, "", s.addr)
	result := make(chan error, 1)
	go func() {
		_, _, err := do(c, Choice{}, OpenOptions{})
		result <- err
	}()
	eventually(t, "in flight", func() bool { return s.inFlight.Load() == 1 })
	m.Remove("c")
	if m.Get("c") != nil {
		t.Error("still there")
	}
	close(s.hold)
	if err := <-result; err != nil {
		t.Error(err)
	}
	eventually(t, "its connection is closed", func() bool { return s.open.Load() == 0 })
}

func TestEDSClusterWaitsForItsFirstEndpoints(t *testing.T) {
	m := newManager(t, Options{})
	if m.set(t, `{"name":"c","type":"EDS","eds_cluster_config":{"service_name":"s","eds_config":{"ads":{}}}}`) != nil {
		t.Error("it is there without endpoints")
	}
	if err := m.SetEndpoints(assignment("s", port(1))); err != nil {
		t.Fatal(err)
	}
	if c := m.Get("c"); c == nil || len(c.Hosts()) != 1 {
		t.Error("it is not there with endpoints")
	}
	// Another cluster of the same service has them at once; a change of service name
	// takes the other's.
	if err := m.SetEndpoints(assignment("t", port(2), port(3))); err != nil {
		t.Fatal(err)
	}
	if c := m.set(t, `{"name":"d","type":"EDS","eds_cluster_config":{"service_name":"s","eds_config":{"ads":{}}}}`); len(c.Hosts()) != 1 {
		t.Error(c.Hosts())
	}
	c := m.set(t, `{"name":"c","type":"EDS","eds_cluster_config":{"service_name":"t","eds_config":{"ads":{}}}}`)
	if err := m.SetEndpoints(assignment("s")); err != nil {
		t.Fatal(err)
	}
	if len(c.Hosts()) != 2 || len(m.Get("d").Hosts()) != 0 {
		t.Error("endpoints of the wrong service")
	}
}

func TestBadClustersChangeNothing(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, "", port(1))
	for text, want := range map[string]string{
		`{"name":"c","type":"EDS","lb_policy":"MAGLEV","maglev_lb_config":{"table_size":4}}`:                 "cluster c: lb_policy: table_size 4",
		`{"name":"c","type":"EDS","lb_policy":"CLUSTER_PROVIDED"}`:                                           "cluster c: lb_policy",
		`{"name":"c","type":"EDS","lb_subset_config":{}}`:                                                    "cluster c: lb_subset_config",
		`{"name":"c","type":"EDS","connect_timeout":"0s"}`:                                                   "cluster c: connect_timeout",
		`{"name":"c","type":"EDS","outlier_detection":{"base_ejection_time":"9s","max_ejection_time":"1s"}}`: "cluster c: outlier_detection: max_ejection_time",
		`{"name":"c","type":"LOGICAL_DNS","load_assignment":{}}`:                                             "cluster c: load_assignment",
		`{"name":"c","type":"STATIC","load_assignment":{"endpoints":[{"lb_endpoints":[{"endpoint":{"address":{"socket_address":{"address":"name","port_value":1}}}}]}]}}`: `endpoints[0].lb_endpoints[0].endpoint.address: "name" is not an IP address`,
		`{"type":"EDS"}`: "name: missing",
	} {
		wantError(t, m.SetCluster(parse(t, text, &clusterv3.Cluster{})), want)
	}
	if len(c.Hosts()) != 1 || m.Get("c") != c || c.snap.Load().spec.lb.policy != roundRobin {
		t.Error("the cluster has changed")
	}
	// Of endpoints the good ones are in effect.
	load := assignment("c", port(1), port(2))
	load.GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress().Address = "x"
	wantError(t, m.SetEndpoints(load), "endpoints[0].lb_endpoints[0]")
	if hosts := c.Hosts(); len(hosts) != 1 || hosts[0].Address != port(2) {
		t.Error("the good endpoint is not in effect")
	}
}

// Everything at once, for the race detector: no request fails.
func TestUpdatesUnderLoad(t *testing.T) {
	a, b := newServer(t), newServer(t)
	m := newManager(t, Options{})
	c := m.eds(t, "", a.addr, b.addr)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var served atomic.Int64
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := uint64(i)
			for {
				select {
				case <-stop:
					return
				default:
				}
				var tried []*Host
				// A kept connection may end while it is chosen: that is retried.
				for attempt := range 3 {
					status, h, err := do(m.Get("c"), Choice{Random: draw(&r), Tried: tried, Attempts: 3, Attempt: attempt}, OpenOptions{})
					if err == nil && status == 200 {
						served.Add(1)
						break
					}
					if attempt == 2 || !errors.Is(err, codec.ErrRefused) {
						t.Errorf("%d, %v", status, err)
						return
					}
					tried = append(tried, h)
				}
			}
		}()
	}
	policies := []string{"ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV"}
	for i := range 60 {
		load := assignment("c", a.addr, b.addr)
		if i%3 == 1 {
			load = assignment("c", a.addr)
		}
		fields := fmt.Sprintf(`"lb_policy":%q,"outlier_detection":{},"connect_timeout":"%ds"`, policies[i%5], 5+i%2)
		m.set(t, `{"name":"c","type":"EDS","eds_cluster_config":{"eds_config":{"ads":{}}},`+fields+`}`)
		if err := m.SetEndpoints(load); err != nil {
			t.Error(err)
		}
		before := served.Load()
		eventually(t, "requests go on", func() bool { return served.Load() > before+20 || t.Failed() })
		_ = c.Stats()
	}
	close(stop)
	wg.Wait()
	m.Close()
	eventually(t, "all connections are closed", func() bool { return a.open.Load()+b.open.Load() == 0 })
	for p := range c.breakers {
		if x := &c.breakers[p]; x.connections.Load()+x.pending.Load()+x.requests.Load() != 0 {
			t.Error("counts are left")
		}
	}
	if s := c.Stats(); s["upstream_cx_active"] != 0 || s["upstream_rq_active"] != 0 || s["upstream_cx_destroy"] != s["upstream_cx_total"] {
		t.Error(s)
	}
}

func TestIdleAndOldConnectionsEnd(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := m.eds(t, protocolOptions(`"common_http_protocol_options":{"idle_timeout":"0.5s"},"explicit_http_config":{"http_protocol_options":{}}`), s.addr)
	if status, _, err := do(c, Choice{}, OpenOptions{}); status != 200 || err != nil {
		t.Fatal(status, err)
	}
	eventually(t, "the idle connection is closed", func() bool { return s.open.Load() == 0 })
	if got := c.Stats(); got["upstream_cx_idle_timeout"] != 1 || got["upstream_cx_active"] != 0 {
		t.Error(got)
	}
}

func TestReusingAConnectionAllocatesNothing(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := m.eds(t, `"outlier_detection":{}`, s.addr, s.addr)
	if status, _, err := do(c, Choice{}, OpenOptions{}); status != 200 || err != nil {
		t.Fatal(status, err)
	}
	n := testing.AllocsPerRun(200, func() {
		h, err := c.Choose(Choice{Random: 1})
		if err != nil {
			t.Fatal(err)
		}
		st, err := c.Open(h, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		h.Report(Responded, 200)
		st.Close() // nothing was sent: the connection stays usable
	})
	if n != 0 {
		t.Errorf("%.1f allocations", n)
	}
}

func TestRetryBreaker(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, `"circuit_breakers":{"thresholds":[{"max_retries":2}]}`, port(1))
	for i, want := range []bool{true, true, false} {
		if got := c.Retry(DefaultPriority); got != want {
			t.Errorf("retry %d: %v", i, got)
		}
	}
	c.RetryDone(DefaultPriority, true)
	if !c.Retry(DefaultPriority) || !c.Retry(HighPriority) {
		t.Error("none is free after one was done, or priorities count together")
	}
	if s := c.Stats(); s["upstream_rq_retry"] != 4 || s["upstream_rq_retry_overflow"] != 1 || s["upstream_rq_retry_success"] != 1 {
		t.Error(s)
	}
	c = m.eds(t, `"circuit_breakers":{"thresholds":[{"retry_budget":{"budget_percent":{"value":50},"min_retry_concurrency":1}}]}`, port(1))
	c.breakers[0].retries.Store(0)
	c.breakers[0].requests.Store(4)
	for i, want := range []bool{true, true, false} {
		if got := c.Retry(DefaultPriority); got != want {
			t.Errorf("budget of 4 requests, retry %d: %v", i, got)
		}
	}
}

func TestNamesAreResolvedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lookups atomic.Int64
		var fail atomic.Bool
		var at atomic.Value
		at.Store("10.0.0.1 10.0.0.2")
		m := newManager(t, Options{Resolve: func(_ context.Context, name string, f Family) (Addresses, error) {
			lookups.Add(1)
			if fail.Load() || name != "db.example.com" {
				return Addresses{}, errors.New("no such name")
			}
			var out Addresses
			for a := range strings.FieldsSeq(at.Load().(string)) {
				out.Addrs = append(out.Addrs, netip.MustParseAddr(a))
			}
			return Addresses{f.of(out.Addrs), 20 * time.Second}, nil
		}})
		defer m.Close()
		endpoint := `"load_assignment":{"cluster_name":"d","endpoints":[{"lb_endpoints":[{"endpoint":{"address":{"socket_address":{"address":"db.example.com","port_value":5432}}}}]}]}`
		m.set(t, `{"name":"d","type":"STRICT_DNS","dns_refresh_rate":"60s","respect_dns_ttl":true,"dns_lookup_family":"V4_ONLY",`+endpoint+`}`)
		synctest.Wait()
		c := m.Get("d")
		addresses := func() (out string) {
			for _, h := range c.Hosts() {
				out += h.Address + " "
			}
			return out
		}
		if got := addresses(); got != "10.0.0.1:5432 10.0.0.2:5432 " || c.Hosts()[0].Hostname != "db.example.com" {
			t.Error(got)
		}
		at.Store("10.0.0.3")
		pass(19 * time.Second)
		if lookups.Load() != 1 {
			t.Error("resolved before the TTL was over")
		}
		pass(2 * time.Second)
		if got := addresses(); got != "10.0.0.3:5432 " {
			t.Error(got)
		}
		fail.Store(true)
		pass(5 * time.Minute)
		if got := addresses(); got != "10.0.0.3:5432 " || c.Stats()["update_failure"] == 0 {
			t.Error("a failure took the addresses away:", got)
		}
		fail.Store(false)
		at.Store("10.0.0.4 10.0.0.5")
		m.set(t, `{"name":"l","type":"LOGICAL_DNS",`+endpoint+`}`)
		synctest.Wait()
		if hosts := m.Get("l").Hosts(); len(hosts) != 1 || hosts[0].Address != "10.0.0.4:5432" {
			t.Error(hosts)
		}
	})
}

// A refused connection does not keep who waits behind it.
func TestWaitersTakeTheTurnOfAFailedConnection(t *testing.T) {
	s := newServer(t)
	var dials atomic.Int64
	first := make(chan struct{})
	m := newManager(t, Options{Dial: func(ctx context.Context, to netip.AddrPort) (codec.Conn, error) {
		if dials.Add(1) == 1 {
			<-first
			return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
		}
		return dialTCP(ctx, to)
	}})
	c := m.eds(t, `"circuit_breakers":{"thresholds":[{"max_connections":1}]}`, s.addr)
	results := make(chan error, 3)
	for range 3 {
		go func() {
			_, _, err := do(c, Choice{}, OpenOptions{})
			results <- err
		}()
	}
	eventually(t, "two wait", func() bool { return c.Stats()["upstream_rq_pending_active"] == 3 })
	close(first)
	failed := 0
	for range 3 {
		if err := <-results; err != nil {
			failed++
		}
	}
	if failed != 1 || dials.Load() != 2 {
		t.Errorf("%d failed, %d connections were tried", failed, dials.Load())
	}
}

func TestGoroutinesEnd(t *testing.T) {
	before := runtime.NumGoroutine()
	m := newManager(t, Options{Resolve: func(context.Context, string, Family) (Addresses, error) {
		return Addresses{Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}, nil
	}})
	for i := range 20 {
		m.set(t, fmt.Sprintf(`{"name":"d%d","type":"STRICT_DNS","outlier_detection":{},"load_assignment":{"endpoints":[{"lb_endpoints":[{"endpoint":{"address":{"socket_address":{"address":"n","port_value":1}}}}]}]}}`, i))
	}
	m.Close()
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

// A dynamic forward proxy's hosts are names: resolved once per refresh, and kept
// apart also where they share an address.
func TestForwardedNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lookups atomic.Int64
		var fail atomic.Bool
		m := newManager(t, Options{Resolve: func(context.Context, string, Family) (Addresses, error) {
			lookups.Add(1)
			if fail.Load() {
				return Addresses{}, errors.New("no such name")
			}
			return Addresses{Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}, nil
		}})
		defer m.Close()
		c := m.set(t, `{"name":"f","lb_policy":"CLUSTER_PROVIDED","cluster_type":{"name":"envoy.clusters.dynamic_forward_proxy","typed_config":{
			"@type":"type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig","dns_cache_config":{"name":"n","dns_lookup_family":"V4_ONLY"}}}}`)
		one, err := c.Choose(Choice{Authority: "one.example.com:8080"})
		if err != nil || one.Address != "10.0.0.1:8080" {
			t.Fatal(one, err)
		}
		if again, _ := c.Choose(Choice{Authority: "one.example.com:8080"}); again != one || lookups.Load() != 1 {
			t.Errorf("%d lookups", lookups.Load())
		}
		if two, _ := c.Choose(Choice{Authority: "two.example.com:8080"}); two == one {
			t.Error("two names share a host")
		}
		// A request's authority stands in a buffer that the next request overwrites: the
		// name is who must answer, and must not become another.
		buffer := []byte("kept.example.com:8080")
		kept, err := c.Choose(Choice{Authority: unsafe.String(&buffer[0], len(buffer))})
		if err != nil {
			t.Fatal(err)
		}
		copy(buffer, "evil")
		if kept.Hostname != "kept.example.com" {
			t.Errorf("the host is now %s", kept.Hostname)
		}
		fail.Store(true)
		pass(2 * time.Minute)
		if again, err := c.Choose(Choice{Authority: "one.example.com:8080"}); err != nil || again.Address != one.Address {
			t.Error("a failure took the address away:", err)
		}
		if _, err := c.Choose(Choice{Authority: "three.example.com"}); !errors.Is(err, ErrNoHost) {
			t.Error(err)
		}
	})
}

func FuzzResources(f *testing.F) {
	for _, text := range []string{`{"name":"c","type":"EDS"}`, `{"name":"c","type":"STATIC","lb_policy":"MAGLEV","maglev_lb_config":{"table_size":7},"load_assignment":{"endpoints":[{"lb_endpoints":[{"endpoint":{"address":{"socket_address":{"address":"10.0.0.1","port_value":1}}}}]}]}}`} {
		b, _ := proto.Marshal(parse(f, text, &clusterv3.Cluster{}))
		load, _ := proto.Marshal(weighted("c", 1, 2, 3))
		f.Add(b, load)
	}
	f.Fuzz(func(t *testing.T, cluster, load []byte) {
		p, l := &clusterv3.Cluster{}, &endpointv3.ClusterLoadAssignment{}
		if proto.Unmarshal(cluster, p) != nil || proto.Unmarshal(load, l) != nil || p.GetType() == clusterv3.Cluster_STRICT_DNS || p.GetType() == clusterv3.Cluster_LOGICAL_DNS || p.GetClusterType() != nil {
			return
		}
		m := newManager(t, Options{})
		defer m.Close()
		if m.SetCluster(p) != nil {
			return
		}
		l.ClusterName = p.GetEdsClusterConfig().GetServiceName()
		_ = m.SetEndpoints(l)
		if c := m.Get(p.GetName()); c != nil {
			for i := range uint64(5) {
				_, _ = c.Choose(Choice{Random: i, Destination: netip.MustParseAddrPort("10.0.0.1:1")})
			}
			_ = c.Stats()
		}
	})
}

// Who asks for many destinations does not keep others from theirs, and what is in use
// stays.
func TestManyDestinations(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := m.set(t, `{"name":"o","type":"ORIGINAL_DST","lb_policy":"CLUSTER_PROVIDED"}`)
	used, err := c.Choose(Choice{Destination: netip.MustParseAddrPort(s.addr)})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := c.Open(used, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	at := netip.MustParseAddr("10.0.0.0")
	for range 2 * maxDestinations {
		at = at.Next()
		if _, err := c.Choose(Choice{Destination: netip.AddrPortFrom(at, 80)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.Hosts()); n > maxDestinations {
		t.Errorf("%d destinations are kept", n)
	}
	if again, err := c.Choose(Choice{Destination: netip.MustParseAddrPort(s.addr)}); again != used || err != nil {
		t.Errorf("the one in use is another now: %v", err)
	}
}
