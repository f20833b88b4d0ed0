package waypoint_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// A client that does not end its request, and a server that says nothing, are answered
// for by the first of the timeouts; each is counted under its name.
func TestTimeouts(t *testing.T) {
	leakless(t)
	head, body, whole := "GET / HTTP/1.1\r\nhost: a\r\nx-", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhello", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"
	for name, c := range map[string]struct {
		manager, route, request string
		status                  int
		text, stat              string
	}{
		"a head, request_timeout":         {`"request_timeout":"0.2s"`, ``, head, 408, "request timeout", "downstream_rq_timeout"},
		"a head, request_headers_timeout": {`"request_headers_timeout":"0.2s","request_timeout":"9s"`, ``, head, 408, "request header timeout", "downstream_rq_header_timeout"},
		"a head, stream_idle_timeout":     {`"stream_idle_timeout":"0.2s"`, ``, head, 408, "stream timeout", "downstream_rq_idle_timeout"},
		"a head, max_stream_duration":     {`"common_http_protocol_options":{"max_stream_duration":"0.2s"}`, ``, head, 408, "downstream duration timeout", "downstream_rq_max_duration_reached"},
		"a body, request_timeout":         {`"request_timeout":"0.2s","request_headers_timeout":"0.1s"`, ``, body, 408, "request timeout", "downstream_rq_timeout"},
		"a body, per_try_idle_timeout":    {`"request_timeout":"0.2s"`, `,"retry_policy":{"retry_on":"reset","per_try_idle_timeout":"0.1s"}`, body, 408, "request timeout", "downstream_rq_timeout"},
		"a server, request_timeout":       {`"request_timeout":"0.1s","stream_idle_timeout":"0.5s"`, ``, whole, 504, "stream timeout", "downstream_rq_idle_timeout"},
		"a server, per_try_idle_timeout":  {`"request_timeout":"0.1s"`, `,"retry_policy":{"retry_on":"5xx","num_retries":1,"per_try_idle_timeout":"0.2s"}`, whole, 504, "upstream request timeout", "downstream_rq_5xx"},
	} {
		t.Run(name, func(t *testing.T) {
			server := raw(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
			p := serve(t, c.manager+","+routes(`{"match":{"prefix":"/"},"route":{"cluster":"main","timeout":"0s"`+c.route+`}}`), map[string]string{"main": server}, nil)
			r, text := ask(t, p.addr, c.request)
			if r.StatusCode != c.status || text != c.text {
				t.Errorf("%d %q, want %d %q", r.StatusCode, text, c.status, c.text)
			}
			eventually(t, "counted once", func() bool { return p.engine.Stats()["http.x."+c.stat] == 1 })
			if n := p.engine.Stats()["http.x.downstream_rq_total"]; n != 1 {
				t.Errorf("%d requests counted", n)
			}
		})
	}
}

// Each try has a time in which something of its answer has to come, from one piece of it
// to the next as well.
func TestTryThatPauses(t *testing.T) {
	leakless(t)
	var tries atomic.Int64
	server := raw(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		if tries.Add(1) > 1 {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
		}
		_, _ = io.Copy(io.Discard, c)
	})
	p := serve(t, routes(`{"match":{"prefix":"/"},"route":{"cluster":"main","timeout":"0s","retry_policy":{"retry_on":"5xx","num_retries":3,"per_try_idle_timeout":"1s","retry_back_off":{"base_interval":"0.001s"}}}}`), map[string]string{"main": server}, nil)
	c := dial(t, p.addr)
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err == nil || r.StatusCode != 200 || string(b) != "hello" || tries.Load() != 2 {
		t.Errorf("%d %q, %v after %d tries; want a body that breaks in the second", r.StatusCode, b, err, tries.Load())
	}
}

// A response that never pauses ends with its time all the same, as does a WebSocket.
func TestLimitsOfWhatNeverPauses(t *testing.T) {
	leakless(t)
	for name, c := range map[string]struct{ manager, route, request, answer string }{
		"timeout":                        {``, `"timeout":"0.3s"`, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"},
		"max_stream_duration":            {`"common_http_protocol_options":{"max_stream_duration":"0.3s"},`, `"timeout":"0s"`, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"},
		"max_stream_duration, WebSocket": {`"common_http_protocol_options":{"max_stream_duration":"0.3s"},` + webSocket, `"timeout":"0s"`, fmt.Sprintf(upgrade, "/"), "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			server := raw(t, func(s net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(s)); err != nil {
					return
				}
				text := c.answer
				for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
					if _, err := io.WriteString(s, text); err != nil {
						return
					}
					text = "more"
				}
			})
			p := serve(t, c.manager+routes(`{"match":{"prefix":"/"},"route":{"cluster":"main",`+c.route+`}}`), map[string]string{"main": server}, nil)
			conn := dial(t, p.addr)
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			fmt.Fprint(conn, c.request)
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("it goes on")
			}
		})
	}
}

// Nor does a client that does not read keep a response longer than its time.
func TestLimitsOfWhatIsNotRead(t *testing.T) {
	leakless(t)
	for name, c := range map[string]struct{ manager, route string }{
		"timeout":             {``, `"timeout":"0.3s"`},
		"max_stream_duration": {`"common_http_protocol_options":{"max_stream_duration":"0.3s"},`, `"timeout":"0s"`},
	} {
		t.Run(name, func(t *testing.T) {
			server := raw(t, func(s net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
					fmt.Fprint(s, "HTTP/1.1 200 OK\r\n\r\n")
					for err == nil {
						_, err = s.Write(make([]byte, 1<<20))
					}
				}
			})
			p := serve(t, c.manager+routes(`{"match":{"prefix":"/"},"route":{"cluster":"main",`+c.route+`}}`), map[string]string{"main": server}, nil)
			conn := dial(t, p.addr)
			defer conn.Close()
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
			eventually(t, "it ends", func() bool {
				s := p.engine.Stats()
				return s["http.x.downstream_rq_total"] == 1 && s["http.x.downstream_rq_active"] == 0
			})
		})
	}
}
