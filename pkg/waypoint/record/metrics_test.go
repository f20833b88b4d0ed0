package record

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

const reviewsChain = "inbound-vip|9080|http|reviews.shop.svc.cluster.local"

func newFactory(t testing.TB, out io.Writer) *Factory {
	t.Helper()
	f, err := NewFactory(Options{
		Registry: prometheus.NewRegistry(), Stdout: out, Logger: slog.New(slog.DiscardHandler),
		Cluster: func(name string) streaminfo.Metadata {
			if name != reviewsChain {
				return nil
			}
			return reviews()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func reviews() streaminfo.Metadata {
	return streaminfo.Metadata{"mesh": {"host": "reviews.shop.svc.cluster.local", "namespace": "shop", "name": "reviews"}}
}

var (
	caller = &streaminfo.Workload{
		Name: "productpage", Namespace: "shop", CanonicalService: "productpage", CanonicalRevision: "v1", App: "productpage", Version: "v1", Cluster: "c1",
	}
	answerer = &streaminfo.Workload{
		Name: "reviews-v2", Namespace: "shop", Principal: "spiffe://td/ns/shop/sa/reviews", CanonicalService: "reviews", CanonicalRevision: "v2", App: "reviews", Version: "v2", Cluster: "c2",
	}
)

func connectionOf() *streaminfo.Connection {
	return &streaminfo.Connection{
		Chain: reviewsChain, Source: caller, PeerURISAN: "spiffe://td/ns/shop/sa/productpage",
		TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}},
	}
}

func exchange() *streaminfo.Info {
	return &streaminfo.Info{
		Connection: connectionOf(), Request: &message.Request{Method: "GET", Path: "/"}, Response: &message.Response{Status: 200}, ResponseCode: 200,
		Cluster: reviewsChain, ClusterMetadata: reviews(), Destination: answerer, UpstreamURISAN: answerer.Principal,
		Attempts: 3, Duration: 7 * time.Millisecond, BytesReceived: 11, BytesSent: 2222,
	}
}

const (
	serviceLabels = `destination_service="reviews.shop.svc.cluster.local",destination_service_name="reviews",destination_service_namespace="shop"`
	sourceLabels  = `source_app="productpage",source_canonical_revision="v1",source_canonical_service="productpage",source_cluster="c1",source_principal="spiffe://td/ns/shop/sa/productpage",source_version="v1",source_workload="productpage",source_workload_namespace="shop"`
	nobody        = `destination_app="unknown",destination_canonical_revision="unknown",destination_canonical_service="unknown",destination_cluster="unknown",destination_principal="unknown"`
	nobodyToo     = `destination_version="unknown",destination_workload="unknown",destination_workload_namespace="unknown"`
	answered      = `destination_app="reviews",destination_canonical_revision="v2",destination_canonical_service="reviews",destination_cluster="c2",destination_principal="spiffe://td/ns/shop/sa/reviews"`
	answeredToo   = `destination_version="v2",destination_workload="reviews-v2",destination_workload_namespace="shop"`
)

// TestRequestLabels holds the exact label sets of requests, as Prometheus reads them.
func TestRequestLabels(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*streaminfo.Info)
		want   string
	}{
		"answered, after two retries": {func(*streaminfo.Info) {},
			`connection_security_policy="mutual_tls",` + answered + `,` + serviceLabels + `,` + answeredToo +
				`,grpc_response_status="",reporter="waypoint",request_protocol="http",response_code="200",response_flags="-",` + sourceLabels},
		"gRPC, its status in the trailers": {func(i *streaminfo.Info) {
			i.Request.Fields.Set("content-type", "application/grpc+proto")
			i.Trailers = message.Fields{{Name: "grpc-status", Value: "5"}}
		}, `connection_security_policy="mutual_tls",` + answered + `,` + serviceLabels + `,` + answeredToo +
			`,grpc_response_status="5",reporter="waypoint",request_protocol="grpc",response_code="200",response_flags="-",` + sourceLabels},
		"gRPC, a status that is none": {func(i *streaminfo.Info) {
			i.Request.Fields.Set("content-type", "application/grpc")
			i.Trailers = message.Fields{{Name: "grpc-status", Value: "4711"}}
		}, `connection_security_policy="mutual_tls",` + answered + `,` + serviceLabels + `,` + answeredToo +
			`,grpc_response_status="unknown",reporter="waypoint",request_protocol="grpc",response_code="200",response_flags="-",` + sourceLabels},
		"no route: the service is the chain's": {func(i *streaminfo.Info) {
			*i = streaminfo.Info{Connection: i.Connection, Request: i.Request, ResponseCode: 404, Flags: streaminfo.NoRouteFound}
		}, `connection_security_policy="mutual_tls",` + nobody + `,` + serviceLabels + `,` + nobodyToo +
			`,grpc_response_status="",reporter="waypoint",request_protocol="http",response_code="404",response_flags="NR",` + sourceLabels},
		"a chain without a cluster of its own": {func(i *streaminfo.Info) {
			i.Chain = "inbound-vip|80|http|other.shop.svc.cluster.local"
			*i = streaminfo.Info{Connection: i.Connection, Request: i.Request, ResponseCode: 403}
		}, `connection_security_policy="mutual_tls",` + nobody +
			`,destination_service="other.shop.svc.cluster.local",destination_service_name="other",destination_service_namespace="shop",` + nobodyToo +
			`,grpc_response_status="",reporter="waypoint",request_protocol="http",response_code="403",response_flags="-",` + sourceLabels},
		"istiod's metadata, and a caller of whom the certificate alone is known": {func(i *streaminfo.Info) {
			i.Source = nil
			i.ClusterMetadata = streaminfo.Metadata{"istio": {"services": []any{map[string]any{"host": "x.example.com", "namespace": "n"}}}}
			i.Destination = streaminfo.FromEndpoint(streaminfo.Metadata{"istio": {"workload": "w;n;c;r;k"}})
			i.UpstreamURISAN = ""
		}, `connection_security_policy="mutual_tls",destination_app="unknown",destination_canonical_revision="r",destination_canonical_service="c",destination_cluster="k",destination_principal="unknown"` +
			`,destination_service="x.example.com",destination_service_name="x",destination_service_namespace="n",destination_version="unknown",destination_workload="w",destination_workload_namespace="n"` +
			`,grpc_response_status="",reporter="waypoint",request_protocol="http",response_code="200",response_flags="-"` +
			`,source_app="unknown",source_canonical_revision="latest",source_canonical_service="unknown",source_cluster="unknown",source_principal="spiffe://td/ns/shop/sa/productpage",source_version="unknown",source_workload="unknown",source_workload_namespace="shop"`},
		"plain": {func(i *streaminfo.Info) { i.TLS, i.PeerURISAN = nil, "" },
			`connection_security_policy="none",` + answered + `,` + serviceLabels + `,` + answeredToo +
				`,grpc_response_status="",reporter="waypoint",request_protocol="http",response_code="200",response_flags="-",` +
				strings.Replace(sourceLabels, "spiffe://td/ns/shop/sa/productpage", "unknown", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFactory(t, io.Discard)
			i := exchange()
			tc.change(i)
			f.http.Record(i)
			f.http.Record(i)
			want := "# HELP istio_requests_total Requests.\n# TYPE istio_requests_total counter\nistio_requests_total{" + tc.want + "} 2\n"
			if err := testutil.GatherAndCompare(f.o.Registry, strings.NewReader(want), "istio_requests_total"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMetricsPage reads /metrics as Prometheus does, plain and compressed.
func TestMetricsPage(t *testing.T) {
	f := newFactory(t, io.Discard)
	i := exchange()
	i.Request.Fields.Set("content-type", "application/grpc")
	i.RequestMessages.Feed(append([]byte{0, 0, 0, 0, 2, 'a', 'b'}, 0, 0, 0, 0, 0))
	i.ResponseMessages.Feed([]byte{1, 0, 0, 0, 1, 'c'})
	f.http.Record(i)
	server := httptest.NewServer(promhttp.HandlerFor(f.o.Registry, promhttp.HandlerOpts{}))
	defer server.Close()
	for _, encoding := range []string{"identity", "gzip"} {
		request, err := http.NewRequest(http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept-Encoding", encoding)
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body := io.Reader(response.Body)
		if encoding == "gzip" {
			if body, err = gzip.NewReader(body); err != nil {
				t.Fatal(err)
			}
		}
		text, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`istio_request_bytes_sum{`, `le="10"} 0`, `le="25"} 1`, `istio_response_bytes_count{`, `istio_request_duration_milliseconds_bucket{`, `le="+Inf"} 1`,
		} {
			if !bytes.Contains(text, []byte(want)) {
				t.Errorf("%s: no %s in\n%s", encoding, want, text)
			}
		}
		for line := range strings.Lines(string(text)) {
			name, _, _ := strings.Cut(line, "{")
			want := map[string]string{
				"istio_request_bytes_sum": "11", "istio_response_bytes_sum": "2222", "istio_request_duration_milliseconds_sum": "7",
				"istio_request_messages_total": "2", "istio_response_messages_total": "1",
			}[name]
			if want != "" && !strings.HasSuffix(line, "} "+want+"\n") {
				t.Errorf("%s: %s, want %s", encoding, line, want)
			}
		}
	}
}

// TestSeriesAreBounded holds that neither answers nor callers can make more series than
// the bounds, and that what is past them is still counted by service and code.
func TestSeriesAreBounded(t *testing.T) {
	f := newFactory(t, io.Discard)
	const n = maxPerService + 500
	for c := range n {
		i := exchange()
		i.Source = &streaminfo.Workload{Name: fmt.Sprint("w", c)}
		f.http.Record(i)
		i.ResponseCode = 100 + c%900 // as a server may answer
		f.http.Record(i)
	}
	if got := testutil.CollectAndCount(f.http.requests); got > maxPerService+100 {
		t.Errorf("%d series of one service, want about %d", got, maxPerService)
	}
	total := 0.0
	families, err := f.o.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "istio_requests_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			total += m.GetCounter().GetValue()
			for _, l := range m.GetLabel() {
				if l.GetName() == "destination_service" && l.GetValue() != "reviews.shop.svc.cluster.local" {
					t.Errorf("the service of what is past the bound is %s", l.GetValue())
				}
			}
		}
	}
	if total != 2*n {
		t.Errorf("%v requests counted, want %v", total, 2*n)
	}
	if got := testutil.ToFloat64(f.http.series.overflow); got < 2*n-maxPerService-n/100 { // some are alike
		t.Errorf("overflow %v, want about %v", got, 2*n-maxPerService)
	}
	other := exchange()
	other.ClusterMetadata = streaminfo.Metadata{"mesh": {"host": "other"}}
	before := testutil.ToFloat64(f.http.series.overflow)
	f.http.Record(other)
	if testutil.ToFloat64(f.http.series.overflow) != before {
		t.Error("one service used up the room of another")
	}
}

// TestWorkloadsThatComeAndGo holds that label sets count, not the objects they are
// made of.
func TestWorkloadsThatComeAndGo(t *testing.T) {
	f := newFactory(t, io.Discard)
	for range 2*maxCached + maxPerService {
		i := exchange()
		same := *caller
		i.Source = &same
		f.http.Record(i)
	}
	if got := testutil.CollectAndCount(f.http.requests); got != 1 {
		t.Errorf("%d series, want 1", got)
	}
	if got := testutil.ToFloat64(f.http.series.overflow); got != 0 {
		t.Errorf("overflow %v", got)
	}
}

func TestRecordingAllocatesNothing(t *testing.T) {
	f := newFactory(t, io.Discard)
	i := exchange()
	i.Request.Fields.Set("content-type", "application/grpc")
	i.Trailers = message.Fields{{Name: "grpc-status", Value: "0"}}
	f.http.Record(i)
	if got := testing.AllocsPerRun(100, func() { f.http.Record(i) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func TestLoggingAllocatesNothing(t *testing.T) {
	f := newFactory(t, io.Discard)
	l := &logger{lines: f.out}
	if err := l.setFormat(nil); err != nil {
		t.Fatal(err)
	}
	i := exchange()
	i.Start = time.Now()
	// What has not been written yet takes room, a part of an allocation for each line.
	if got := testing.AllocsPerRun(1000, func() { l.Record(i) }); got >= 1 && !raceEnabled {
		t.Errorf("%v allocations", got)
	}
}

// TestConnectionsAreSeenWhileTheyRun holds when connections and their bytes are
// counted.
func TestConnectionsAreSeenWhileTheyRun(t *testing.T) {
	f := newFactory(t, io.Discard)
	i := exchange()
	i.Request, i.Response, i.ResponseCode, i.Traffic = nil, nil, 0, &streaminfo.Traffic{}
	expect := func(name, help string, want int) {
		t.Helper()
		text := fmt.Sprintf("# HELP %s %s\n# TYPE %s counter\n%s{connection_security_policy=\"mutual_tls\",%s,%s,%s,reporter=\"waypoint\",request_protocol=\"tcp\",response_flags=\"-\",%s} %d\n",
			name, help, name, name, answered, serviceLabels, answeredToo, sourceLabels, want)
		if err := testutil.GatherAndCompare(f.o.Registry, strings.NewReader(text), name); err != nil {
			t.Error(err)
		}
	}
	f.tcp.Opened(i)
	i.Traffic.Sent.Add(100)
	i.Traffic.Received.Add(7)
	expect("istio_tcp_connections_opened_total", "Connections opened.", 1)
	expect("istio_tcp_sent_bytes_total", "Bytes from server to client.", 100)
	expect("istio_tcp_received_bytes_total", "Bytes from client to server.", 7)
	if n := testutil.CollectAndCount(f.tcp.closed); n != 0 {
		t.Error("an open connection is counted as closed")
	}
	i.Traffic.Sent.Add(1)
	f.tcp.Record(i)
	expect("istio_tcp_sent_bytes_total", "Bytes from server to client.", 101)
	expect("istio_tcp_connections_closed_total", "Connections closed.", 1)
	if len(f.tcp.live) != 0 {
		t.Error("a connection that ended is kept")
	}
	failed := exchange()
	failed.Flags = streaminfo.UpstreamConnectionFailure
	f.tcp.Record(failed)
	if n := testutil.CollectAndCount(f.tcp.opened); n != 2 {
		t.Errorf("%d series of opened connections, want also the one that failed", n)
	}
}
