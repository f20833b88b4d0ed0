package h2

import "github.com/fairlead-mesh/fairlead/pkg/message"

// Field is one header field; names are in lower case.
type Field = message.Field

// fieldOverhead is what a field counts beside its bytes (RFC 7541 section 4.1).
const fieldOverhead = 32

func fieldSize(f Field) int { return len(f.Name) + len(f.Value) + fieldOverhead }

// staticTable is RFC 7541 appendix A; the first entry has the index 1.
var staticTable = [...]Field{
	{Name: ":authority"}, {Name: ":method", Value: "GET"}, {Name: ":method", Value: "POST"},
	{Name: ":path", Value: "/"}, {Name: ":path", Value: "/index.html"},
	{Name: ":scheme", Value: "http"}, {Name: ":scheme", Value: "https"},
	{Name: ":status", Value: "200"}, {Name: ":status", Value: "204"}, {Name: ":status", Value: "206"}, {Name: ":status", Value: "304"},
	{Name: ":status", Value: "400"}, {Name: ":status", Value: "404"}, {Name: ":status", Value: "500"},
	{Name: "accept-charset"}, {Name: "accept-encoding", Value: "gzip, deflate"}, {Name: "accept-language"}, {Name: "accept-ranges"},
	{Name: "accept"}, {Name: "access-control-allow-origin"}, {Name: "age"}, {Name: "allow"}, {Name: "authorization"},
	{Name: "cache-control"}, {Name: "content-disposition"}, {Name: "content-encoding"}, {Name: "content-language"},
	{Name: "content-length"}, {Name: "content-location"}, {Name: "content-range"}, {Name: "content-type"}, {Name: "cookie"},
	{Name: "date"}, {Name: "etag"}, {Name: "expect"}, {Name: "expires"}, {Name: "from"}, {Name: "host"}, {Name: "if-match"},
	{Name: "if-modified-since"}, {Name: "if-none-match"}, {Name: "if-range"}, {Name: "if-unmodified-since"}, {Name: "last-modified"},
	{Name: "link"}, {Name: "location"}, {Name: "max-forwards"}, {Name: "proxy-authenticate"}, {Name: "proxy-authorization"},
	{Name: "range"}, {Name: "referer"}, {Name: "refresh"}, {Name: "retry-after"}, {Name: "server"}, {Name: "set-cookie"},
	{Name: "strict-transport-security"}, {Name: "transfer-encoding"}, {Name: "user-agent"}, {Name: "vary"}, {Name: "via"},
	{Name: "www-authenticate"},
}

// staticNames is the first index of each name; those of one name follow it.
var staticNames = func() map[string]int {
	names := map[string]int{}
	for i, f := range staticTable {
		if names[f.Name] == 0 {
			names[f.Name] = i + 1
		}
	}
	return names
}()

// commonNames are names that come often without an index: they cost no
// allocation.
var commonNames = func() map[string]string {
	names := map[string]string{}
	for _, f := range staticTable {
		names[f.Name] = f.Name
	}
	for _, name := range []string{
		":protocol", "te", "trailer", "origin", "priority", "dnt", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
		"x-envoy-attempt-count", "x-envoy-upstream-service-time", "x-envoy-expected-rq-timeout-ms", "x-envoy-decorator-operation",
		"x-forwarded-client-cert", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "traceparent", "tracestate", "baggage",
		"forwarded", "grpc-status", "grpc-message", "grpc-encoding", "grpc-accept-encoding", "grpc-timeout", "grpc-status-details-bin",
		"content-security-policy", "x-content-type-options", "x-frame-options", "x-xss-protection", "sec-fetch-dest", "sec-fetch-mode",
		"sec-fetch-site", "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "upgrade-insecure-requests", "pragma",
	} {
		names[name] = name
	}
	return names
}()

// dynamicTable is the table of RFC 7541 section 2.3.2. The newest entry has the
// index 62.
type dynamicTable struct {
	entries []tableEntry // oldest first, from first on
	first   int
	size    int
	max     int
}

type tableEntry struct {
	Field
	// wrong: the field breaks RFC 9113 section 8.2, and so does what refers to it.
	wrong bool
}

func (t *dynamicTable) len() int { return len(t.entries) - t.first }

// at is the i-th newest, from 0.
func (t *dynamicTable) at(i int) *tableEntry { return &t.entries[len(t.entries)-1-i] }

func (t *dynamicTable) setMax(n int) {
	t.max = n
	t.evict(0)
}

// evict makes room for n bytes.
func (t *dynamicTable) evict(n int) {
	for t.first < len(t.entries) && t.size+n > t.max {
		t.size -= fieldSize(t.entries[t.first].Field)
		t.entries[t.first] = tableEntry{}
		t.first++
	}
	if t.first > len(t.entries)/2 {
		kept := copy(t.entries, t.entries[t.first:])
		clear(t.entries[kept:])
		t.entries, t.first = t.entries[:kept], 0
	}
}

// add reports whether there is room for it.
func (t *dynamicTable) add(e tableEntry) bool {
	n := fieldSize(e.Field)
	t.evict(n)
	if n > t.max {
		return false
	}
	t.size += n
	t.entries = append(t.entries, e)
	return true
}

// headRoom is how many fields a proxy adds to a head, as a rule.
const headRoom = 6

// withRoom copies a head's fields for a stream, with room for more.
func withRoom(fields []Field) []Field {
	return append(make([]Field, 0, len(fields)+headRoom), fields...)
}
