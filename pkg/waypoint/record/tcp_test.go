package record

import (
	"context"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint"
)

const tcpYAML = `
name: inbound
address: {socket_address: {address: 127.0.0.1, port_value: 0}}
filter_chains:
- name: inbound-vip|5432|tcp|db.shop.svc.cluster.local
  filters:
  - FILTER
  - name: tcp
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: db
      cluster: TARGET
      access_log:
      - name: log
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
          path: /dev/stdout
          log_format: {text_format_source: {inline_string: "%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %UPSTREAM_HOST%\n"}}
`

const denyAll = `{name: rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: r,
    rules: {action: DENY, policies: {"ns[shop]-policy[no]-rule[0]": {permissions: [{any: true}], principals: [{any: true}]}}}}}`

// TestConnectionsAreLogged holds what is recorded of connections that are carried,
// refused by a policy, or that cannot be made.
func TestConnectionsAreLogged(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, tc := range map[string]struct{ filter, cluster, want string }{
		"carried": {`{name: state, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config}}`, "db", `^- - "-" 5 5 db 127\.0\.0\.1:\d+\n$`},
		"denied":  {denyAll, "db", `^- rbac_access_denied_matched_policy\[ns\[shop\]-policy\[no\]-rule\[0\]\] "-" 0 0 db -\n$`},
		"failed":  {`{name: state, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config}}`, "gone", `^UF\S* - ".*refused.*" 0 0 gone 127\.0\.0\.1:\d+\n$`},
	} {
		t.Run(name, func(t *testing.T) {
			out, log := &lines{}, slog.New(slog.DiscardHandler)
			clusters := directly(t, log)
			f := newFactory(t, out)
			e, err := waypoint.New(waypoint.Options{Clusters: clusters, Recorders: f, Logger: log})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				e.Drain(ctx, 0)
			}()
			for name, l := range map[string]net.Listener{"db": echo, "gone": closed} {
				c := &clusterv3.Cluster{}
				decode(t, clusterYAML(name, l.Addr().String()), c)
				if err := e.Apply(c); err != nil {
					t.Fatal(err)
				}
			}
			l := &listenerv3.Listener{}
			decode(t, strings.NewReplacer("FILTER", tc.filter, "TARGET", tc.cluster).Replace(tcpYAML), l)
			if err := e.Apply(l); err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", e.Address("inbound").String())
			if err == nil { // who is refused is reset, perhaps before the dial returns
				defer conn.Close()
				_, _ = conn.Write([]byte("hello"))
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, conn)
			}
			if line := out.take(t); !regexp.MustCompile(tc.want).MatchString(line) {
				t.Errorf("got %s want %s", line, tc.want)
			}
			families, err := f.o.Registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, family := range families {
				if !strings.HasPrefix(family.GetName(), "istio_tcp_connections_") {
					continue
				}
				labels := map[string]string{}
				for _, l := range family.GetMetric()[0].GetLabel() {
					labels[l.GetName()] = l.GetValue()
				}
				if labels["destination_service"] != "reviews.shop.svc.cluster.local" || family.GetMetric()[0].GetCounter().GetValue() != 1 {
					t.Errorf("%s: %v", family.GetName(), family.GetMetric())
				}
			}
			if n := testutil.CollectAndCount(f.tcp.closed); n != 1 {
				t.Errorf("%d series of closed connections", n)
			}
		})
	}
}
