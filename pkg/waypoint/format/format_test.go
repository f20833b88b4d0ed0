package format

import (
	"crypto/tls"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// istioText is Istio's default access log.
const istioText = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%` + "\n"

func exchange() *streaminfo.Info {
	return &streaminfo.Info{
		Connection: &streaminfo.Connection{
			ID: 2, Remote: netip.MustParseAddrPort("10.0.0.1:51000"), DirectRemote: netip.MustParseAddrPort("10.0.0.9:1"),
			Local: netip.MustParseAddrPort("10.96.0.1:80"), PeerURISAN: "spiffe://td/ns/a/sa/b", LocalURISAN: "spiffe://td/ns/w/sa/w",
			FilterState: map[string]string{"io.istio.peer_principal": "spiffe://td/ns/a/sa/b"}, Chain: "inbound-vip|80|http|h",
		},
		Start: time.Date(2026, 11, 26, 12, 44, 56, 381_208_000, time.UTC),
		Request: &message.Request{
			Version: message.HTTP11, Method: "GET", Scheme: "http", Authority: "h", Path: "/w/p?a=1&b",
			Fields: message.Fields{{Name: "user-agent", Value: "one"}, {Name: "user-agent", Value: "two"}, {Name: "x-q", Value: `a"é\`}, {Name: "x-empty", Value: ""}, {Name: "x-request-id", Value: "id-1"}, {Name: "x-bytes", Value: "a\xffb"}},
		},
		OriginalPath: "/p?a=1&b",
		Response:     &message.Response{Status: 200, Fields: message.Fields{{Name: "x-two", Value: "a"}, {Name: "x-two", Value: "b"}, {Name: "x-envoy-upstream-service-time", Value: "1"}}},
		ResponseCode: 200, Details: "via_upstream", RouteName: "r", Cluster: "c", UpstreamHost: "10.1.0.1:8080",
		UpstreamRemote: netip.MustParseAddrPort("10.1.0.1:8080"), UpstreamLocal: netip.MustParseAddrPort("10.2.0.1:4000"), UpstreamProtocol: "HTTP/1.1",
		Attempts: 1, BytesReceived: 3, BytesSent: 303,
		RequestReceived: 100 * time.Microsecond, RequestSent: 200 * time.Microsecond, UpstreamFirstByte: 1100 * time.Microsecond, UpstreamLastByte: 1200 * time.Microsecond, Duration: 1255 * time.Microsecond,
		RouteMetadata: streaminfo.Metadata{"a": {"n": 5.0, "s": "str", "o": map[string]any{"l": []any{1.0, "x", nil, true, 1.5}}}},
		Dynamic:       streaminfo.Metadata{"d": {"k": map[string]any{"in": `q"`}}},
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct{ format, want string }{
		{"plain 100%%", "plain 100%"},
		{istioText, `[2026-11-26T12:44:56.381Z] "GET /p?a=1&b HTTP/1.1" 200 - via_upstream - "-" 3 303 1 1 "-" "one,two" "id-1" "h" "10.1.0.1:8080" c 10.2.0.1:4000 10.96.0.1:80 10.0.0.1:51000 - r` + "\n"},
		{"%REQ(x-none)%|%REQ(x-empty)%|%REQ(X-None?user-agent)%|%REQ(X-Q):2%", `-||one,two|a"`},
		{"%RESP(x-two)% %RESP(:status)% %TRAILER(a)%", "a 200 -"},
		{"%START_TIME(%s.%3f %E6S %Q %f %9f %% %j)%", "1795697096.381 56.381208 %Q 381208000 381208000 % 330"},
		{"%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%", "2026/11/26T12:44:56+0000 1795697096"},
		{"%REQUEST_DURATION% %REQUEST_TX_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION% %COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", "0 0 1 0 1255"},
		{"%METADATA(ROUTE:a:s)% %METADATA(ROUTE:a:o)% %METADATA(ROUTE:a)% %METADATA(ROUTE:a:x)%", `str {"l":[1,"x",null,true,1.5]} {"n":5,"o":{"l":[1,"x",null,true,1.5]},"s":"str"} -`},
		{"%DYNAMIC_METADATA(d:k:in)% %DYNAMIC_METADATA(d:k:out)% %CLUSTER_METADATA(a:b)%", `q" - -`},
		{"%FILTER_STATE(io.istio.peer_principal:PLAIN)% %FILTER_STATE(none:PLAIN)% %FILTER_STATE(upstream_peer_obj:FIELD:app)%", "spiffe://td/ns/a/sa/b - -"},
		{"%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN% %UPSTREAM_PEER_URI_SAN%", "spiffe://td/ns/a/sa/b spiffe://td/ns/w/sa/w -"},
		{"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "10.0.0.1 80 10.0.0.9:1"},
		{"%PATH% %PATH(NQ)% %PATH(WQ:PATH)% %QUERY_PARAM(a)% %QUERY_PARAM(b)%%QUERY_PARAM(c)% %QUERY_PARAMS(PATH)%", "/p?a=1&b /p /w/p?a=1&b 1 - a=1&b"},
		{"%GRPC_STATUS% %GRPC_STATUS_NUMBER% %STREAM_ID% %CONNECTION_ID% %FILTER_CHAIN_NAME%", "- - id-1 2 inbound-vip|80|http|h"},
		{`%COALESCE({"operators": ["REQUESTED_SERVER_NAME", {"command": "REQ", "param": ":authority"}]})%`, "h"},
		{"%ENVIRONMENT(FAIRLEAD_NO_SUCH)% %TRACE_ID% %DOWNSTREAM_TLS_VERSION% %LOCAL_REPLY_BODY%|", "- - - |"},
	} {
		f, err := Compile(c.format)
		if err != nil {
			t.Errorf("%s: %v", c.format, err)
			continue
		}
		if got := f.String(exchange()); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.format, got, c.want)
		}
	}
	f, err := CompileOmit("%REQ(x-none)%-%REQ(:path)%")
	if err != nil {
		t.Fatal(err)
	}
	if got := f.String(exchange()); got != "-/w/p?a=1&b" {
		t.Errorf("omitted: %q", got)
	}
}

func TestGRPCStatus(t *testing.T) {
	f, err := Compile("%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)%")
	if err != nil {
		t.Fatal(err)
	}
	i := exchange()
	i.Request.Fields.Set("content-type", "application/grpc")
	for _, c := range []struct {
		trailer, head string
		code          int
		want          string
	}{
		{"0", "", 200, "OK OK 0"},
		{"", "7", 200, "PermissionDenied PERMISSION_DENIED 7"},
		{"", "", 503, "Unavailable UNAVAILABLE 14"},
		{"99", "", 200, "99 99 99"},
		{"x", "", 200, "- - -"},
	} {
		i.Trailers, i.Response.Fields, i.ResponseCode = nil, nil, c.code
		if c.trailer != "" {
			i.Trailers.Add("grpc-status", c.trailer)
		}
		if c.head != "" {
			i.Response.Fields.Add("grpc-status", c.head)
		}
		if got := f.String(i); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct{ format, want string }{
		{"%NOPE%", "there is no command NOPE"},
		{"50% off", `write "%%" for a percent sign`},
		{"%START_TIME", `%START_TIME: the closing "%" is missing`},
		{"%REQ(a%", `%REQ(: the closing ")" is missing`},
		{"%REQ()%", "the field's name is missing"},
		{"%REQ(a?b?c)%", "at most one alternative"},
		{"%REQ(a):x%", `the length "x" is not a number`},
		{"%PROTOCOL:2%", "neither an argument"},
		{"%PROTOCOL(a)%", "neither an argument"},
		{"%FILTER_STATE(a:ODD)%", `"ODD" is not PLAIN`},
		{"%METADATA(ODD:a)%", `no metadata of type "ODD"`},
		{"%GRPC_STATUS(ODD)%", "is not CAMEL_STRING"},
		{"%COMMON_DURATION(a:b)%", "the moments are"},
		{`%COALESCE({"operators": ["NOPE"]})%`, "there is no command NOPE"},
	} {
		if _, err := Compile(c.format); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.format, err, c.want)
		}
	}
}

func compileJSON(t *testing.T, text string, omit bool) *JSON {
	t.Helper()
	s := new(structpb.Struct)
	if err := protojson.Unmarshal([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	f, err := CompileJSON(s, omit)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The lines are what an Envoy 1.40 wrote.
func TestJSON(t *testing.T) {
	const format = `{"zz":"%RESPONSE_CODE%","a":"%REQ(x-none)%","b":"x%REQ(x-none)%y","c":"%REQ(X-Q)%","num":5,"f":1.5,"t":true,"nul":null,
"list":["%PROTOCOL%","%REQ(x-none)%",{"k":"%REQ(x-none)%"}],"nest":{"q":"%DURATION%","e":"%REQ(x-none)%"},"lit":"100%%","code2":"%RESPONSE_CODE%%PROTOCOL%",
"flags":"%RESPONSE_FLAGS%","md":"%METADATA(ROUTE:a:n)%","mdmix":"<%METADATA(ROUTE:a:s)%|%METADATA(ROUTE:a:n)%>","mdo":"%METADATA(ROUTE:a:o)%","mds":"%METADATA(ROUTE:a:s)%",
"trunc":"%REQ(X-Q):2%","empty":"","bytes":"%REQ(x-bytes)%","esc":"a\"b\\\n\u00e9\u0001<","sn":"%REQUESTED_SERVER_NAME%","e":"%REQ(x-empty)%"}`
	for _, c := range []struct {
		omit bool
		want string
	}{
		{false, `{"a":null,"b":"x-y","bytes":"a\u00ffb","c":"a\"é\\","code2":"200HTTP/1.1","e":"","empty":"","esc":"a\"b\\\né\u0001<","f":1.5,"flags":"-","list":["HTTP/1.1",null,{"k":null}],"lit":"100%","md":5,"mdmix":"<str|5>","mdo":{"l":[1,"x",null,true,1.5]},"mds":"str","nest":{"e":null,"q":1},"nul":null,"num":5,"sn":null,"t":true,"trunc":"a\"","zz":200}`},
		{true, `{"b":"xy","bytes":"a\u00ffb","c":"a\"é\\","code2":"200HTTP/1.1","e":"","empty":"","esc":"a\"b\\\né\u0001<","f":1.5,"flags":"-","list":["HTTP/1.1"],"lit":"100%","md":5,"mdmix":"<str|5>","mdo":{"l":[1,"x",null,true,1.5]},"mds":"str","nest":{"q":1},"num":5,"t":true,"trunc":"a\"","zz":200}`},
	} {
		if got := string(compileJSON(t, format, c.omit).Append(nil, exchange())); got != c.want {
			t.Errorf("omit %v:\n%s, want\n%s", c.omit, got, c.want)
		}
	}
}

func TestDoesNotAllocate(t *testing.T) {
	f, err := Compile(istioText)
	if err != nil {
		t.Fatal(err)
	}
	j := compileJSON(t, `{"start":"%START_TIME%","path":"%REQ(:PATH)%","code":"%RESPONSE_CODE%","who":"%FILTER_STATE(io.istio.peer_principal:PLAIN)%","up":"%UPSTREAM_HOST%","d":"%DURATION%","peer":"%DOWNSTREAM_REMOTE_ADDRESS%"}`, false)
	i := exchange()
	i.Request.Fields.Set("user-agent", "one")
	i.TLS = &tls.ConnectionState{}
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { buf = j.Append(f.Append(buf[:0], i), i) }); n != 0 {
		t.Errorf("%v allocations for a line", n)
	}
}

// An exchange of which nothing is known yet, as in a log of a broken connection.
func TestKnowsNothing(t *testing.T) {
	for name := range plainCommands {
		f, err := Compile("%" + name + "%")
		if err != nil {
			t.Fatal(err)
		}
		f.String(&streaminfo.Info{})
	}
	f, err := Compile(istioText)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.String(&streaminfo.Info{Start: time.Unix(0, 0)}); !strings.HasPrefix(got, `[1970-01-01T00:00:00.000Z] "- - -" 0 - - - "-" 0 0 - - `) {
		t.Errorf("%s", got)
	}
}

// All formats in what a real istiod sends compile.
func TestFormatsOfIstiod(t *testing.T) {
	files, _ := filepath.Glob("../../../../shared/oracle/*/*.json")
	if len(files) == 0 {
		t.Skip("no recordings of istiod here")
	}
	pattern := regexp.MustCompile(`%[A-Z_]+(\([^)]*\))?(:[0-9]+)?%`)
	for _, file := range files {
		b, err := os.ReadFile(file) //nolint:gosec // the test's own data
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range pattern.FindAllString(string(b), -1) {
			if _, err := Compile(s); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{istioText, "%REQ(a?b):3%", "%START_TIME(%3f%E*S%)%", `%COALESCE({"operators":["PROTOCOL"]})%`, "%METADATA(ROUTE:a:o)%", "%%"} {
		f.Add(s, "value")
	}
	f.Fuzz(func(t *testing.T, s, v string) {
		i := exchange()
		i.Request.Fields.Add("a", v)
		i.Dynamic["d"]["v"] = v
		if c, err := Compile(s); err == nil {
			c.Append(nil, i)
		}
		st, err := structpb.NewStruct(map[string]any{"f": s, "v": "%REQ(a)%", "m": "<%REQ(a)%>", "d": "%DYNAMIC_METADATA(d:v)%", "l": []any{s}})
		if err != nil {
			return
		}
		j, err := CompileJSON(st, len(v)%2 == 0)
		if err != nil {
			return
		}
		if out := j.Append(nil, i); !json.Valid(out) {
			t.Fatalf("%q, %q: not JSON: %s", s, v, out)
		}
	})
}
