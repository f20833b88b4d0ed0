package differential

import (
	"fmt"
	"strings"
	"testing"
)

// Messages of every shape go through, with either version at either side.
func TestProtocols(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", oneEach, 0)
	w.cluster("up2", manyOver2, 1)
	w.cluster("auto", strings.Replace(manyOver2, "explicit_http_config: {http2_protocol_options: {}}", "use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}", 1), 2)
	w.cluster("trailers", strings.Replace(manyOver2, "http2_protocol_options: {}", "http_protocol_options: {enable_trailers: true}", 1), 3)
	ports := map[string]int{}
	for _, c := range []string{"up", "up2", "auto", "trailers"} {
		ports[c] = w.http("", oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @"+c+"}}"))
	}
	ports["trailers down"] = w.http("http_protocol_options: {enable_trailers: true}", oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @trailers}}"))
	ports["keep case"] = w.http(`http_protocol_options: {header_key_format: {proper_case_words: {}}}`, oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up}}"))
	w.load()
	requests := []request{
		{}, {method: "HEAD", script: "body=abc"}, {method: "HEAD"}, {method: "POST", body: "abc"}, {method: "POST", body: "abc", chunked: true}, {method: "POST", chunked: true}, {method: "POST", fields: []string{"content-length: 0"}}, {method: "POST"},
		{method: "PUT", body: strings.Repeat("y", 50000)}, {method: "PUT", body: strings.Repeat("y", 50000), chunked: true}, {script: "size=50000"}, {script: "size=50000 chunked"}, {script: "size=50000 nolen"}, {script: "chunked"}, {script: "body=abc chunked"}, {script: "body=abc nolen"},
		{script: "status=204"}, {script: "status=304"}, {script: "status=304 h=etag:x"}, {script: "status=205"}, {script: "status=304 h=content-length:10", method: "HEAD"}, {script: "status=404 body=none"}, {script: "status=999"}, {script: "status=101"}, {script: "status=600"},
		{script: "info=103 body=abc"}, {script: "info=102 info=103 status=404"}, {script: "info=100 body=abc"},
		{method: "POST", body: "abc", fields: []string{"expect: 100-continue"}}, {method: "POST", body: "abc", fields: []string{"expect: 100-continue"}, script: "early status=417"}, {fields: []string{"expect: 200-ok"}},
		{method: "POST", body: "abc", trailers: []string{"x-t: 1", "x-u: 2"}}, {script: "body=abc t=x-t:1 t=x-u:2"}, {script: "t=x-t:1"}, {method: "POST", body: "abc", trailers: []string{"x-t: 1"}, script: "body=abc t=x-t:1"},
		{method: "OPTIONS"}, {method: "OPTIONS", path: "*"}, {method: "TRACE"}, {method: "DELETE", body: "x"}, {method: "PATCH", body: "x"}, {method: "FOO"}, {method: "foo-bar"}, {method: "GET", body: "abc"},
		{fields: []string{"connection: close"}}, {fields: []string{"connection: keep-alive"}}, {fields: []string{"connection: x-hop", "x-hop: 1"}}, {fields: []string{"keep-alive: timeout=5"}}, {fields: []string{"proxy-connection: keep-alive"}}, {fields: []string{"te: trailers"}}, {fields: []string{"te: gzip"}}, {fields: []string{"te: trailers, gzip"}},
		{fields: []string{"upgrade: websocket", "connection: upgrade"}}, {fields: []string{"upgrade: h2c", "connection: upgrade, http2-settings", "http2-settings: AAMAAABkAAQAAP__"}}, {fields: []string{"proxy-authorization: Basic x", "proxy-authenticate: y"}},
		{script: "h=connection:close"}, {script: "h=keep-alive:timeout=5"}, {script: "h=Upper-Case:Value h=set-cookie:a=1 h=set-cookie:b=2"}, {script: "h=server:upstream h=date:now h=via:1.1%20x"}, {script: "h=transfer-encoding:chunked raw=" + "HTTP/1.1%20200%20OK%0d%0atransfer-encoding:%20chunked%0d%0a%0d%0a3%0d%0aabc%0d%0a0%0d%0a%0d%0a"},
		{fields: []string{"cookie: a=1", "cookie: b=2"}}, {fields: []string{"x-a: 1", "x-b: 2", "x-a: 3"}}, {fields: []string{"Mixed-Case: Value"}}, {fields: []string{"x-empty:"}}, {fields: []string{"x-latin: \xe9"}}, {fields: []string{"content-length: 0"}}, {fields: []string{"range: bytes=0-1", "if-match: x", "accept-encoding: gzip, br"}},
		{path: "/" + strings.Repeat("p", 8000)}, {fields: []string{"x-long: " + strings.Repeat("v", 30000)}}, {path: "/a%00b"}, {path: "/a b"}, {path: "http://other.test/abs?x=1"}, {path: "http://other.test"}, {path: "https://other.test/s"}, {path: "//x/y"}, {host: "user@web.test"}, {host: "web.test:99999"}, {host: "web_test"}, {host: "w\xc3\xa9b"}, {host: "a b"},
		{method: "POST", body: "abc", script: "early status=413 body=large"}, {method: "POST", body: "abc", script: "early body=early"}, {script: "last body=abc"},
		{method: "CONNECT", path: "web.test:80"}, {method: "GET", path: "web.test:80"},
		{method: "POST", fields: []string{"content-type: application/grpc", "te: trailers"}, script: "h=content-type:application/grpc body=msg t=grpc-status:0 t=grpc-message:fine", body: "\x00\x00\x00\x00\x01x"},
		{method: "POST", fields: []string{"content-type: application/grpc", "te: trailers"}, script: "h=content-type:application/grpc h=grpc-status:5 h=grpc-message:none", body: "\x00\x00\x00\x00\x01x"},
		{method: "POST", fields: []string{"content-type: application/grpc", "te: trailers"}, script: "status=404 body=html h=content-type:text/html", body: "\x00\x00\x00\x00\x01x"},
	}
	for _, odd := range []bool{false, true} {
		b := w.batch(4)
		for name, port := range ports {
			for _, r := range requests {
				for _, two := range []bool{false, true} {
					r.h2 = two
					if two && (r.path != "" && strings.ContainsAny(r.path[:1], "hw*")) {
						continue
					}
					if strings.Contains(r.script, "raw=") && name == "up2" || strings.Contains(r.script, "status=101") {
						continue
					}
					what := fmt.Sprintf("%s: %.150s body %d chunked %v trailers %v", name, describe(r), len(r.body), r.chunked, r.trailers)
					// whether a request that is answered early was whole by then, and its time counts, is chance
					chance := strings.Contains(r.script, "early")
					if (chance || differences.about(w.name+"/"+what, "http2-malformed", "strict-requests", "informational")) == odd {
						b.send(what, port, r)
					}
				}
			}
		}
		b.work.Wait()
		w.compare()
		if !odd {
			w.compareStats()
		}
	}
}

// What upstreams answer that is no good response.
func TestBadResponses(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", oneEach, 0)
	port := w.http("", oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up, timeout: 1s}}"))
	w.load()
	raws := []string{
		"garbage\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", "HTTP/1.0 200 OK\r\n\r\nabc",
		"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 OK\ncontent-length: 0\n\n", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc", "HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nx y: z\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\ncontent-length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nx: a\x7fb\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcde\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
		"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n", "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcEXTRA", "HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n",
		"HTTP/1.1 200 OK\r\n" + strings.Repeat("x: y\r\n", 150) + "content-length: 0\r\n\r\n", "\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
	}
	for _, odd := range []bool{false, true} {
		for _, raw := range raws {
			script := "last raw=" + strings.ReplaceAll(escape(raw), " ", "%20")
			for _, r := range []request{{script: script}, {script: script, h2: true}} {
				what := fmt.Sprintf("%.120q h2 %v", raw, r.h2)
				if differences.about(w.name+"/"+what, "strict-responses") == odd {
					w.send(what, port, r)
				}
			}
		}
		w.compare()
		if !odd {
			w.compareStats()
		}
	}
}

// escape writes bytes for a script.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' || c == '|' {
			fmt.Fprintf(&b, "%%%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Requests of RFC 9112 that two parsers might read differently.
func TestMalformedRequests(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	port := w.http("", oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up, timeout: 1s}}"))
	w.load()
	const end = "host: web.test\r\nx-case: @CASE@\r\n"
	raws := []string{
		"GET / HTTP/1.1\r\n" + end + "\r\n", "GET / HTTP/1.1\n" + strings.ReplaceAll(end, "\r", "") + "\n", "\r\n\r\nGET / HTTP/1.1\r\n" + end + "\r\n", "GET  / HTTP/1.1\r\n" + end + "\r\n", "GET / HTTP/1.1 \r\n" + end + "\r\n", " GET / HTTP/1.1\r\n" + end + "\r\n",
		"GET /\r\n\r\n", "GET / HTTP/1.0\r\n" + end + "\r\n", "GET / HTTP/1.0\r\nx-case: @CASE@\r\n\r\n", "GET / HTTP/1.0\r\nconnection: keep-alive\r\n" + end + "\r\n", "GET / HTTP/1.2\r\n" + end + "\r\n", "GET / HTTP/2.0\r\n" + end + "\r\n", "GET / HTTP/0.9\r\n" + end + "\r\n", "GET / http/1.1\r\n" + end + "\r\n", "GET / HTTX/1.1\r\n" + end + "\r\n", "GET / HTTP/1.10\r\n" + end + "\r\n",
		"GET / HTTP/1.1\r\nx-case: @CASE@\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nx-case: @CASE@\r\n\r\n", "GET / HTTP/1.1\r\nhost:\r\nx-case: @CASE@\r\n\r\n", "G@T / HTTP/1.1\r\n" + end + "\r\n", "get / HTTP/1.1\r\n" + end + "\r\n", "GET x HTTP/1.1\r\n" + end + "\r\n",
		"GET / HTTP/1.1\r\n" + end + "x : 1\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "x 1\r\n\r\n", "GET / HTTP/1.1\r\n" + end + ": 1\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "x: 1\r\n 2\r\n\r\n", "GET / HTTP/1.1\r\n x: 1\r\n" + end + "\r\n", "GET / HTTP/1.1\r\n" + end + "x: a\x00b\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "x: a\x01b\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "x: a\rb\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "x: a\nb\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "x: a\tb\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "x: a\x7fb\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "x(y): 1\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "x_y: 1\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "x\xe9: 1\r\n\r\n",
		"POST / HTTP/1.1\r\n" + end + "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "content-length: 3\r\ncontent-length: 3\r\n\r\nabc", "POST / HTTP/1.1\r\n" + end + "content-length: 3\r\ncontent-length: 5\r\n\r\nabcde", "POST / HTTP/1.1\r\n" + end + "content-length: 3, 3\r\n\r\nabc", "POST / HTTP/1.1\r\n" + end + "content-length: +3\r\n\r\nabc", "POST / HTTP/1.1\r\n" + end + "content-length: -1\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "content-length: 0x3\r\n\r\nabc", "POST / HTTP/1.1\r\n" + end + "content-length: 3 \r\n\r\nabc", "POST / HTTP/1.1\r\n" + end + "content-length:\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "content-length: 99999999999999999999\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "content-length: 1 1\r\n\r\nabc",
		"POST / HTTP/1.1\r\n" + end + "transfer-encoding: gzip\r\n\r\nabc", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding : chunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: Chunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: identity\r\n\r\n", "POST / HTTP/1.0\r\n" + end + "transfer-encoding: chunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer_encoding: chunked\r\ncontent-length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked\r\n\r\nzz\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked\r\n\r\n3\nabc\n0\n\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nbad trailer\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\ncontent-length: 5\r\nhost: other\r\n\r\n", "POST / HTTP/1.1\r\n" + end + "transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
		"GET / HTTP/1.1\r\n" + end + "\r\nGET /second HTTP/1.1\r\n" + end + "\r\n", "GET / HTTP/1.1\r\n" + end + "connection: close\r\n\r\nGET /second HTTP/1.1\r\n" + end + "\r\n", "GET / HTTP/1.1\r\n" + end + "connection: host\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "connection: x-hop\r\nx-hop: 1\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "connection: close, keep-alive\r\n\r\n", "GET / HTTP/1.1\r\n" + end + "connection: transfer-encoding\r\n\r\n",
		"GET / HTTP/1.1\r\n" + end + "x: " + strings.Repeat("v", 65000) + "\r\n\r\n", "GET / HTTP/1.1\r\n" + end + strings.Repeat("x: y\r\n", 120) + "\r\n", "GET / HTTP/1.1\r\n" + end + strings.Repeat("x: y\r\n", 90) + "\r\n", "GET /" + strings.Repeat("p", 65000) + " HTTP/1.1\r\n" + end + "\r\n", "GET /%zz HTTP/1.1\r\n" + end + "\r\n", "GET /%0d%0a HTTP/1.1\r\n" + end + "\r\n", "GET /\x01 HTTP/1.1\r\n" + end + "\r\n", "GET /\xff HTTP/1.1\r\n" + end + "\r\n", "GET http:/x HTTP/1.1\r\n" + end + "\r\n", "GET http:// HTTP/1.1\r\n" + end + "\r\n", "GET ftp://x/ HTTP/1.1\r\n" + end + "\r\n", "GET http://x:y/ HTTP/1.1\r\n" + end + "\r\n", "GET http://u@x/ HTTP/1.1\r\n" + end + "\r\n", "GET ? HTTP/1.1\r\n" + end + "\r\n", "GET * HTTP/1.1\r\n" + end + "\r\n", "CONNECT x:80 HTTP/1.1\r\n" + end + "\r\n", "CONNECT / HTTP/1.1\r\n" + end + "\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01", "GET / HTTP/1.1\r\nhost: a/b\r\nx-case: @CASE@\r\n\r\n", "GET / HTTP/1.1\r\nhost: a,b\r\nx-case: @CASE@\r\n\r\n", "GET / HTTP/1.1\r\nhost: a?b\r\nx-case: @CASE@\r\n\r\n", "GET / HTTP/1.1\r\nhost: [::1\r\nx-case: @CASE@\r\n\r\n",
	}
	for _, odd := range []bool{false, true} {
		b := w.batch(16)
		for _, raw := range raws {
			what := fmt.Sprintf("%.160q", strings.ReplaceAll(raw, end, ""))
			if differences.about(w.name+"/"+what, "requests-that-are-none", "strict-requests", "broken-request-bodies") == odd {
				b.send(what, port, request{raw: raw, all: true, patience: 3e9}, looseLog(raw))
			}
		}
		b.work.Wait()
		w.compare()
		if !odd {
			w.compareStats()
		}
	}
}

// looseLog is that a line of the access log has a case's number only where the head
// was read.
func looseLog(raw string) loose {
	if strings.Count(raw, "@CASE@") == 1 {
		return 0
	}
	return noLog
}
