package record

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// messagesOf are the messages counted, by the status of gRPC under which they stand.
func messagesOf(t *testing.T, f *Factory, name string) map[string]float64 {
	t.Helper()
	families, err := f.o.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			code, status := "", ""
			for _, l := range m.GetLabel() {
				switch l.GetName() {
				case "response_code":
					code = l.GetValue()
				case "grpc_response_status":
					status = l.GetValue()
				}
			}
			if v := m.GetCounter().GetValue(); v > 0 {
				out[code+" "+status] += v
			}
		}
	}
	return out
}

func sameCounts(a, b map[string]float64) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// What a stream carries is counted while it runs, once, and the rest at its end.
func TestLastingStreams(t *testing.T) {
	f := newFactory(t, io.Discard)
	message := []byte{0, 0, 0, 0, 1, 'x'}
	i := exchange()
	i.Request.Fields.Set("content-type", "application/grpc")
	i.ResponseCode, i.Response = 0, nil
	i.RequestMessages.Feed(message)
	const requests, replies = "istio_request_messages_total", "istio_response_messages_total"
	check := func(when string, requestsWant, repliesWant map[string]float64) {
		t.Helper()
		if got := messagesOf(t, f, requests); !sameCounts(got, requestsWant) {
			t.Errorf("%s: requests %v, want %v", when, got, requestsWant)
		}
		if got := messagesOf(t, f, replies); !sameCounts(got, repliesWant) {
			t.Errorf("%s: replies %v, want %v", when, got, repliesWant)
		}
	}
	check("before it lasts", map[string]float64{}, map[string]float64{})
	i.Lasting = true
	f.http.Lasts(i)
	check("before the answer", map[string]float64{"0 ": 1}, map[string]float64{})
	i.RequestMessages.Feed(message)
	check("before the answer, later", map[string]float64{"0 ": 2}, map[string]float64{})
	i.ResponseCode = 200
	f.http.Lasts(i)
	i.RequestMessages.Feed(message)
	i.ResponseMessages.Feed(message)
	check("answered", map[string]float64{"0 ": 2, "200 ": 1}, map[string]float64{"200 ": 1})
	i.ResponseMessages.Feed(append(message, message...))
	i.Trailers.Set("grpc-status", "0")
	f.http.Record(i)
	check("ended", map[string]float64{"0 ": 2, "200 ": 1}, map[string]float64{"200 ": 1, "200 0": 2})
	i.ResponseMessages.Feed(message)
	check("it is not looked at any more", map[string]float64{"0 ": 2, "200 ": 1}, map[string]float64{"200 ": 1, "200 0": 2})
	if n := testutil.CollectAndCount(f.http.requests); n != 1 {
		t.Errorf("%d series of requests, want one: a stream is one request", n)
	}
	// One that is not recorded, and one whose content type a route takes away.
	forgotten := exchange()
	forgotten.Request.Fields.Set("content-type", "application/grpc")
	f.http.Lasts(forgotten)
	f.http.Forget(forgotten)
	changed := exchange()
	changed.Lasting = true
	f.http.Lasts(changed)
	f.http.Record(changed)
	if n := len(f.http.lasting.live); n != 0 {
		t.Errorf("%d streams are followed still", n)
	}
}

// Streams are counted by others than who serves them.
func TestLastingStreamsAtTheSameTime(t *testing.T) {
	f := newFactory(t, io.Discard)
	var streams sync.WaitGroup
	for range 4 {
		streams.Go(func() {
			for range 20 {
				i := exchange()
				i.Request.Fields.Set("content-type", "application/grpc")
				i.Lasting = true
				f.http.Lasts(i)
				for range 50 {
					i.RequestMessages.Feed([]byte{0, 0, 0, 0, 0})
				}
				f.http.Record(i)
				*i = streaminfo.Info{}
			}
		})
	}
	for range 50 {
		messagesOf(t, f, "istio_request_messages_total")
	}
	streams.Wait()
	sum := 0.0
	for _, n := range messagesOf(t, f, "istio_request_messages_total") {
		sum += n
	}
	if sum != 4*20*50 {
		t.Errorf("%v messages counted, want %d", sum, 4*20*50)
	}
}

// The engine tells of streams that last.
func TestStreamThroughTheEngine(t *testing.T) {
	f := newFactory(t, io.Discard)
	next, end := make(chan struct{}), make(chan struct{})
	message := "\x00\x00\x00\x00\x01x"
	url := serveBy(t, f, `{text_format_source: {inline_string: "\n"}}`, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		for {
			_, _ = io.WriteString(w, message)
			w.(http.Flusher).Flush()
			select {
			case <-next:
			case <-end:
				return
			}
		}
	}))
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /a HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: %d\r\n\r\n%s", len(message), message)
	in := bufio.NewReader(c)
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	sum := func(name string) (n float64) {
		for _, v := range messagesOf(t, f, name) {
			n += v
		}
		return n
	}
	for want := 1.0; want <= 3; want++ {
		deadline := time.Now().Add(20 * time.Second)
		tick := time.NewTicker(5 * time.Millisecond)
		for sum("istio_response_messages_total") != want || sum("istio_request_messages_total") != 1 {
			if <-tick.C; time.Now().After(deadline) {
				t.Fatalf("%v replies and %v requests counted, want %v and 1", sum("istio_response_messages_total"), sum("istio_request_messages_total"), want)
			}
		}
		tick.Stop()
		next <- struct{}{}
	}
	close(end)
	if _, err := io.ReadAll(r.Body); err != nil {
		t.Error(err)
	}
}
