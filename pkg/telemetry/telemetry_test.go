package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func workload(name, version, zone string) *mesh.Workload {
	return &mesh.Workload{
		Name: name + "-7d4f8-x", Namespace: "default", WorkloadName: name, CanonicalName: name, CanonicalRevision: version,
		Cluster: "Kubernetes", TrustDomain: "cluster.local", ServiceAccount: name,
		Locality: mesh.Locality{Region: "r1", Zone: zone},
	}
}

// tunnelled is a connection of productpage to details by service, over mutual TLS.
func tunnelled(direction Direction) Info {
	source, destination := workload("productpage", "v1", "z1"), workload("details", "v2", "z2")
	return Info{
		Direction: direction, Source: source, Destination: destination,
		Service:        &mesh.Service{Name: "details", Key: mesh.ServiceKey{Namespace: "default", Hostname: "details.default.svc.cluster.local"}},
		SourceIdentity: source.Identity(), DestinationIdentity: destination.Identity(),
		SourceAddr:      netip.MustParseAddrPort("10.0.0.1:41000"),
		DestinationAddr: netip.MustParseAddrPort("10.0.1.2:15008"),
		Authority:       "10.0.1.2:9080", MutualTLS: true,
	}
}

type rig struct {
	recorder *Recorder
	registry *prometheus.Registry
	lines    *LineWriter
	out      *bytes.Buffer
}

func newRig(t *testing.T, format Format) *rig {
	t.Helper()
	r := &rig{registry: prometheus.NewRegistry(), out: &bytes.Buffer{}}
	var err error
	if r.lines, err = NewLineWriter(r.out, r.registry); err != nil {
		t.Fatal(err)
	}
	if r.recorder, err = NewRecorder(r.registry, NewAccessLog(format, r.lines)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.lines.Close)
	start := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	var mu sync.Mutex
	ticks := 0
	r.recorder.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		ticks++
		return start.Add(time.Duration(ticks-1) * 7 * time.Millisecond)
	}
	return r
}

const wantLabels = `connection_security_policy="mutual_tls",destination_app="details",destination_canonical_revision="v2",` +
	`destination_canonical_service="details",destination_cluster="Kubernetes",destination_principal="spiffe://cluster.local/ns/default/sa/details",` +
	`destination_region="r1",destination_service="details.default.svc.cluster.local",destination_service_name="details",` +
	`destination_service_namespace="default",destination_version="v2",destination_workload="details",destination_workload_namespace="default",` +
	`destination_zone="z2",reporter="%s",request_protocol="tcp",response_flags="%s",source_app="productpage",source_canonical_revision="v1",` +
	`source_canonical_service="productpage",source_cluster="Kubernetes",source_principal="spiffe://cluster.local/ns/default/sa/productpage",` +
	`source_region="r1",source_version="v1",source_workload="productpage",source_workload_namespace="default",source_zone="z1"`

func TestMetricsCarryIstiosLabels(t *testing.T) {
	for _, direction := range []Direction{Outbound, Inbound} {
		r := newRig(t, FormatOff)
		record := r.recorder.Open(tunnelled(direction))
		record.Established()
		record.ToServer.Add(100)
		record.ToClient.Add(2000)
		labels := fmt.Sprintf(wantLabels, direction.reporter(), "-")
		// An open connection is seen while it lasts.
		r.expect(t, "istio_tcp_received_bytes_total", "Bytes from client to server.", labels, 100)
		r.expect(t, "istio_tcp_sent_bytes_total", "Bytes from server to client.", labels, 2000)
		record.ToServer.Add(1)
		record.Close(Result{})
		record.Close(Result{Err: errors.New("again")})
		r.expect(t, "istio_tcp_connections_opened_total", "Connections opened.", labels, 1)
		r.expect(t, "istio_tcp_connections_closed_total", "Connections closed.", labels, 1)
		r.expect(t, "istio_tcp_received_bytes_total", "Bytes from client to server.", labels, 101)
		if n := len(r.recorder.Live()); n != 0 {
			t.Errorf("%d records are still open", n)
		}
	}
}

func (r *rig) expect(t *testing.T, name, help, labels string, value int) {
	t.Helper()
	want := fmt.Sprintf("# HELP %s %s\n# TYPE %s counter\n%s{%s} %d\n", name, help, name, name, labels, value)
	if err := testutil.GatherAndCompare(r.registry, strings.NewReader(want), name); err != nil {
		t.Error(err)
	}
}

// A connection of two agents' is opened once and closed once, and each byte counted by
// one of them; the record is written at its end, with all of it.
func TestConnectionThatIsHandedOverIsCountedOnce(t *testing.T) {
	first, next := newRig(t, FormatText), newRig(t, FormatText)
	record := first.recorder.Open(tunnelled(Inbound))
	record.Established()
	record.ToServer.Add(100)
	record.ToClient.Add(2000)
	record.Leave()
	record.Close(Result{})
	resumed := next.recorder.Resume(record.Info(), record.Opened(), record.ToServer.Load(), record.ToClient.Load())
	if a, b := len(first.recorder.Live()), len(next.recorder.Live()); a != 0 || b != 1 {
		t.Errorf("open: %d here, %d there", a, b)
	}
	resumed.ToServer.Add(11)
	resumed.Close(Result{})
	labels := fmt.Sprintf(wantLabels, "destination", "-")
	first.expect(t, "istio_tcp_connections_opened_total", "Connections opened.", labels, 1)
	first.expect(t, "istio_tcp_received_bytes_total", "Bytes from client to server.", labels, 100)
	first.expect(t, "istio_tcp_sent_bytes_total", "Bytes from server to client.", labels, 2000)
	next.expect(t, "istio_tcp_connections_closed_total", "Connections closed.", labels, 1)
	next.expect(t, "istio_tcp_received_bytes_total", "Bytes from client to server.", labels, 11)
	if a := testutil.ToFloat64(first.recorder.closed.WithLabelValues(first.recorder.admitLocked(keyOf(&resumed.info, FlagNone))...)); a != 0 {
		t.Errorf("closed %v times by the first", a)
	}
	if b := testutil.ToFloat64(next.recorder.opened.WithLabelValues(next.recorder.admitLocked(keyOf(&resumed.info, FlagNone))...)); b != 0 {
		t.Errorf("opened %v times by the next", b)
	}
	first.lines.Close()
	next.lines.Close()
	if first.out.Len() > 0 || !strings.Contains(next.out.String(), "bytes_sent=2000") || !strings.Contains(next.out.String(), "bytes_recv=111") {
		t.Errorf("records: %q, %q", first.out, next.out)
	}
}

func TestFailedConnectionIsCountedOnceWithItsFlag(t *testing.T) {
	r := newRig(t, FormatOff)
	record := r.recorder.Open(tunnelled(Inbound))
	record.Close(Result{Err: errors.New("denied"), Flag: FlagDeny})
	r.expect(t, "istio_tcp_connections_failed_total", "Connections refused or failed before both sides were connected.", fmt.Sprintf(wantLabels, "destination", "DENY"), 1)
	if n := testutil.CollectAndCount(r.recorder.opened); n != 0 {
		t.Errorf("a connection that failed was counted as opened")
	}
}

func TestUnknownPeersHaveNoLocality(t *testing.T) {
	values := keyOf(&Info{}, FlagNone).values()
	for i, name := range labelNames {
		want := unknown
		switch {
		case strings.HasSuffix(name, "_region"), strings.HasSuffix(name, "_zone"):
			want = ""
		case name == "reporter":
			want = "source"
		case name == "request_protocol":
			want = "tcp"
		case name == "response_flags":
			want = "-"
		}
		if values[i] != want {
			t.Errorf("%s = %q, want %q", name, values[i], want)
		}
	}
}

func TestAccessRecord(t *testing.T) {
	denied := Result{Err: errors.New("connection closed due to policy change"), Flag: FlagDeny}
	for name, c := range map[string]struct {
		format Format
		info   Info
		end    Result
		want   string
	}{
		"text, complete": {FormatText, tunnelled(Outbound), Result{},
			`2030-01-02T03:04:05.007000Z	info	access	connection complete	src.addr=10.0.0.1:41000	src.workload="productpage-7d4f8-x"	src.namespace="default"	src.identity="spiffe://cluster.local/ns/default/sa/productpage"	src.cluster="Kubernetes"	dst.addr=10.0.1.2:15008	dst.hbone_addr="10.0.1.2:9080"	dst.service="details.default.svc.cluster.local"	dst.workload="details-7d4f8-x"	dst.namespace="default"	dst.identity="spiffe://cluster.local/ns/default/sa/details"	dst.cluster="Kubernetes"	direction="outbound"	bytes_sent=100	bytes_recv=2000	duration="7ms"	policy="default/allow"	reason="allowed by policy"` + "\n"},
		"json, closed by policy": {FormatJSON, tunnelled(Inbound), denied,
			`{"time":"2030-01-02T03:04:05.007000Z","level":"error","scope":"access","message":"connection complete","src.addr":"10.0.0.1:41000","src.workload":"productpage-7d4f8-x","src.namespace":"default","src.identity":"spiffe://cluster.local/ns/default/sa/productpage","src.cluster":"Kubernetes","dst.addr":"10.0.1.2:15008","dst.hbone_addr":"10.0.1.2:9080","dst.service":"details.default.svc.cluster.local","dst.workload":"details-7d4f8-x","dst.namespace":"default","dst.identity":"spiffe://cluster.local/ns/default/sa/details","dst.cluster":"Kubernetes","direction":"inbound","bytes_sent":2000,"bytes_recv":100,"duration":"7ms","flag":"DENY","policy":"default/allow","reason":"allowed by policy","error":"connection closed due to policy change"}` + "\n"},
		"text, strangers": {FormatText, Info{SourceAddr: netip.MustParseAddrPort("[fd00::1]:1"), DestinationAddr: netip.MustParseAddrPort("192.0.2.1:443")}, Result{},
			"2030-01-02T03:04:05.007000Z	info	access	connection complete	src.addr=[fd00::1]:1	dst.addr=192.0.2.1:443	direction=\"outbound\"	bytes_sent=100	bytes_recv=2000	duration=\"7ms\"	policy=\"default/allow\"	reason=\"allowed by policy\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.format)
			record := r.recorder.Open(c.info)
			record.Decided("default/allow", "allowed by policy")
			record.Established()
			record.ToServer.Add(100)
			record.ToClient.Add(2000)
			record.Close(c.end)
			r.lines.Close()
			if diff := cmp.Diff(c.want, r.out.String()); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRecordsCannotBeForgedByNames(t *testing.T) {
	r := newRig(t, FormatJSON)
	info := tunnelled(Outbound)
	info.Authority = "a\"\n{\"level\":\"info\"}\x01"
	r.recorder.Open(info).Close(Result{})
	r.lines.Close()
	if got := strings.Count(r.out.String(), "\n"); got != 1 {
		t.Errorf("one record became %d lines: %s", got, r.out)
	}
}

// slow never finishes a write until it is released.
type slow struct{ release chan struct{} }

func (s *slow) Write(b []byte) (int, error) {
	<-s.release
	return len(b), nil
}

func TestSlowOutputDropsAndCounts(t *testing.T) {
	registry := prometheus.NewRegistry()
	out := &slow{release: make(chan struct{})}
	lines, err := NewLineWriter(out, registry)
	if err != nil {
		t.Fatal(err)
	}
	// What one write took may be with the output already.
	line := []byte(strings.Repeat("x", 1023) + "\n")
	const room, more = maxPending / 1024, 1000
	for range 2*room + more {
		lines.Write(line)
	}
	if got := testutil.ToFloat64(lines.dropped); got < more || got > room+more {
		t.Errorf("%v lines dropped, want those past the queue", got)
	}
	close(out.release)
	lines.Close()
}

func TestLabelSetsAreBounded(t *testing.T) {
	r := newRig(t, FormatOff)
	for i := range maxSeries + 50 {
		info := tunnelled(Inbound)
		info.Source = workload(fmt.Sprint("w", i), "v1", "z")
		r.recorder.Open(info).Established()
	}
	if n := testutil.CollectAndCount(r.recorder.opened); n > maxSeries+1 {
		t.Errorf("%d series", n)
	}
	if got := testutil.ToFloat64(r.recorder.overflow); got != 50 {
		t.Errorf("%v connections counted as overflow, want 50", got)
	}
}

func BenchmarkRecord(b *testing.B) {
	registry := prometheus.NewRegistry()
	lines, err := NewLineWriter(io.Discard, registry)
	if err != nil {
		b.Fatal(err)
	}
	defer lines.Close()
	recorder, err := NewRecorder(registry, NewAccessLog(FormatText, lines))
	if err != nil {
		b.Fatal(err)
	}
	info := tunnelled(Outbound)
	b.ReportAllocs()
	for b.Loop() {
		record := recorder.Open(info)
		record.Established()
		record.Close(Result{})
	}
}
