package waypoint

import (
	"crypto/tls"
	"io"
	"net"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// The server that a TLS hello names is looked up and reached at the filter's port; a
// connection that names none is refused.
func TestServersByTheirNames(t *testing.T) {
	w := newWorld(t)
	w.plain = w.listen(func(c net.Conn) {
		defer c.Close()
		_, _ = io.CopyN(c, c, 1)
	})
	w.set(xds.ClusterType, "main", parse(t, []byte(`{"name":"main","lb_policy":"CLUSTER_PROVIDED","cluster_type":{"name":"d","typed_config":{"@type":"type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig","dns_cache_config":{"name":"c"}}}}`), &clusterv3.Cluster{}))
	const byName = `{"name":"sni","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig","port_value":8443,"dns_cache_config":{"name":"c"}}},`
	l := parse(t, []byte(`{"name":"l","address":{"socket_address":{"address":"127.0.0.1","port_value":1}},
"listener_filters":[{"name":"tls","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}],"filter_chains":[`+tcpChain("t", byName)+`]}`), &listenerv3.Listener{})
	if refused := w.apply(xds.ListenerType, map[string]proto.Message{"l": l}); len(refused) > 0 {
		t.Fatal(refused)
	}
	c, in := w.open()
	if _, err := c.Write(hello(t, "a.wild.example")); err != nil {
		t.Fatal(err)
	}
	// The hello comes to the server as it is, which sends its first byte back.
	if first, err := in.ReadByte(); err != nil || first != 0x16 {
		t.Fatalf("a name: %x, %v", first, err)
	}
	if got := w.tcpRecorded(0).UpstreamRemote.String(); got != "192.0.2.1:8443" {
		t.Errorf("connected to %s", got)
	}
	c, in = w.open()
	_, _ = io.WriteString(c, "\x00no hello\n")
	if _, err := in.ReadByte(); err == nil {
		t.Error("a connection without a name is served")
	}
}

// hello is what a client of TLS sends first.
func hello(t *testing.T, name string) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	go func() { _ = tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake() }() //nolint:gosec // it never ends
	buf := make([]byte, 16<<10)
	n, err := server.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}
