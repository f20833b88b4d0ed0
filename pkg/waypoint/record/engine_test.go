package record

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// lines is an output that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// take waits for a line and takes it.
func (l *lines) take(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		l.mu.Lock()
		line, err := l.b.ReadString('\n')
		if err != nil {
			l.b.WriteString(line)
		}
		l.mu.Unlock()
		if err == nil {
			return line
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("nothing was logged")
		}
	}
}

func decode(t *testing.T, text string, m proto.Message) {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(asJSON, m); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

const listenerYAML = `
name: inbound
address: {socket_address: {address: 127.0.0.1, port_value: 0}}
filter_chains:
- name: inbound-vip|80|http|reviews.shop.svc.cluster.local
  filters:
  - name: http
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: inbound
      preserve_external_request_id: true
      access_log:
      - name: log
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
          path: /dev/stdout
          log_format: FORMAT
      http_filters:
      - name: rbac
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
          rules: {action: DENY, policies: {"ns[shop]-policy[no]-rule[0]": {permissions: [{url_path: {path: {exact: /denied}}}], principals: [{any: true}]}}}
      - name: envoy.filters.http.router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
      route_config:
        name: r
        virtual_hosts:
        - name: all
          domains: ["*"]
          routes:
          - {name: gone, match: {path: /gone}, route: {cluster: gone}}
          - {name: none, match: {path: /none}, route: {cluster: none}}
          - {name: direct, match: {path: /direct}, direct_response: {status: 418, body: {inline_string: tea}}}
          - {name: main, match: {prefix: /a}, route: {cluster: reviews, prefix_rewrite: /b}, metadata: {filter_metadata: {own: {team: blue}}}}
          - {name: denied, match: {path: /denied}, route: {cluster: reviews}}
`

func clusterYAML(name, address string) string {
	host, port, _ := net.SplitHostPort(address)
	return `
name: ` + name + `
type: STATIC
connect_timeout: 1s
metadata: {filter_metadata: {mesh: {host: reviews.shop.svc.cluster.local, name: reviews, namespace: shop}}}
load_assignment:
  cluster_name: ` + name + `
  endpoints:
  - lb_endpoints:
    - endpoint: {address: {socket_address: {address: ` + host + `, port_value: ` + port + `}}}
      metadata: {filter_metadata: {mesh: {workload: reviews-v1, namespace: shop, service: reviews, revision: v1}}}
`
}

// serve runs an engine with an access log of a format and returns where it listens.
func serve(t *testing.T, out io.Writer, format string, upstream http.Handler) string {
	t.Helper()
	return serveBy(t, newFactory(t, out), format, upstream)
}

// serveBy is serve with a factory of the test's own.
func serveBy(t *testing.T, f *Factory, format string, upstream http.Handler) string {
	t.Helper()
	server := httptest.NewServer(upstream)
	t.Cleanup(server.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	log := slog.New(slog.DiscardHandler)
	clusters := directly(t, log)
	e, err := waypoint.New(waypoint.Options{Clusters: clusters, Recorders: f, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{"reviews": server.Listener.Addr().String(), "gone": closed.Addr().String()} {
		c := &clusterv3.Cluster{}
		decode(t, clusterYAML(name, address), c)
		if err := e.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	l := &listenerv3.Listener{}
	decode(t, strings.Replace(listenerYAML, "FORMAT", format, 1), l)
	if err := e.Apply(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		e.Drain(ctx, 0)
	})
	return "http://" + e.Address("inbound").String()
}

// istioText is Istio's default format of access logs.
const istioText = `[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n`

// TestAccessLogText holds what Istio's default format shows of requests that end in
// the ways that operators look for.
func TestAccessLogText(t *testing.T) {
	out := &lines{}
	url := serve(t, out, `{text_format_source: {inline_string: "`+istioText+`"}}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "hello")
	}))
	const local, time = `127\.0\.0\.1:\d+`, `^\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\] `
	for path, want := range map[string]string{
		"/a1":     time + `"POST /a1 HTTP/1\.1" 200 - via_upstream - "-" 4 5 \d+ \d+ "-" "tester" "id-1" "reviews" "` + local + `" reviews ` + local + ` ` + local + ` ` + local + ` - main\n$`,
		"/nobody": time + `"POST /nobody HTTP/1\.1" 404 NR route_not_found - "-" 0 0 \d+ - "-" "tester" "id-1" "reviews" "-" - - ` + local + ` ` + local + ` - -\n$`,
		"/none":   time + `"POST /none HTTP/1\.1" 503 NC cluster_not_found - "-" 0 0 \d+ - "-" "tester" "id-1" "reviews" "-" - - ` + local + ` ` + local + ` - none\n$`,
		"/denied": time + `"POST /denied HTTP/1\.1" 403 - rbac_access_denied_matched_policy\[ns\[shop\]-policy\[no\]-rule\[0\]\] - "-" 0 19 \d+ - "-" "tester" "id-1" "reviews" "-" reviews - ` + local + ` ` + local + ` - denied\n$`,
		"/direct": time + `"POST /direct HTTP/1\.1" 418 - direct_response - "-" 0 3 \d+ - "-" "tester" "id-1" "reviews" "-" - - ` + local + ` ` + local + ` - direct\n$`,
		"/gone":   time + `"POST /gone HTTP/1\.1" 503 UF upstream_reset_before_response_started\{remote_connection_failure\|.*\} - ".*refused.*" \d \d+ \d+ - "-" "tester" "id-1" "reviews" "` + local + `" gone - ` + local + ` ` + local + ` - gone\n$`,
	} {
		request, err := http.NewRequest(http.MethodPost, url+path, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		request.Host = "reviews"
		request.Header.Set("User-Agent", "tester")
		request.Header.Set("X-Request-Id", "id-1")
		do(t, request)
		if line := out.take(t); !regexp.MustCompile(want).MatchString(line) {
			t.Errorf("%s:\n got %s want %s", path, line, want)
		}
	}
}

// TestAccessLogJSON holds the fields that the engine fills, in JSON.
func TestAccessLogJSON(t *testing.T) {
	out := &lines{}
	url := serve(t, out, `{json_format: {up: "%UPSTREAM_PROTOCOL%", id: "%CONNECTION_ID%", reply: "%LOCAL_REPLY_BODY%", team: "%METADATA(ROUTE:own:team)%", service: "%METADATA(CLUSTER:mesh:host)%",
	  workload: "%METADATA(UPSTREAM_HOST:mesh:workload)%", sent: "%REQUEST_TX_DURATION%", received: "%REQUEST_DURATION%", first: "%RESPONSE_DURATION%", chain: "%FILTER_CHAIN_NAME%", tries: "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"}}`,
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	get := func(path string) map[string]any {
		t.Helper()
		request, err := http.NewRequest(http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		do(t, request)
		fields := map[string]any{}
		if line := out.take(t); json.Unmarshal([]byte(line), &fields) != nil {
			t.Fatalf("no JSON: %s", line)
		}
		return fields
	}
	got := get("/a")
	for key, want := range map[string]any{
		"up": "HTTP/1.1", "reply": "", "team": "blue", "service": "reviews.shop.svc.cluster.local", "workload": "reviews-v1", "chain": "inbound-vip|80|http|reviews.shop.svc.cluster.local", "tries": 1.0,
	} {
		if got[key] != want {
			t.Errorf("%s: %v, want %v", key, got[key], want)
		}
	}
	for _, key := range []string{"sent", "received", "first"} {
		if _, ok := got[key].(float64); !ok {
			t.Errorf("%s: %v, want a number", key, got[key])
		}
	}
	if id, _ := got["id"].(float64); id == 0 {
		t.Error("the connection has no number")
	}
	if got := get("/denied"); got["reply"] != "RBAC: access denied" || got["service"] != "reviews.shop.svc.cluster.local" {
		t.Errorf("denied: %v", got)
	}
}

// TestTraceContextIsPassedOn holds that what tracing systems put into a request is
// neither changed nor lost.
func TestTraceContextIsPassedOn(t *testing.T) {
	seen := make(chan http.Header, 1)
	url := serve(t, io.Discard, `{text_format_source: {inline_string: "x\n"}}`, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header }))
	request, err := http.NewRequest(http.MethodGet, url+"/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	trace := map[string]string{
		"Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Tracestate": "a=1,b=2", "B3": "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1",
		"X-B3-Traceid": "80f198ee56343ba8", "X-B3-Spanid": "e457b5a2e4d86bd1", "X-B3-Parentspanid": "05e3ac9a4f6e3b90", "X-B3-Sampled": "1", "X-B3-Flags": "0",
		"X-Ot-Span-Context": "a;b;c", "X-Cloud-Trace-Context": "105445aa7843bc8bf206b120001000/1;o=1", "X-Request-Id": "mine", "Baggage": "k=v",
	}
	for name, v := range trace {
		request.Header.Set(name, v)
	}
	do(t, request)
	got := <-seen
	for name, v := range trace {
		if len(got[name]) != 1 || got[name][0] != v {
			t.Errorf("%s: %q, want %q", name, got[name], v)
		}
	}
}

func do(t *testing.T, request *http.Request) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
}

// TestRecordsAreOfTheirOwnExchange holds that what is recorded of a response is not
// that of another one, whose connection it was by then.
func TestRecordsAreOfTheirOwnExchange(t *testing.T) {
	out := &lines{}
	url := serve(t, out, `{text_format_source: {inline_string: "%REQ(X-NUMBER)% %RESP(X-NUMBER)%\n"}}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Number", r.Header.Get("X-Number"))
	}))
	const clients, each = 8, 100
	var done sync.WaitGroup
	for c := range clients {
		done.Go(func() {
			for n := range each {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/a", nil)
				if err != nil {
					t.Error(err)
					return
				}
				request.Header.Set("X-Number", strings.Repeat(string(rune('a'+c)), 3+n%7))
				response, err := http.DefaultClient.Do(request)
				if err != nil {
					t.Error(err)
					return
				}
				response.Body.Close()
			}
		})
	}
	done.Wait()
	for range clients * each {
		if sent, got, _ := strings.Cut(strings.TrimSpace(out.take(t)), " "); sent != got {
			t.Fatalf("a record of %q shows the response to %q", sent, got)
		}
	}
}

// directly has no clusters yet; their connections are plain ones.
func directly(t *testing.T, log *slog.Logger) *cluster.Manager {
	t.Helper()
	clusters, err := cluster.NewManager(cluster.Options{Logger: log, Dial: func(ctx context.Context, to netip.AddrPort) (codec.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
		if err != nil {
			return nil, err
		}
		return codec.TCPConn{TCPConn: c.(*net.TCPConn)}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(clusters.Close)
	return clusters
}
