// Package hostile sends the shipped waypoint what nobody should send, while a
// neighbour's requests go on: each attack ends in a clear answer or a reset, memory
// stays bounded, and the neighbour notices nothing.
package hostile

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// mostMemory bounds the waypoint's resident memory through all of it, in bytes. Ten
// thousand connections that have begun a head hold a buffer each.
const mostMemory = 384 << 20

// patience is how long what should end may last.
const patience = 60 * time.Second

// waypoint is the process.
type waypoint struct {
	t    *testing.T
	addr string
	pid  int
	log  bytes.Buffer
}

const bootstrap = `
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          codec_type: %s
          request_headers_timeout: 5s
          stream_idle_timeout: 3s
          common_http_protocol_options: {idle_timeout: 4s}
          normalize_path: true
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config:
            name: r
            virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {path: /hello}, route: {cluster: up, timeout: 0s, idle_timeout: 30s}}, {match: {prefix: /kept}, route: {cluster: up, timeout: 0s, retry_policy: {retry_on: 5xx}}}, {match: {prefix: /}, route: {cluster: up, timeout: 0s}}]}]
  clusters:
  - name: up
    type: STATIC
    circuit_breakers: {thresholds: [{max_connections: 4000, max_requests: 4000, max_pending_requests: 4000}]}
    load_assignment:
      cluster_name: up
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
`

// start builds the waypoint and runs it before an upstream. codec is the codec_type of
// its listener.
func start(t *testing.T, codec, upstream string) *waypoint {
	t.Helper()
	limit := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "waypoint")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/fairlead-mesh/fairlead/cmd/waypoint").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	port := func() int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port
	}
	_, up, _ := net.SplitHostPort(upstream)
	upPort, err := strconv.Atoi(up)
	if err != nil {
		t.Fatal(err)
	}
	in, file := port(), filepath.Join(dir, "bootstrap.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, bootstrap, in, codec, upPort), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &waypoint{t: t, addr: fmt.Sprintf("127.0.0.1:%d", in)}
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", port()) }
	cmd := exec.Command(binary, "--bootstrap", file, "--admin-address", address(), "--metrics-address", address(), "--readiness-address", address(), "--drain", "1s")
	cmd.Stdout, cmd.Stderr = &w.log, &w.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		err := cmd.Wait()
		if err != nil || t.Failed() {
			t.Errorf("the waypoint ended with %v\n%.4000s", err, w.log.String())
		}
	})
	w.until("it serves", func() bool {
		c, err := net.Dial("tcp", w.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return w
}

func (w *waypoint) until(what string, holds func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-end:
			w.t.Fatal("never: " + what)
		}
	}
}

// memory is the process's resident memory, now and at most, in bytes.
func (w *waypoint) memory() (now, most int) {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.pid))
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.Atoi(fields[1])
		switch fields[0] {
		case "VmRSS:":
			now = n << 10
		case "VmHWM:":
			most = n << 10
		}
	}
	return now, most
}

func (w *waypoint) dial() (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", w.addr, patience)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(patience))
}

// neighbour asks all the time, on connections of its own, until stop, which returns how
// often it was answered, how long that took at most, and what went wrong.
func (w *waypoint) neighbour() (stop func() (answered int64, slowest time.Duration, failures []string)) {
	ctx, cancel := context.WithCancel(context.Background())
	var answered, slowest atomic.Int64
	failed := make(chan string, 1000)
	done := make(chan struct{})
	const clients = 4
	for range clients {
		go func() {
			defer func() { done <- struct{}{} }()
			transport := &http.Transport{MaxIdleConnsPerHost: 1}
			defer transport.CloseIdleConnections()
			client := http.Client{Transport: transport, Timeout: patience}
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				<-tick.C
				begun := time.Now()
				r, err := client.Get("http://" + w.addr + "/hello")
				if err == nil {
					var body []byte
					body, err = io.ReadAll(r.Body)
					r.Body.Close()
					if err == nil && (r.StatusCode != 200 || string(body) != "hello") {
						err = fmt.Errorf("%d %q", r.StatusCode, body)
					}
				}
				if err == nil {
					answered.Add(1)
					for took := int64(time.Since(begun)); ; {
						if most := slowest.Load(); took <= most || slowest.CompareAndSwap(most, took) {
							break
						}
					}
					continue
				}
				select {
				case failed <- err.Error():
				default:
				}
			}
		}()
	}
	return func() (int64, time.Duration, []string) {
		cancel()
		for range clients {
			<-done
		}
		close(failed)
		var out []string
		for f := range failed {
			out = append(out, f)
		}
		return answered.Load(), time.Duration(slowest.Load()), out
	}
}

// upstream is a server of the waypoint's cluster; paths are what it does. smuggled
// counts requests that no client has sent.
func upstream(t *testing.T) (addr string, smuggled *atomic.Int64) {
	t.Helper()
	smuggled = &atomic.Int64{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewReader(c); ; {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if strings.Contains(r.URL.Path, "smuggled") || r.Header.Get("X-Smuggled") != "" {
						smuggled.Add(1)
					}
					if r.URL.Path == "/stuck" { // nothing more is read
						_ = c.(*net.TCPConn).SetReadBuffer(4096) // nor much by the kernel
						stuck.Add(1)
						<-unstick
						return
					}
					if _, err := io.Copy(io.Discard, r.Body); err != nil || !serve(c, r.URL.Path) {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), smuggled
}

// stuck is how many requests have come whose bodies are not read, until unstick.
var (
	stuck   atomic.Int64
	unstick = make(chan struct{})
)

// endless is how many bodies without an end are being sent.
var endless atomic.Int64

// serve does what a path says, and tells whether the connection may go on.
func serve(c net.Conn, path string) bool {
	const ok = "HTTP/1.1 200 OK\r\n"
	switch path {
	case "/garbage":
		_, _ = io.WriteString(c, "\x00\xff\x7fnot HTTP at all\r\n\r\n")
	case "/huge-head":
		_, _ = io.WriteString(c, ok+"x: "+strings.Repeat("x", 4<<20)+"\r\n\r\n")
	case "/many-fields":
		_, _ = io.WriteString(c, ok+strings.Repeat("x: 1\r\n", 100_000)+"\r\n")
	case "/endless-informs":
		for {
			if _, err := io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"); err != nil {
				return false
			}
		}
	case "/two-lengths":
		_, _ = io.WriteString(c, ok+"content-length: 3\r\ncontent-length: 5\r\n\r\nhello")
	case "/both-lengths":
		_, _ = io.WriteString(c, ok+"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	case "/half-head":
		_, _ = io.WriteString(c, ok+"content-le")
	case "/nothing":
	case "/endless":
		endless.Add(1)
		defer endless.Add(-1)
		_, _ = io.WriteString(c, ok+"transfer-encoding: chunked\r\n\r\n")
		chunk := "10000\r\n" + strings.Repeat("x", 1<<16) + "\r\n"
		for {
			if _, err := io.WriteString(c, chunk); err != nil {
				return false
			}
		}
	default:
		_, _ = io.WriteString(c, ok+"content-length: 5\r\n\r\nhello")
		return true
	}
	return false
}
