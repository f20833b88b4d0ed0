package waypoint_test

import (
	"encoding/binary"
	"io"
	"net"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// splitting is a connection manager with what most have: filters, a match on a header,
// weights, retries.
const splitting = `"generate_request_id":false,"http_filters":[
	{"name":"envoy.filters.http.fault","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"}},
	{"name":"envoy.filters.http.cors","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"}},
	{"name":"envoy.filters.http.router","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
	"route_config":{"name":"r","virtual_hosts":[{"name":"v","domains":["*"],"routes":[
	{"match":{"prefix":"/","headers":[{"name":"x-canary","string_match":{"exact":"always"}}]},"route":{"cluster":"v2"}},
	{"match":{"prefix":"/"},"route":{"weighted_clusters":{"clusters":[{"name":"v1","weight":90},{"name":"v2","weight":10}]},"retry_policy":{"retry_on":"5xx","num_retries":2}}}]}]}`

// bareOrigin answers with as few allocations as a codec can.
func bareOrigin(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	hello := []byte("hello")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				var answer message.Response
				_ = codec.ServeHTTP(codec.TCPConn{TCPConn: c.(*net.TCPConn)}, codec.Options{}, func(x codec.Exchange) {
					for x.HasBody() {
						if _, err := x.Next(); err != nil {
							break
						}
					}
					answer = message.Response{Status: 200, ContentLength: 5}
					if x.Respond(&answer, false) == nil {
						if _, err := x.Write(hello); err == nil {
							_ = x.Finish(nil)
						}
					}
				})
			}()
		}
	}()
	return l.Addr().String()
}

// A request through the whole engine costs a bounded number of allocations. Clients and
// origins here have none.
func TestAllocationsOfARequest(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, test := range []struct {
		name   string
		client func(t *testing.T, addr string) func()
		budget float64
	}{
		{"HTTP/1.1", http1Requests, 0},
		{"HTTP/2", http2Requests, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := serve(t, splitting, map[string]string{"v1": bareOrigin(t), "v2": bareOrigin(t)}, nil)
			once := test.client(t, p.addr)
			for range 500 {
				once()
			}
			n := testing.AllocsPerRun(2000, once)
			t.Logf("%v allocations", n)
			if n > test.budget {
				t.Errorf("a request has %v allocations, want at most %v", n, test.budget)
			}
		})
	}
}

func http1Requests(t *testing.T, addr string) func() {
	c := dial(t, addr)
	request := []byte("GET /some/path?q=1 HTTP/1.1\r\nHost: server.shop\r\nUser-Agent: test/1.0\r\nAccept: */*\r\n\r\n")
	buf := make([]byte, 4096)
	return func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < 5 || string(buf[n-5:n]) != "hello"; {
			m, err := c.Read(buf[n:])
			if n += m; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// http2Requests writes frames as they are on the wire (RFC 9113 section 4.1): a head that
// ends its stream, its fields new to the table (RFC 7541 section 6.2.1) in the first
// request and known in all others.
func http2Requests(t *testing.T, addr string) func() {
	c := dial(t, addr)
	literal := func(name, value string) string {
		return "\x40" + string(rune(len(name))) + name + string(rune(len(value))) + value
	}
	block := literal(":method", "GET") + literal(":scheme", "http") + literal(":authority", "server.shop") + literal(":path", "/some/path?q=1") +
		literal("user-agent", "test/1.0") + literal("accept", "*/*")
	head := func(block string) []byte { return append([]byte{0, 0, byte(len(block)), 1, 5, 0, 0, 0, 0}, block...) }
	request, known := head(block), head("\xc3\xc2\xc1\xc0\xbf\xbe")
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"+"\x00\x00\x00\x04\x01\x00\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	stream := uint32(1)
	buf := make([]byte, 16<<10)
	return func() {
		binary.BigEndian.PutUint32(request[5:], stream)
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := io.ReadFull(c, buf[:9]); err != nil {
				t.Fatal(err)
			}
			length, kind, flags, of := int(buf[1])<<8|int(buf[2]), buf[3], buf[4], binary.BigEndian.Uint32(buf[5:])
			if _, err := io.ReadFull(c, buf[:length]); err != nil {
				t.Fatal(err)
			}
			if kind == 3 || kind == 7 { // RST_STREAM, GOAWAY
				t.Fatalf("frame of type %d", kind)
			}
			if of == stream && kind <= 1 && flags&1 != 0 { // END_STREAM
				stream, request = stream+2, known
				return
			}
		}
	}
}
