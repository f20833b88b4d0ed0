package waypoint

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

const (
	forward = `{"match":{"prefix":"/"},"route":{"cluster":"main","timeout":"0s"}}`
	teapot  = `{"match":{"prefix":"/"},"direct_response":{"status":418}}`
	denyAll = `{"name":"rbac","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC","stat_prefix":"x","rules":{"action":"DENY","policies":{"nobody":{"permissions":[{"any":true}],"principals":[{"any":true}]}}}}},`
	denyOne = `{"name":"rbac","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC","stat_prefix":"x","rules":{"action":"DENY","policies":{"other":{"permissions":[{"destination_port":1}],"principals":[{"any":true}]}}}}},`
	mainOf  = `{"name":"main","type":"STATIC","load_assignment":{"cluster_name":"main","endpoints":[{"lb_endpoints":[{"endpoint":{"address":{"socket_address":{"address":"192.0.2.7","port_value":80}}}}]}]}}`
)

// httpChain is a chain of inline routes; more goes into its connection manager.
func httpChain(name, routes, more string) string {
	return fmt.Sprintf(`{"name":%q,"filters":[{"name":"hcm","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager","stat_prefix":"x",%s%s,
		"http_filters":[{"name":"envoy.filters.http.router","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}`, name, more, routes)
}

func table(list string) string {
	return `"route_config":{"name":"r","virtual_hosts":[{"name":"v","domains":["*"],"routes":[` + list + `]}]}`
}

func tcpChain(name, before string) string {
	return fmt.Sprintf(`{"name":%q,"filters":[%s{"name":"tcp","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy","stat_prefix":"x","cluster":"main"}}]}`, name, before)
}

// listen has the engine take the listener "l" with these chains, and the cluster "main".
func (w *world) listenWith(chains ...string) map[string]error {
	w.t.Helper()
	if w.clusters.Get("main") == nil {
		w.set(xds.ClusterType, "main", parse(w.t, []byte(mainOf), &clusterv3.Cluster{}))
	}
	l := parse(w.t, []byte(`{"name":"l","address":{"socket_address":{"address":"127.0.0.1","port_value":1}},"filter_chains":[`+strings.Join(chains, ",")+`]}`), &listenerv3.Listener{})
	return w.apply(xds.ListenerType, map[string]proto.Message{"l": l})
}

func (w *world) set(typeURL, name string, m proto.Message) {
	w.t.Helper()
	if refused := w.apply(typeURL, map[string]proto.Message{name: m}); len(refused) > 0 {
		w.t.Fatal(refused)
	}
}

func (w *world) open() (net.Conn, *bufio.Reader) {
	w.t.Helper()
	c, err := net.Dial("tcp", w.engine.Address("l").String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

// status sends GET / on a connection and returns what is answered.
func (w *world) status(c net.Conn, in *bufio.Reader) (int, string) {
	w.t.Helper()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"); err != nil {
		w.t.Fatal(err)
	}
	return w.answered(in)
}

func (w *world) answered(in *bufio.Reader) (int, string) {
	w.t.Helper()
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func (w *world) compiled(name string) any { return w.engine.listeners["l"].chains[name].slot.Chain() }

// Chains whose bytes are the same are not compiled again, whatever changes beside them.
func TestUnchangedChainsStay(t *testing.T) {
	w := newWorld(t)
	match := func(chain string, port int) string {
		return strings.Replace(chain, `"filters"`, fmt.Sprintf(`"filter_chain_match":{"destination_port":%d},"filters"`, port), 1)
	}
	if refused := w.listenWith(match(httpChain("a", table(forward), ""), 1), match(httpChain("b", table(forward), ""), 2)); len(refused) > 0 {
		t.Fatal(refused)
	}
	a, b := w.compiled("a"), w.compiled("b")
	w.listenWith(match(httpChain("a", table(forward), ""), 1), match(httpChain("b", table(teapot), ""), 2))
	if w.compiled("a") != a {
		t.Error("a chain that is the same was compiled again")
	}
	if w.compiled("b") == b {
		t.Error("a chain that changed was not compiled")
	}
}

// A request under way ends as it began; the next one on its connection is served by the
// new configuration, and the connections to servers stay.
func TestRequestsSeeOneConfiguration(t *testing.T) {
	w := newWorld(t)
	asked, let := make(chan struct{}, 10), make(chan struct{})
	w.answer = func(x codec.Exchange, _ string) {
		asked <- struct{}{}
		<-let
		say(x, 200, "old")
	}
	w.listenWith(httpChain("c", table(forward), ""))
	c, in := w.open()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
	<-asked
	w.listenWith(httpChain("c", table(teapot), ""))
	close(let)
	if status, body := w.answered(in); status != 200 || body != "old" {
		t.Errorf("the request under way: %d %q", status, body)
	}
	if status, _ := w.status(c, in); status != 418 {
		t.Errorf("the next one: %d", status)
	}
	for i := range 5 {
		w.listenWith(httpChain("c", table(forward), fmt.Sprintf(`"server_name":"s%d",`, i)))
		if status, _ := w.status(c, in); status != 200 {
			t.Errorf("after change %d: %d", i, status)
		}
	}
	if n := w.clusters.Get("main").Stats()["upstream_cx_total"]; n != 1 {
		t.Errorf("%d connections to the server over 6 changes", n)
	}
}

// Routes that a listener names may come before it and after it, and go.
func TestRoutesByName(t *testing.T) {
	w := newWorld(t)
	routes := func(list string) *routev3.RouteConfiguration {
		return parse(t, []byte(`{"name":"r","virtual_hosts":[{"name":"v","domains":["*"],"routes":[`+list+`]}]}`), &routev3.RouteConfiguration{})
	}
	const named = `"rds":{"route_config_name":"r","config_source":{"ads":{}}}`
	w.listenWith(httpChain("c", named, ""))
	c, in := w.open()
	if status, _ := w.status(c, in); status != 404 {
		t.Errorf("before its routes: %d", status)
	}
	w.set(xds.RouteType, "r", routes(forward))
	if status, _ := w.status(c, in); status != 200 {
		t.Errorf("with its routes: %d", status)
	}
	before := w.compiled("c")
	w.set(xds.RouteType, "r", routes(teapot))
	if status, _ := w.status(c, in); status != 418 {
		t.Errorf("with other routes: %d", status)
	}
	if w.compiled("c") != before {
		t.Error("a change of routes compiled the chain anew")
	}
	// What cannot be compiled changes nothing.
	if refused := w.apply(xds.RouteType, map[string]proto.Message{"r": routes(`{"match":{"safe_regex":{"regex":"("}},"direct_response":{"status":200}}`)}); refused["r"] == nil {
		t.Error("a broken regular expression was taken")
	}
	if status, _ := w.status(c, in); status != 418 {
		t.Errorf("after routes that were refused: %d", status)
	}
	w.apply(xds.RouteType, nil, "r")
	if status, _ := w.status(c, in); status != 404 {
		t.Errorf("without its routes: %d", status)
	}
	// Routes that are here first.
	w.apply(xds.ListenerType, nil, "l")
	w.set(xds.RouteType, "r", routes(teapot))
	w.listenWith(httpChain("c", named, ""))
	c, in = w.open()
	if status, _ := w.status(c, in); status != 418 {
		t.Errorf("routes first: %d", status)
	}
}

// A chain that cannot be enforced refuses with its reason until it is mended; the error
// names the listener's chain and field, and other chains serve.
func TestRefusedChains(t *testing.T) {
	w := newWorld(t)
	broken := strings.Replace(httpChain("c", table(forward), ""), `"http_filters":[`,
		`"http_filters":[{"name":"wasm","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"}},`, 1)
	for _, first := range []string{httpChain("c", table(forward), ""), broken} {
		w.listenWith(first)
		refused := w.listenWith(broken)
		if err := refused["l"]; err == nil || !strings.Contains(err.Error(), "filter chain c: filters[0] hcm: http_filters[0] wasm") {
			t.Errorf("refused with %v", err)
		}
		c, in := w.open()
		for range 2 {
			if status, body := w.status(c, in); status != 503 || !strings.Contains(body, "http_filters[0] wasm") {
				t.Errorf("%d %q", status, body)
			}
		}
		if refused := w.listenWith(broken); refused["l"] == nil {
			t.Error("the same bytes again were taken")
		}
		if refused := w.listenWith(httpChain("c", table(forward), "")); len(refused) > 0 {
			t.Error(refused)
		}
		if status, _ := w.status(c, in); status != 200 {
			t.Errorf("mended: %d", status)
		}
	}
	// Of a TCP chain the connections are reset.
	if refused := w.listenWith(tcpChain("t", `{"name":"x","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz"}},`)); refused["l"] == nil {
		t.Error("an unknown network filter was passed over")
	}
	c, in := w.open()
	_, _ = io.WriteString(c, "\x00\x01\x02 is no HTTP")
	if b, err := in.ReadByte(); err == nil {
		t.Errorf("it says %q", b)
	}
	// A field that is not known makes a policy unknown.
	l := parse(t, []byte(`{"name":"l","address":{"socket_address":{"address":"127.0.0.1","port_value":1}},"filter_chains":[`+tcpChain("t", denyOne)+`]}`), &listenerv3.Listener{})
	any := l.FilterChains[0].Filters[0].GetTypedConfig()
	any.Value = append(any.Value, 0xfa, 0x3f, 0) // field 1023
	if refused := w.apply(xds.ListenerType, map[string]proto.Message{"l": l}); refused["l"] == nil || !strings.Contains(refused["l"].Error(), "not known") {
		t.Errorf("a policy with a field of the future: %v", refused)
	}
}

// A TCP connection lives through changes that allow it, and ends with one that refuses
// it: of its chain's policy, or of those that hold for the server.
func TestLiveConnections(t *testing.T) {
	w := newWorld(t)
	w.listenWith(tcpChain("t", ""))
	open := func() func() error {
		c, in := w.open()
		echo := func() error {
			if _, err := io.WriteString(c, "\x00ping\n"); err != nil {
				return err
			}
			_, err := in.ReadString('\n')
			return err
		}
		if err := echo(); err != nil {
			t.Fatal(err)
		}
		return echo
	}
	echo := open()
	w.listenWith(tcpChain("t", denyOne))
	if err := echo(); err != nil {
		t.Errorf("a change that allows it: %v", err)
	}
	w.listenWith(tcpChain("t", denyAll))
	if err := echo(); err == nil {
		t.Error("a policy that refuses it: it goes on")
	}
	if c, err := net.Dial("tcp", w.engine.Address("l").String()); err == nil { // it may be reset even before it is known
		_, _ = io.WriteString(c, "\x00ping\n")
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a new one is served")
		}
		c.Close()
	}
	w.listenWith(tcpChain("t", ""))
	echo = open()
	w.engine.Review()
	if err := echo(); err != nil {
		t.Errorf("a look at it: %v", err)
	}
	denied := errors.New("deny-all")
	w.deny.Store(&denied)
	w.engine.Review()
	if err := echo(); err == nil {
		t.Error("a policy of the server refuses it: it goes on")
	}
}

// A listener that is removed takes no more, and what it serves ends in order.
func TestRemovedListenersDrain(t *testing.T) {
	w := newWorld(t)
	asked, let := make(chan struct{}, 10), make(chan struct{})
	w.answer = func(x codec.Exchange, _ string) {
		asked <- struct{}{}
		<-let
		say(x, 200, "done")
	}
	w.listenWith(httpChain("c", table(forward), ""))
	address := w.engine.Address("l").String()
	var readers []*bufio.Reader
	for range 10 {
		c, in := w.open()
		readers = append(readers, in)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
		<-asked
	}
	w.apply(xds.ListenerType, nil, "l")
	eventually(t, "it takes no more", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(let)
	for _, in := range readers {
		if status, body := w.answered(in); status != 200 || body != "done" {
			t.Errorf("a request under way: %d %q", status, body)
		}
	}
}

// Requests for a cluster that is gone are answered, and it may come back.
func TestRemovedClusters(t *testing.T) {
	w := newWorld(t)
	w.listenWith(httpChain("c", table(forward), ""))
	c, in := w.open()
	for range 3 {
		if status, body := w.status(c, in); status != 200 {
			t.Errorf("%d %q", status, body)
		}
		w.apply(xds.ClusterType, nil, "main")
		if status, _ := w.status(c, in); status != 503 {
			t.Errorf("without its cluster: %d", status)
		}
		w.set(xds.ClusterType, "main", parse(t, []byte(mainOf), &clusterv3.Cluster{}))
	}
}

// Fields that this build does not know are passed over and counted, where they are no
// policy's.
func TestUnknownFields(t *testing.T) {
	w := newWorld(t)
	w.listenWith(httpChain("c", table(forward), ""))
	if n := w.engine.Stats()["fairlead.config.unknown_fields"]; n != 0 {
		t.Errorf("%d without one", n)
	}
	future := []byte{0xfa, 0x3f, 0} // field 1023
	l := parse(t, []byte(`{"name":"l","address":{"socket_address":{"address":"127.0.0.1","port_value":1}},"filter_chains":[`+httpChain("c", table(teapot), "")+`]}`), &listenerv3.Listener{})
	any := l.FilterChains[0].Filters[0].GetTypedConfig()
	any.Value = append(any.Value, future...)
	c := parse(t, []byte(mainOf), &clusterv3.Cluster{})
	c.ProtoReflect().SetUnknown(future)
	w.set(xds.ListenerType, "l", l)
	w.set(xds.ClusterType, "main", c)
	if n := w.engine.Stats()["fairlead.config.unknown_fields"]; n != 2 {
		t.Errorf("%d counted, want 2", n)
	}
	if status, _ := w.status(w.open()); status != 418 {
		t.Errorf("the chain answers %d", status)
	}
}

// A TCP connection is carried with each side's end in its turn; what ends abruptly ends
// so on the other side, and what is idle, or does not read, is let go.
func TestTCP(t *testing.T) {
	w := newWorld(t)
	w.listenWith(tcpChain("t", ""))
	c, in := w.open()
	big := "\x00" + strings.Repeat("0123456789", 300_000)
	go func() {
		_, _ = io.WriteString(c, big)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(in); err != nil || string(got) != big {
		t.Errorf("%d bytes of %d, %v", len(got), len(big), err)
	}
	if r := w.tcpRecorded(0); r.BytesSent != uint64(len(big)) || r.BytesReceived != uint64(len(big)) || r.Flags != 0 {
		t.Errorf("recorded as %d and %d bytes, %v", r.BytesReceived, r.BytesSent, r.Flags)
	}
	idle := strings.Replace(tcpChain("t", ""), `"stat_prefix":"x"`, `"stat_prefix":"x","idle_timeout":"0.3s"`, 1)
	w.listenWith(idle)
	c, in = w.open()
	_, _ = io.WriteString(c, "\x00ping\n")
	if line, err := in.ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("it goes on")
	}
	if r := w.tcpRecorded(1); r.Flags.String() != "SI" {
		t.Errorf("recorded with %v", r.Flags)
	}
	c, _ = w.open() // which reads nothing
	for {
		_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(c, big); err != nil {
			break
		}
	}
	w.tcpRecorded(2)
	c, in = w.open()
	_, _ = io.WriteString(c, "\x00ping\n")
	_, _ = in.ReadString('\n')
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
	w.tcpRecorded(3)
	eventually(t, "the server's connections are closed", func() bool { return w.clusters.Get("main").Stats()["upstream_cx_active"] == 0 })
	// Without its cluster.
	w.apply(xds.ClusterType, nil, "main")
	if c, err := net.Dial("tcp", w.engine.Address("l").String()); err == nil {
		_, _ = io.WriteString(c, "\x00ping\n")
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a server that is not known answers")
		}
		c.Close()
	}
	if r := w.tcpRecorded(4); r.Flags.String() != "NC" {
		t.Errorf("recorded with %v", r.Flags)
	}
}
