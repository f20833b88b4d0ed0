package waypoint

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// denyLate is what the control plane sends for a DENY on requests where the protocol
// of a port is detected, for a detection of a second.
const denyLate = `{"name":"waited","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config","on_new_connection":[{"object_key":"fairlead.dev/waited","factory_key":"envoy.string","format_string":{"text_format_source":{"inline_string":"%DURATION%"}}}]}},
{"name":"rbac","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC","stat_prefix":"x","rules":{"action":"DENY","policies":{"late":{"permissions":[{"any":true}],"principals":[{"not_id":{"filter_state":{"key":"fairlead.dev/waited","string_match":{"safe_regex":{"regex":"[0-9]{1,2}|[0-4][0-9]{2}"}}}}}]}}}}},`

// detected is a chain for what begins with a request.
var detected = `{"filter_chain_match":{"application_protocols":["http/1.1","h2c"]},` + httpChain("h", table(forward), "")[1:]

// detect has the engine take the listener "l" with these chains, and look at what
// connections begin with.
func (w *world) detect(timeout string, chains ...string) {
	w.t.Helper()
	l := parse(w.t, []byte(`{"name":"l","address":{"socket_address":{"address":"127.0.0.1","port_value":1}},"listener_filters_timeout":"`+timeout+`","continue_on_listener_filters_timeout":true,
"listener_filters":[{"name":"http","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"}}],"filter_chains":[`+strings.Join(chains, ",")+`]}`), &listenerv3.Listener{})
	if refused := w.apply(xds.ListenerType, map[string]proto.Message{"l": l}); len(refused) > 0 {
		w.t.Fatal(refused)
	}
}

// Where the first bytes decide nothing they are not waited for: the server of a port that
// is declared speaks first, though others are looked at.
func TestServersSpeakFirstWhereNothingIsDetected(t *testing.T) {
	w := newWorld(t)
	w.set(xds.ClusterType, "main", parse(t, []byte(mainOf), &clusterv3.Cluster{}))
	w.plain = w.listen(func(c net.Conn) {
		defer c.Close()
		_, _ = io.WriteString(c, "hello")
		_, _ = io.Copy(io.Discard, c)
	})
	w.detect("600s", tcpChain("t", ""))
	_, in := w.open()
	if _, err := io.ReadFull(in, make([]byte, 5)); err != nil {
		t.Error(err)
	}
}

// A connection that was waited for in vain is denied, also if the policy comes
// later, and one that began in time goes on.
func TestLateConnectionsAreDenied(t *testing.T) {
	w := newWorld(t)
	w.set(xds.ClusterType, "main", parse(t, []byte(mainOf), &clusterv3.Cluster{}))
	listen := func(chain string) { w.detect("1s", chain, detected) }
	w.plain = w.listen(func(c net.Conn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	echo := func(c net.Conn, in *bufio.Reader, text string) error {
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
		_, err := io.ReadFull(in, make([]byte, len(text)))
		return err
	}
	listen(tcpChain("t", ""))
	early, fromEarly := w.open()
	if err := echo(early, fromEarly, "\x00ping\n"); err != nil {
		t.Fatal(err)
	}
	// The beginning of a method could become a request until the time is over.
	late, fromLate := w.open()
	if err := echo(late, fromLate, "G"); err != nil {
		t.Fatal("without a policy: ", err)
	}
	listen(tcpChain("t", denyLate))
	if err := echo(early, fromEarly, "ping\n"); err != nil {
		t.Errorf("one that began in time, when the policy comes: %v", err)
	}
	if err := echo(late, fromLate, "ET /admin HTTP/1.1\r\n"); err == nil {
		t.Error("one that was waited for in vain goes on when the policy comes")
	}
	next, fromNext := w.open()
	if err := echo(next, fromNext, "\x00ping\n"); err != nil {
		t.Errorf("a new one that begins in time: %v", err)
	}
	silent, fromSilent := w.open()
	if err := echo(silent, fromSilent, "G"); err == nil {
		t.Error("a new one that is waited for in vain is served")
	}
}
