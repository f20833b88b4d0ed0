package waypoint

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// client is an HTTP/1.1 connection.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

// parkedClients are connections that had an answer each, and that no goroutine serves.
func (w *world) parkedClients(n int) (all []client) {
	w.t.Helper()
	for range n {
		c, in := w.open()
		w.status(c, in)
		all = append(all, client{c, in})
	}
	w.parked()
	if got := w.engine.listeners["l"].active(); got != int64(n) {
		w.t.Errorf("%d connections are counted, of %d", got, n)
	}
	return all
}

// parked waits until no goroutine serves HTTP/1.
func (w *world) parked() {
	w.t.Helper()
	eventually(w.t, "the connections parked", func() bool {
		var goroutines bytes.Buffer
		if err := pprof.Lookup("goroutine").WriteTo(&goroutines, 1); err != nil {
			w.t.Fatal(err)
		}
		return !strings.Contains(goroutines.String(), "http1Server")
	})
}

// Connections that are quiet hold no goroutine. They follow changes, and end with one
// that refuses them, as others do.
func TestParkedConnections(t *testing.T) {
	w := newWorld(t)
	w.listenWith(httpChain("c", table(teapot), ""))
	all := w.parkedClients(20)
	w.listenWith(httpChain("c", table(strings.Replace(teapot, "418", "410", 1)), ""))
	for _, c := range all {
		if status, _ := w.status(c.conn, c.in); status != 410 {
			t.Errorf("status %d after a change of routes", status)
		}
	}
	w.parked()
	w.listenWith(strings.Replace(httpChain("c", table(teapot), ""), `"filters":[`, `"filters":[`+denyAll, 1))
	for _, c := range all {
		if _, err := c.in.ReadByte(); err == nil {
			t.Error("a policy refuses it: it goes on")
		}
	}
	eventually(t, "all have ended", func() bool { return w.engine.listeners["l"].active() == 0 })
}

// A drain does not wait for what is parked.
func TestParkedConnectionsDrain(t *testing.T) {
	w := newWorld(t)
	w.listenWith(httpChain("c", table(teapot), ""))
	all := w.parkedClients(20)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w.engine.Drain(ctx, 0)
	if ctx.Err() != nil {
		t.Error("it waited until it was told not to")
	}
	for _, c := range all {
		if _, err := c.in.ReadByte(); err == nil || strings.Contains(err.Error(), "reset") {
			t.Errorf("a connection ended with %v", err)
		}
	}
}

// tunnels has the engine take tunnels, whose contents the chains serve.
func (w *world) tunnels(chains ...string) {
	w.t.Helper()
	terminate := parse(w.t, []byte(`{"name":"connect_terminate","address":{"socket_address":{"address":"127.0.0.1","port_value":15008}},"filter_chains":[{"name":"default",
		"transport_socket":{"name":"tls","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext","require_client_certificate":true,"common_tls_context":{}}},
		"filters":[{"name":"hcm","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager","stat_prefix":"x",
		"route_config":{"name":"r","virtual_hosts":[{"name":"v","domains":["*"],"routes":[{"match":{"connect_matcher":{}},"route":{"cluster":"main_internal","upgrade_configs":[{"upgrade_type":"CONNECT","connect_config":{}}]}}]}]},
		"http_filters":[{"name":"envoy.filters.http.router","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}`), &listenerv3.Listener{})
	main := parse(w.t, []byte(`{"name":"main_internal","internal_listener":{},"filter_chains":[`+strings.Join(chains, ",")+`]}`), &listenerv3.Listener{})
	w.set(xds.ListenerType, "main_internal", main)
	w.set(xds.ListenerType, "connect_terminate", terminate)
}

// Clients within tunnels park as others do, and end with a policy that refuses them.
func TestParkedTunnels(t *testing.T) {
	w := newWorld(t)
	w.tunnels(httpChain("c", table(teapot), ""))
	var all []client
	for range 20 {
		c, err := w.connect("10.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		all = append(all, client{c, bufio.NewReader(c)})
		w.status(c, all[len(all)-1].in)
	}
	for range 2 {
		w.parked()
		for _, c := range all {
			if status, _ := w.status(c.conn, c.in); status != 418 {
				t.Errorf("status %d", status)
			}
		}
	}
	w.parked()
	w.tunnels(strings.Replace(httpChain("c", table(teapot), ""), `"filters":[`, `"filters":[`+denyAll, 1))
	for _, c := range all {
		if _, err := c.in.ReadByte(); err == nil {
			t.Error("a policy refuses it: it goes on")
		}
	}
}
