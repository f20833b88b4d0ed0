package cluster

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestConnectionsAreReused(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := m.eds(t, "", s.addr)
	for i := range 10 {
		if status, _, err := do(c, Choice{Random: uint64(i)}, OpenOptions{}); err != nil || status != 200 {
			t.Fatal(status, err)
		}
	}
	if n := s.connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	if got := c.Stats(); got["upstream_rq_total"] != 10 || got["upstream_cx_total"] != 1 || got["upstream_cx_active"] != 1 || got["upstream_rq_active"] != 0 {
		t.Error(got)
	}
	m.Remove("c")
	eventually(t, "the connection is closed", func() bool { return s.open.Load() == 0 })
}

// Never more than 50 in flight, never more than 30 waiting or connecting, the rest
// at once refused.
func TestBreakersBoundWhatIsUnderWay(t *testing.T) {
	s := newServer(t)
	s.hold = make(chan struct{})
	m := newManager(t, Options{})
	c := m.eds(t, `"circuit_breakers":{"thresholds":[{"max_connections":50,"max_pending_requests":30,"track_remaining":true}]}`, s.addr)
	var wg sync.WaitGroup
	var ok, over, other atomic.Int64
	one := func() {
		defer wg.Done()
		switch status, _, err := do(c, Choice{}, OpenOptions{}); {
		case errors.Is(err, ErrOverflow):
			over.Add(1)
		case err != nil || status != 200:
			other.Add(1)
		default:
			ok.Add(1)
		}
	}
	// The connections first: those that connect count as pending too, as in Envoy.
	for i := range 50 {
		wg.Add(1)
		go one()
		eventually(t, "in flight", func() bool { return s.inFlight.Load() == int64(i+1) })
	}
	for range 150 {
		wg.Add(1)
		go one()
	}
	eventually(t, "the rest is refused", func() bool { return over.Load() == 120 })
	if got := c.Stats(); got["upstream_rq_pending_active"] != 30 || got["circuit_breakers.default.remaining_pending"] != 0 ||
		got["circuit_breakers.default.rq_pending_open"] != 1 || got["circuit_breakers.default.cx_open"] != 1 || got["upstream_rq_pending_overflow"] != 120 {
		t.Error(got)
	}
	close(s.hold)
	wg.Wait()
	if ok.Load() != 80 || over.Load() != 120 || other.Load() != 0 || s.most.Load() != 50 {
		t.Errorf("ok %d, over %d, other %d, most %d", ok.Load(), over.Load(), other.Load(), s.most.Load())
	}
	if got := c.Stats(); got["upstream_rq_pending_active"] != 0 || got["upstream_rq_active"] != 0 || got["upstream_cx_total"] != 50 {
		t.Error(got)
	}
}

func TestConnectErrors(t *testing.T) {
	m := newManager(t, Options{})
	s := newServer(t)
	_ = s.listener.Close()
	c := m.eds(t, "", s.addr)
	_, h, err := do(c, Choice{}, OpenOptions{})
	var ce *ConnectError
	if !errors.As(err, &ce) || ce.Host != h.Address || ce.Timeout {
		t.Errorf("%v", err)
	}
	if got := c.Stats(); got["upstream_cx_connect_fail"] != 1 || got["upstream_cx_active"] != 0 || got["upstream_cx_total"] != 1 || got["upstream_cx_http1_total"] != 1 ||
		got["upstream_cx_destroy"] != 1 || got["upstream_rq_pending_failure_eject"] != 1 || got["upstream_rq_total"] != 0 || c.breakers[0].connections.Load() != 0 {
		t.Error(got)
	}
}

func TestWaitEndsAtItsDeadline(t *testing.T) {
	s := newServer(t)
	s.hold = make(chan struct{})
	defer close(s.hold)
	m := newManager(t, Options{})
	c := m.eds(t, `"circuit_breakers":{"thresholds":[{"max_connections":1}]}`, s.addr)
	go func() { _, _, _ = do(c, Choice{}, OpenOptions{}) }()
	eventually(t, "one is in flight", func() bool { return s.inFlight.Load() == 1 })
	if _, _, err := do(c, Choice{}, OpenOptions{Deadline: time.Now().Add(20 * time.Millisecond)}); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
	gone := func() bool { return true }
	if _, _, err := do(c, Choice{}, OpenOptions{Gone: gone}); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	if n := c.breakers[0].pending.Load(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

func TestRequestsPerConnection(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := m.eds(t, `"typed_extension_protocol_options":{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":{
		"@type":"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"common_http_protocol_options":{"max_requests_per_connection":5},"explicit_http_config":{"http_protocol_options":{}}}}`, s.addr)
	for range 20 {
		if status, _, err := do(c, Choice{}, OpenOptions{}); err != nil || status != 200 {
			t.Fatal(status, err)
		}
	}
	if n := s.connections.Load(); n != 4 {
		t.Errorf("%d connections for 20 requests", n)
	}
}

// More than max_requests at once overflow apart from the pending ones.
func TestRequestsBreaker(t *testing.T) {
	s := newServer(t)
	s.hold = make(chan struct{})
	m := newManager(t, Options{})
	c := m.eds(t, `"circuit_breakers":{"thresholds":[{"max_requests":1}]}`, s.addr)
	done := make(chan error, 1)
	go func() {
		_, _, err := do(c, Choice{}, OpenOptions{})
		done <- err
	}()
	eventually(t, "in flight", func() bool { return s.inFlight.Load() == 1 })
	if _, _, err := do(c, Choice{}, OpenOptions{}); !errors.Is(err, ErrOverflow) {
		t.Error(err)
	}
	if st, err := c.Open(c.Hosts()[0], OpenOptions{Priority: HighPriority}); err != nil {
		t.Error("priorities count together:", err)
	} else {
		st.Close()
	}
	if got := c.Stats(); got["upstream_rq_active_overflow"] != 1 || got["upstream_rq_pending_overflow"] != 0 || got["circuit_breakers.default.rq_open"] != 1 {
		t.Error(got)
	}
	close(s.hold)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStatusesAreCounted(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, "", port(1))
	for _, status := range []int{200, 200, 204, 503} {
		c.CountStatus(status)
	}
	got := c.Stats()
	for name, want := range map[string]int64{"upstream_rq_200": 2, "upstream_rq_2xx": 3, "external.upstream_rq_2xx": 3, "upstream_rq_503": 1, "upstream_rq_5xx": 1, "upstream_rq_completed": 4} {
		if got[name] != want {
			t.Errorf("%s is %d, want %d", name, got[name], want)
		}
	}
}

func TestWaitIsFirstComeFirstServed(t *testing.T) {
	s := newServer(t)
	s.hold = make(chan struct{})
	m := newManager(t, Options{})
	c := m.eds(t, `"circuit_breakers":{"thresholds":[{"max_connections":1}]}`, s.addr)
	order := make(chan int, 6)
	for i := range 6 {
		go func() {
			if _, _, err := do(c, Choice{}, OpenOptions{}); err != nil {
				t.Error(err)
			}
			order <- i
		}()
		eventually(t, "it is in line", func() bool { return s.inFlight.Load()+c.Stats()["upstream_rq_pending_active"] == int64(i+1) })
	}
	for i := range 6 {
		s.hold <- struct{}{}
		if got := <-order; got != i {
			t.Errorf("request %d was served in place %d", got, i)
		}
	}
}
