package waypoint_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/router"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// silent records nothing.
type silent struct{}

func (silent) HTTP(waypoint.HTTPLoggers) ([]hcm.Recorder, error) { return nil, nil }
func (silent) TCP(waypoint.TCPLoggers) ([]hcm.Recorder, error)   { return nil, nil }

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

// proxy is an engine with one listener on loopback.
type proxy struct {
	addr   string
	engine *waypoint.Engine
}

// serve starts an engine. manager is the connection manager in protojson, without what
// every one has; clusters are addresses by name.
func serve(t *testing.T, manager string, clusters map[string]string, authorize router.Authorizer) *proxy {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	dial := func(ctx context.Context, to netip.AddrPort) (codec.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", to.String())
		if err != nil {
			return nil, err
		}
		return codec.TCPConn{TCPConn: c.(*net.TCPConn)}, nil
	}
	m, err := cluster.NewManager(cluster.Options{Dial: dial, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e, err := waypoint.New(waypoint.Options{
		Clusters: m, Recorders: silent{}, Logger: log, Authorize: authorize, Listen: func(string) (net.Listener, error) { return l, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		e.Drain(ctx, 0)
	})
	for name, addr := range clusters {
		a := netip.MustParseAddrPort(addr)
		apply(t, e, &clusterv3.Cluster{}, fmt.Sprintf(`{"name":%q,"type":"STATIC","load_assignment":{"cluster_name":%q,"endpoints":[{"lb_endpoints":[
			{"endpoint":{"address":{"socket_address":{"address":%q,"port_value":%d}}}}]}]}}`, name, name, a.Addr(), a.Port()))
	}
	if !strings.Contains(manager, "http_filters") {
		manager += `,"http_filters":[{"name":"envoy.filters.http.router","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]`
	}
	apply(t, e, &listenerv3.Listener{}, `{"name":"l","address":{"socket_address":{"address":"127.0.0.1","port_value":1}},"filter_chains":[{"name":"c","filters":[
		{"name":"hcm","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager","stat_prefix":"x",`+manager+`}}]}]}`)
	return &proxy{addr: l.Addr().String(), engine: e}
}

func apply(t *testing.T, e *waypoint.Engine, m proto.Message, text string) {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if err := e.Apply(m); err != nil {
		t.Fatal(err)
	}
}

// routes is a route configuration with these routes, in protojson.
func routes(list string) string {
	return `"route_config":{"name":"r","virtual_hosts":[{"name":"v","domains":["*"],"routes":[` + list + `]}]}`
}

// upstream is a server that counts and does as told.
func upstream(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handle}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); {
		if time.Now().After(end) {
			t.Fatal(what)
		}
		<-time.After(time.Millisecond)
	}
}

// A policy of layer 4 holds for copies of requests as for the requests themselves: a
// mirror is no way to who may not be called.
func TestMirrorsAreAuthorized(t *testing.T) {
	var main, denied, allowed atomic.Int64
	count := func(n *atomic.Int64) http.HandlerFunc { return func(http.ResponseWriter, *http.Request) { n.Add(1) } }
	closed := upstream(t, count(&denied))
	p := serve(t, routes(`{"match":{"prefix":"/"},"route":{"cluster":"main","request_mirror_policies":[{"cluster":"closed"},{"cluster":"open"}]}}`),
		map[string]string{"main": upstream(t, count(&main)), "closed": closed, "open": upstream(t, count(&allowed))},
		func(_ *streaminfo.Connection, to netip.AddrPort, _ bool) error {
			if to.String() == closed {
				return errors.New("denied")
			}
			return nil
		})
	for range 20 {
		r, err := http.Get("http://" + p.addr)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
	}
	eventually(t, "the other mirror got no copies", func() bool { return allowed.Load() == 20 })
	if main.Load() != 20 || denied.Load() != 0 {
		t.Errorf("%d requests, %d copies to who may not be called", main.Load(), denied.Load())
	}
}

// raw is a server of bytes: one connection at a time.
func raw(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
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
				handle(c)
			}()
		}
	}()
	return l.Addr().String()
}

// A server that answers and takes no more of a request's body is heard all the same,
// and so is the end of its answer.
func TestUpstreamThatDoesNotRead(t *testing.T) {
	more := make(chan struct{})
	server := raw(t, func(c net.Conn) {
		head := bufio.NewReader(c)
		for line := "x"; line != "\r\n"; line, _ = head.ReadString('\n') {
		}
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
		<-more
		fmt.Fprint(c, "5\r\nworld\r\n0\r\n\r\n")
		<-t.Context().Done()
	})
	p := serve(t, routes(`{"match":{"prefix":"/"},"route":{"cluster":"main"}}`), map[string]string{"main": server}, nil)
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
	full := make(chan struct{})
	go func() { // more than all buffers on the way hold
		chunk := []byte("8000\r\n" + strings.Repeat("x", 0x8000) + "\r\n")
		for {
			_ = c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			if _, err := c.Write(chunk); err != nil {
				close(full)
				return
			}
		}
	}()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	in := bufio.NewReader(c)
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	hello := make([]byte, 5)
	if _, err := io.ReadFull(r.Body, hello); err != nil || string(hello) != "hello" {
		t.Fatalf("%q, %v", hello, err)
	}
	<-full
	close(more)
	if rest, err := io.ReadAll(r.Body); err != nil || string(rest) != "world" {
		t.Fatalf("after the upload was stuck: %q, %v", rest, err)
	}
}

// A body that is kept is whole in the next try; a server that does not take it holds
// nobody beyond the try's time.
func TestKeptBodies(t *testing.T) {
	body := strings.Repeat("0123456789", 90_000) // under what is kept, over what sockets take
	for _, reads := range []bool{true, false} {
		var tries atomic.Int64
		server := raw(t, func(c net.Conn) {
			for in := bufio.NewReader(c); ; {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				try := tries.Add(1)
				if try > 1 && !reads {
					<-t.Context().Done()
					return
				}
				got, err := io.ReadAll(r.Body)
				if err != nil || string(got) != body {
					t.Errorf("%d bytes of %d, %v", len(got), len(body), err)
				}
				if try == 1 {
					fmt.Fprint(c, "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
				} else {
					fmt.Fprint(c, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
				}
			}
		})
		p := serve(t, routes(`{"match":{"prefix":"/"},"route":{"cluster":"main","timeout":"2s","retry_policy":{"retry_on":"5xx","num_retries":1}}}`), map[string]string{"main": server}, nil)
		client := http.Client{Timeout: patience}
		r, err := client.Post("http://"+p.addr, "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if want := map[bool]int{true: 200, false: 504}[reads]; r.StatusCode != want || tries.Load() != 2 {
			t.Errorf("a server that reads (%t): %d after %d tries, want %d", reads, r.StatusCode, tries.Load(), want)
		}
	}
}
