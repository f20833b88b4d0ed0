package waypoint_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// leakless fails a test that leaves goroutines behind. It is called first.
func leakless(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		end := time.Now().Add(patience)
		for runtime.NumGoroutine() > before {
			if time.Now().After(end) {
				b := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
			}
			<-time.After(5 * time.Millisecond)
		}
	})
}

const everything = `{"match":{"prefix":"/"},"route":{"cluster":"main","timeout":"0s"}}`

// ask sends a request as it stands and reads the answer.
func ask(t *testing.T, addr, request string) (*http.Response, string) {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	return talk(t, c, bufio.NewReader(c), request)
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func talk(t *testing.T, c net.Conn, in *bufio.Reader, request string) (*http.Response, string) {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	r, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("%.60q: %d, %v", request, r.StatusCode, err)
	}
	return r, string(body)
}

// A server may close a connection just when it is used again. A request that may be
// repeated goes to another one, whatever the policy; one that may not fails.
func TestConnectionsThatHadEnded(t *testing.T) {
	leakless(t)
	big := strings.Repeat("x", 200_000)
	for name, c := range map[string]struct {
		request string
		want    int
	}{
		"GET":              {"GET /again HTTP/1.1\r\nhost: a\r\n\r\n", 200},
		"PUT with a body":  {"PUT /again HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", 200},
		"PUT, not kept":    {fmt.Sprintf("PUT /again HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s", len(big), big), 503},
		"POST":             {"POST /again HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", 503},
		"POST, no content": {"POST /again HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", 503},
	} {
		t.Run(name, func(t *testing.T) {
			var connections atomic.Int64
			server := raw(t, func(c net.Conn) {
				connections.Add(1)
				in := bufio.NewReader(c)
				for i := 0; ; i++ {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if i > 0 { // it had gone, really
						return
					}
					body, _ := io.ReadAll(r.Body)
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", len(body), body)
				}
			})
			p := serve(t, routes(everything), map[string]string{"main": server}, nil)
			down := dial(t, p.addr)
			defer down.Close()
			in := bufio.NewReader(down)
			talk(t, down, in, "GET /first HTTP/1.1\r\nhost: a\r\n\r\n")
			r, body := talk(t, down, in, c.request)
			if name == "PUT, not kept" && r.StatusCode == 200 && body == big {
				return // it was sent anew before more of it came than is kept
			}
			if r.StatusCode != c.want {
				t.Errorf("%d %q, want %d", r.StatusCode, fmt.Sprintf("%.60s", body), c.want)
			}
			if strings.HasSuffix(c.request, "hello") && r.StatusCode == 200 && body != "hello" {
				t.Errorf("the server got %q", body)
			}
			// Another may have been opened for what turned out not to be kept.
			if n := connections.Load(); n != map[int]int64{200: 2, 503: 1}[c.want] && name != "PUT, not kept" {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// An exchange in which nothing moves ends: with 408 where the client is the one who is
// waited for, with 504 where it is the server.
func TestSilentExchanges(t *testing.T) {
	leakless(t)
	server := raw(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	p := serve(t, `"stream_idle_timeout":"0.3s",`+routes(everything), map[string]string{"main": server}, nil)
	for request, want := range map[string]int{
		"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhello": 408,
		"GET / HTTP/1.1\r\nhost: a\r\n\r\n":                             504,
	} {
		if r, body := ask(t, p.addr, request); r.StatusCode != want || body != "stream timeout" {
			t.Errorf("%.4s: %d %q, want %d", request, r.StatusCode, body, want)
		}
	}
	// One that moves slowly goes on.
	slow := raw(t, func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d", n)
	})
	p = serve(t, `"stream_idle_timeout":"1s",`+routes(everything), map[string]string{"main": slow}, nil)
	c := dial(t, p.addr)
	defer c.Close()
	fmt.Fprint(c, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\n")
	for range 8 {
		<-time.After(200 * time.Millisecond)
		fmt.Fprint(c, "x")
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || r.StatusCode != 200 {
		t.Fatal(r, err)
	}
	r.Body.Close()
}

// A fault of ours ends the exchange it is in; all others go on.
func TestFaultsEndOneExchange(t *testing.T) {
	leakless(t)
	var broken atomic.Bool
	authorize := func(*streaminfo.Connection, netip.AddrPort, bool) error {
		if broken.Swap(false) {
			panic("a fault")
		}
		return nil
	}
	p := serve(t, routes(everything), map[string]string{"main": upstream(t, func(http.ResponseWriter, *http.Request) {})}, authorize)
	bystander := dial(t, p.addr)
	defer bystander.Close()
	in := bufio.NewReader(bystander)
	talk(t, bystander, in, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
	broken.Store(true)
	victim := dial(t, p.addr)
	defer victim.Close()
	fmt.Fprint(victim, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
	if r, err := http.ReadResponse(bufio.NewReader(victim), nil); err == nil {
		r.Body.Close()
		t.Errorf("answered with %d", r.StatusCode)
	}
	if r, _ := talk(t, bystander, in, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"); r.StatusCode != 200 {
		t.Error(r.StatusCode)
	}
	if n := p.engine.Stats()["fairlead.faults"]; n != 1 {
		t.Errorf("%d faults counted", n)
	}
}

// HTTP/1.0 is refused, unless the configuration takes it.
func TestHTTP10(t *testing.T) {
	leakless(t)
	server := upstream(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hi") })
	for options, want := range map[string]int{"": 426, `"http_protocol_options":{"accept_http_10":true},`: 200} {
		p := serve(t, options+routes(everything), map[string]string{"main": server}, nil)
		if r, _ := ask(t, p.addr, "GET / HTTP/1.0\r\nhost: a\r\n\r\n"); r.StatusCode != want || !r.Close {
			t.Errorf("%q: %d, closed %t", options, r.StatusCode, r.Close)
		}
	}
}

// Which failures are tried again, and how often, is the policy's.
func TestRetries(t *testing.T) {
	leakless(t)
	answer := func(status, field string) func(net.Conn) {
		return func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				fmt.Fprintf(c, "HTTP/1.1 %s X\r\n%scontent-length: 0\r\n\r\n", status, field)
			}
		}
	}
	reset := func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
	}
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for name, c := range map[string]struct {
		policy string
		server func(net.Conn)
		tries  int64
		status int
	}{
		"5xx":                     {`"retry_on":"5xx","num_retries":2`, answer("500", ""), 3, 500},
		"5xx is no 404":           {`"retry_on":"5xx","num_retries":2`, answer("404", ""), 1, 404},
		"gateway error":           {`"retry_on":"gateway-error","num_retries":1`, answer("503", ""), 2, 503},
		"gateway error is no 500": {`"retry_on":"gateway-error","num_retries":1`, answer("500", ""), 1, 500},
		"reset":                   {`"retry_on":"reset","num_retries":1`, reset, 2, 503},
		"reset is no status":      {`"retry_on":"reset","num_retries":1`, answer("503", ""), 1, 503},
		"no policy for resets":    {`"retry_on":"retriable-4xx","num_retries":1`, reset, 1, 503},
		"retriable 4xx":           {`"retry_on":"retriable-4xx","num_retries":1`, answer("409", ""), 2, 409},
		"status codes":            {`"retry_on":"retriable-status-codes","num_retries":1,"retriable_status_codes":[418]`, answer("418", ""), 2, 418},
		"headers":                 {`"retry_on":"retriable-headers","num_retries":1,"retriable_headers":[{"name":"x-again","present_match":true}]`, answer("200", "x-again: 1\r\n"), 2, 200},
		"rate limited":            {`"retry_on":"5xx","num_retries":1`, answer("503", "x-envoy-ratelimited: 1\r\n"), 1, 503},
		"time of a try":           {`"retry_on":"5xx","num_retries":1,"per_try_timeout":"0.1s"`, silent, 2, 504},
		"none":                    {`"retry_on":"5xx","num_retries":0`, answer("500", ""), 1, 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tries atomic.Int64
			server := raw(t, func(conn net.Conn) {
				tries.Add(1)
				c.server(conn)
			})
			p := serve(t, routes(`{"match":{"prefix":"/"},"route":{"cluster":"main","timeout":"10s","retry_policy":{"retry_back_off":{"base_interval":"0.001s"},`+c.policy+`}}}`), map[string]string{"main": server}, nil)
			if r, body := ask(t, p.addr, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"); r.StatusCode != c.status || tries.Load() != c.tries {
				t.Errorf("%d %q after %d tries; want %d after %d", r.StatusCode, body, tries.Load(), c.status, c.tries)
			}
		})
	}
}

// A client that leaves ends what was asked in its name.
func TestClientLeaves(t *testing.T) {
	leakless(t)
	asked, ended := make(chan struct{}), make(chan struct{})
	server := raw(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		close(asked)
		_, _ = io.Copy(io.Discard, c)
		close(ended)
	})
	p := serve(t, routes(everything), map[string]string{"main": server}, nil)
	c := dial(t, p.addr)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
	<-asked
	c.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the server is asked still")
	}
}

// What a server says before its answer, and after its body, reaches the client; what
// HEAD asks for has no body.
func TestInformationAndTrailers(t *testing.T) {
	leakless(t)
	p := serve(t, routes(everything), map[string]string{"main": upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.Copy(w, r.Body)
		fmt.Fprint(w, "body")
		w.(http.Flusher).Flush()
		w.Header().Set("X-Sum", "4")
	})}, nil)
	c := dial(t, p.addr)
	defer c.Close()
	in := bufio.NewReader(c)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n")
	if r, err := http.ReadResponse(in, nil); err != nil || r.StatusCode != 103 || r.Header.Get("Link") != "</a>" {
		t.Fatal(r, err)
	}
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(r.Body); err != nil || string(body) != "body" || r.Trailer.Get("X-Sum") != "4" {
		t.Errorf("%q, %v, trailers %v", body, err, r.Trailer)
	}
	fmt.Fprint(c, "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
	// The server's 103 waits for no body, so that it may come before or after 100.
	informed := map[int]int{}
	for range 2 {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if informed[r.StatusCode]++; r.StatusCode == 100 {
			fmt.Fprint(c, "more")
		}
	}
	if want := map[int]int{100: 1, 103: 1}; !maps.Equal(informed, want) {
		t.Fatalf("informed %v times, want %v", informed, want)
	}
	if r, err = http.ReadResponse(in, nil); err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(r.Body); err != nil || string(body) != "morebody" {
		t.Errorf("%q, %v", body, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, _ := http.NewRequestWithContext(ctx, http.MethodHead, "http://"+p.addr, nil)
	if r, err = http.DefaultClient.Do(request); err != nil || r.StatusCode != 200 {
		t.Fatal(r, err)
	}
	r.Body.Close()
}
