package h1

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// parsed is a request or response head with its body, read from a buffer that
// holds all of it.
type parsed struct {
	request  message.Request
	response message.Response
	head     Head
	body     string
	trailers message.Fields
	rest     string
}

var limits = Limits{}.WithDefaults()

// parse takes a request, or with a method a response to it. An incomplete message
// is errIncomplete.
func parse(b []byte, l Limits, method string, upgrade bool) (*parsed, error) {
	p := &parsed{}
	p.head.Reset(l)
	n, err := p.head.Find(b)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errIncomplete
	}
	if method == "" {
		err = p.head.Request(b[:n], &p.request)
	} else {
		err = p.head.Response(b[:n], &p.response, method, upgrade)
	}
	if err != nil {
		return nil, err
	}
	var body Body
	body.Reset(&p.head)
	b = b[n:]
	for !body.Done() && len(b) > 0 {
		data, n, err := body.Next(b)
		if err != nil {
			return nil, err
		}
		p.body += string(data)
		b = b[n:]
	}
	if err := body.End(); err != nil {
		return nil, errIncomplete
	}
	p.rest, p.trailers = string(b), body.Trailers()
	return p, nil
}

var errIncomplete = errors.New("incomplete")

func verdict(err error) string {
	var broken *Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &broken):
		return fmt.Sprint(broken.Status)
	}
	return err.Error()
}

func (p *parsed) String() string {
	var b strings.Builder
	r := &p.request
	if r.Method != "" {
		fmt.Fprintf(&b, "%s %s%s", r.Method, r.Authority, r.Path)
	} else {
		fmt.Fprintf(&b, "%d", p.response.Status)
		r.Fields = p.response.Fields
	}
	for _, f := range r.Fields {
		fmt.Fprintf(&b, " %s=%s", f.Name, f.Value)
	}
	if r.Upgrade != "" {
		fmt.Fprintf(&b, " UPGRADE=%s", r.Upgrade)
	}
	if p.body != "" {
		fmt.Fprintf(&b, " BODY=%s", p.body)
	}
	for _, f := range p.trailers {
		fmt.Fprintf(&b, " TRAILER:%s=%s", f.Name, f.Value)
	}
	if !p.head.KeepAlive {
		b.WriteString(" CLOSE")
	}
	if p.head.Continue {
		b.WriteString(" CONTINUE")
	}
	return b.String()
}

// get and post are requests with these field lines.
func get(lines string) string  { return "GET /p HTTP/1.1\r\nHost: a\r\n" + lines + "\r\n" }
func post(lines string) string { return "POST /p HTTP/1.1\r\nHost: a\r\n" + lines + "\r\n" }
func chunked(body string) string {
	return post("Transfer-Encoding: chunked\r\n") + body
}

func TestRequests(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "x%d: 1\r\n", i)
		}
		return b.String()
	}
	for _, test := range []struct{ section, name, in, want string }{
		{"9112 2.1", "a request", get("X-Abc:  1 \r\n"), "GET a/p x-abc=1"},
		{"9112 2.2", "bare LF", "GET / HTTP/1.1\nHost: a\n\n", "400"},
		{"9112 2.2", "bare LF behind a field", get("x: 1\n"), "400"},
		{"9112 2.2", "bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", "400"},
		{"9112 2.2", "bare CR in a value", get("x: 1\r2\r\n"), "400"},
		{"9112 2.2", "bare CR in the request line", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 2.2", "an empty line before", "\r\n" + get(""), "GET a/p"},
		{"9112 2.2", "two empty lines before", "\r\n\r\n" + get(""), "GET a/p"},
		{"9112 2.2", "a blank before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400"},
		{"9112 2.3", "HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET a/ CLOSE"},
		{"9112 2.3", "HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n", "GET / CLOSE"},
		{"9112 2.3", "HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", "426"},
		{"9112 2.3", "HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "426"},
		{"9112 2.3", "HTTP/0.9", "GET /\r\n\r\n", "400"},
		{"9112 2.3", "the version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 2.3", "HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", "400"},
		{"9112 3", "two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3", "a tab for a space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3", "a space at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "400"},
		{"9112 3", "a space at the beginning", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3", "a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3.1", "an unknown method", "FOO / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3.1", "a method in lower case", "get / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3.1", "a rare method", "PURGE / HTTP/1.1\r\nHost: a\r\n\r\n", "PURGE a/"},
		{"9112 3.2", "no Host", "GET / HTTP/1.1\r\n\r\n", "400"},
		{"9112 3.2", "an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET /"},
		{"9112 3.2", "two Hosts", get("Host: b\r\n"), "400"},
		{"9112 3.2", "two equal Hosts", get("Host: a\r\n"), "400"},
		{"9112 3.2", "a space in the Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"},
		{"9112 3.2", "a slash in the Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400"},
		{"9112 3.2", "a list in the Host", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "400"},
		{"9110 4.2.4", "userinfo in the Host", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "400"},
		{"9112 3.2", "a port that is none", "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", "400"},
		{"9112 3.2", "a port too large", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", "400"},
		{"9112 3.2", "an IPv6 Host", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET [::1]:80/"},
		{"9112 3.2", "an IPv6 Host that is open", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "400"},
		{"9112 3.2", "the Host's case is kept", "GET / HTTP/1.1\r\nHost: Ab.C\r\n\r\n", "GET Ab.C/"},
		{"9112 3.2.1", "two slashes", "GET //a HTTP/1.1\r\nHost: a\r\n\r\n", "GET a//a"},
		{"9112 3.2.1", "a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3.2.1", "a control character", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3.2.1", "beyond ASCII", "GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3.2.1", "a relative path", "GET abc HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3.2.2", "absolute", "GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET b/x?y"},
		{"9112 3.2.2", "absolute without a path", "GET HTTP://b HTTP/1.1\r\nHost: a\r\n\r\n", "GET b/"},
		{"9112 3.2.2", "absolute with a query alone", "GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n", "GET b/?q"},
		{"9112 3.2.2", "absolute, another scheme", "GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3.2.2", "absolute with userinfo", "GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3.2.2", "absolute without a host", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3.2.3", "CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: b\r\n\r\n", "CONNECT a:80"},
		{"9112 3.2.3", "CONNECT without a port", "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 3.2.3", "CONNECT with a path", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9110 9.3.6", "CONNECT with a body", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", "400"},
		{"9112 3.2.4", "asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS a*"},
		{"9112 3.2.4", "asterisk for GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"9112 5.1", "a blank before the colon", get("x : 1\r\n"), "400"},
		{"9112 5.1", "a tab before the colon", get("x\t: 1\r\n"), "400"},
		{"9112 5.1", "no colon", get("xyz\r\n"), "400"},
		{"9112 5.1", "an empty name", get(": 1\r\n"), "400"},
		{"9110 5.1", "a name with a parenthesis", get("x(y: 1\r\n"), "400"},
		{"9110 5.1", "a name beyond ASCII", get("x\xe9: 1\r\n"), "400"},
		{"9113 8.3", "a pseudo-header", get(":path: /x\r\n"), "400"},
		{"9110 5.1", "an underscore", get("x_y: 1\r\n"), "GET a/p x_y=1"},
		{"9110 5.5", "NUL in a value", get("x: 1\x002\r\n"), "400"},
		{"9110 5.5", "DEL in a value", get("x: 12345678901234\x7f2\r\n"), "400"},
		{"9110 5.5", "a control character in a value", get("x: 12345678901234\x012\r\n"), "400"},
		{"9110 5.5", "a tab in a value", get("x: 1\t2\r\n"), "GET a/p x=1\t2"},
		{"9110 5.5", "obs-text in a value", get("x: \xe9\xff\r\n"), "GET a/p x=\xe9\xff"},
		{"9110 5.5", "an empty value", get("x:\r\n"), "GET a/p x="},
		{"9112 5.2", "obs-fold", get("x: 1\r\n 2\r\n"), "400"},
		{"9112 5.2", "obs-fold with a tab", get("x: 1\r\n\t2\r\n"), "400"},
		{"9112 6.1", "CL.TE", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", "400"},
		{"9112 6.1", "TE.CL", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "0\r\n\r\n", "400"},
		{"9112 6.1", "TE.CL, hidden by a blank", post("Transfer-Encoding : chunked\r\nContent-Length: 5\r\n") + "0\r\n\r\n", "400"},
		{"9112 6.1", "TE.TE", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n") + "0\r\n\r\n", "400"},
		{"9112 6.1", "TE of HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		{"9112 6.3", "TE does not end in chunked", post("Transfer-Encoding: chunked, gzip\r\n"), "400"},
		{"9112 6.3", "TE identity", post("Transfer-Encoding: identity\r\n"), "400"},
		{"9112 6.3", "TE xchunked", post("Transfer-Encoding: xchunked\r\n"), "400"},
		{"9112 6.3", "TE chunked;", post("Transfer-Encoding: chunked;q=1\r\n"), "400"},
		{"9112 6.3", "an empty TE", post("Transfer-Encoding:\r\n"), "400"},
		{"9112 6.1", "a coding that is not known", post("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n", "501"},
		{"9112 7.1", "chunked twice", post("Transfer-Encoding: chunked, chunked\r\n") + "0\r\n\r\n", "400"},
		{"9112 7.1", "chunked in two lines", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", "400"},
		{"9112 6.1", "any case", post("Transfer-Encoding: Chunked\r\n") + "0\r\n\r\n", "POST a/p"},
		{"9112 6.2", "a length", post("Content-Length: 2\r\n") + "ab", "POST a/p content-length=2 BODY=ab"},
		{"9112 6.2", "a length with a zero before", post("Content-Length: 02\r\n") + "ab", "POST a/p content-length=02 BODY=ab"},
		{"9112 6.3", "two lengths", post("Content-Length: 2\r\nContent-Length: 3\r\n") + "abc", "400"},
		{"9112 6.3", "two equal lengths", post("Content-Length: 2\r\nContent-Length: 2\r\n") + "ab", "400"},
		{"9112 6.3", "a list of equal lengths", post("Content-Length: 2, 2\r\n") + "ab", "400"},
		{"9112 6.3", "a length with a sign", post("Content-Length: +2\r\n") + "ab", "400"},
		{"9112 6.3", "a negative length", post("Content-Length: -2\r\n"), "400"},
		{"9112 6.3", "a hexadecimal length", post("Content-Length: 0x2\r\n") + "ab", "400"},
		{"9112 6.3", "an empty length", post("Content-Length:\r\n"), "400"},
		{"9112 6.3", "a length beyond 64 bits", post("Content-Length: 18446744073709551618\r\n") + "ab", "400"},
		{"9112 6.3", "a short body", post("Content-Length: 3\r\n") + "ab", "incomplete"},
		{"9112 6.3", "neither", post("") + "ab", "POST a/p"},
		{"9112 7.1", "chunks", chunked("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"), "POST a/p BODY=abc0123456789"},
		{"9112 7.1", "a body that is cut", chunked("3\r\nabc\r\n"), "incomplete"},
		{"9112 7.1", "no digit", chunked("\r\nabc\r\n0\r\n\r\n"), "400"},
		{"9112 7.1", "not hexadecimal", chunked("g\r\nabc\r\n0\r\n\r\n"), "400"},
		{"9112 7.1", "a sign", chunked("+3\r\nabc\r\n0\r\n\r\n"), "400"},
		{"9112 7.1", "0x", chunked("0x3\r\nabc\r\n0\r\n\r\n"), "400"},
		{"9112 7.1", "a size beyond 63 bits", chunked("ffffffffffffffff\r\nabc\r\n0\r\n\r\n"), "400"},
		{"9112 7.1", "zeros without end", chunked(strings.Repeat("0", 16) + "3\r\nabc\r\n0\r\n\r\n"), "400"},
		{"9112 7.1", "bare LF behind a size", chunked("3\nabc\r\n0\r\n\r\n"), "400"},
		{"9112 7.1", "bare LF behind data", chunked("3\r\nabc\n0\r\n\r\n"), "400"},
		{"9112 7.1", "data longer than its size", chunked("3\r\nabcd\r\n0\r\n\r\n"), "400"},
		{"9112 7.1", "blanks behind a size", chunked("3 \r\nabc\r\n0\r\n\r\n"), "POST a/p BODY=abc"},
		{"9112 7.1", "blanks within a size", chunked("3 3\r\nabc\r\n0\r\n\r\n"), "400"},
		{"9112 7.1.1", "extensions", chunked("3;a=b;c=\"d;\\\\e\"\r\nabc\r\n0;x\r\n\r\n"), "POST a/p BODY=abc"},
		{"9112 7.1.1", "LF in an extension", chunked("3;a\nb\r\nabc\r\n0\r\n\r\n"), "400"},
		{"9112 7.1.1", "CR in an extension", chunked("3;a\rb\r\nabc\r\n0\r\n\r\n"), "400"},
		{"9112 7.1.1", "a line end in a quoted string", chunked("3;a=\"\r\nabc\r\n0\r\n\r\n\"\r\n"), "400"},
		{"9112 7.1.1", "extensions without end", chunked("3;" + strings.Repeat("a", 5000) + "\r\nabc\r\n0\r\n\r\n"), "400"},
		{"9112 7.1.2", "trailers", chunked("0\r\nX-Y: z\r\nA: b\r\n\r\n"), "POST a/p TRAILER:x-y=z TRAILER:a=b"},
		{"9112 7.1.2", "a bad trailer", chunked("0\r\nX Y: z\r\n\r\n"), "400"},
		{"9112 7.1.2", "a folded trailer", chunked("0\r\nX: z\r\n y\r\n\r\n"), "400"},
		{"9112 7.1.2", "bare LF in trailers", chunked("0\r\nX: z\n\r\n"), "400"},
		{"9110 6.5.1", "trailers that frame or route", chunked("0\r\nContent-Length: 1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n"), "POST a/p TRAILER:a=b"},
		{"9112 7.1.2", "trailers over the limit", chunked("0\r\n" + many(101) + "\r\n"), "431"},
		{"9112 7.1.2", "a trailer over the limit", chunked("0\r\nx: " + strings.Repeat("a", 61<<10) + "\r\n\r\n"), "431"},
		{"9112 7.4", "TE", get("TE: trailers, gzip\r\nConnection: te\r\n"), "GET a/p te=trailers"},
		{"9112 7.4", "TE without trailers", get("TE: gzip\r\n"), "GET a/p"},
		{"9112 9.3", "close", get("Connection: Close\r\n"), "GET a/p CLOSE"},
		{"9112 9.3", "close in a second line", get("Connection: keep-alive\r\nConnection: x, close\r\n"), "GET a/p CLOSE"},
		{"9112 9.3", "keep-alive of HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", "GET a/"},
		{"9110 7.6.1", "hop by hop", get("Connection: keep-alive, X-A\r\nX-A: 1\r\nX-B: 2\r\nx-a: 3\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: foo\r\nTrailer: x\r\nProxy-Authorization: z\r\n"), "GET a/p x-b=2 trailer=x proxy-authorization=z"},
		{"9110 7.6.1", "Connection names Host", get("Connection: host\r\n"), "400"},
		{"9110 7.6.1", "Connection names X-Forwarded-For", get("Connection: X-Forwarded-For\r\n"), "400"},
		{"9110 7.6.1", "Connection names a pseudo-header", get("Connection: :path\r\n"), "400"},
		{"9110 7.6.1", "Connection names Content-Length", post("Connection: content-length\r\nContent-Length: 2\r\n") + "ab", "POST a/p content-length=2 BODY=ab"},
		{"9110 7.8", "an upgrade", get("Connection: Upgrade\r\nUpgrade: WebSocket\r\n"), "GET a/p UPGRADE=websocket"},
		{"9110 7.8", "an upgrade that Connection does not name", get("Upgrade: WebSocket\r\n"), "GET a/p"},
		{"9113 3.1", "an upgrade to h2c is ignored", get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: abc\r\n"), "GET a/p"},
		{"9110 10.1.1", "100-continue", post("Expect: 100-Continue\r\nContent-Length: 2\r\n") + "ab", "POST a/p content-length=2 BODY=ab CONTINUE"},
		{"9110 10.1.1", "100-continue without a body", get("Expect: 100-continue\r\n"), "GET a/p"},
		{"9110 10.1.1", "another expectation", get("Expect: x\r\n"), "GET a/p expect=x"},
		{"9110 5.4", "100 fields", "GET / HTTP/1.0\r\n" + many(100) + "\r\n", "ok"},
		{"9110 5.4", "101 fields", "GET / HTTP/1.0\r\n" + many(101) + "\r\n", "431"},
		{"9110 5.4", "a head over the limit", get("x: " + strings.Repeat("a", 60<<10) + "\r\n"), "431"},
		{"9110 4.1", "a target over the limit", "GET /" + strings.Repeat("a", 60<<10), "431"},
		{"9112 2.2", "empty lines over the limit", strings.Repeat("\r\n", 31<<10), "431"},
		{"9112 3", "another protocol", "\x16\x03\x01", "400"},
	} {
		t.Run(test.section+" "+test.name, func(t *testing.T) {
			p, err := parse([]byte(test.in), limits, "", false)
			got := verdict(err)
			if err == nil && test.want != "ok" {
				got = p.String()
			}
			if got != test.want {
				t.Errorf("got %q (%v), want %q", got, err, test.want)
			}
		})
	}
}

func TestResponses(t *testing.T) {
	ok := func(lines, body string) string { return "HTTP/1.1 200 OK\r\n" + lines + "\r\n" + body }
	for _, test := range []struct {
		section, name, method, in, want string
	}{
		{"9112 4", "a response", "GET", ok("Content-Length: 2\r\nX-A: 1\r\n", "ab"), "200 content-length=2 x-a=1 BODY=ab"},
		{"9112 4", "no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200 content-length=0"},
		{"9112 4", "an empty reason", "GET", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "200 content-length=0"},
		{"9112 4", "two digits", "GET", "HTTP/1.1 99 X\r\nContent-Length: 0\r\n\r\n", "400"},
		{"9112 4", "four digits", "GET", "HTTP/1.1 2000 X\r\nContent-Length: 0\r\n\r\n", "400"},
		{"9112 4", "not digits", "GET", "HTTP/1.1 2x0 X\r\nContent-Length: 0\r\n\r\n", "400"},
		{"9112 4", "a control character in the reason", "GET", "HTTP/1.1 200 X\x01\r\nContent-Length: 0\r\n\r\n", "400"},
		{"9112 4", "another version", "GET", "HTTP/2.0 200 X\r\nContent-Length: 0\r\n\r\n", "400"},
		{"9112 4", "another protocol", "GET", "SSH-2.0-x\r\n\r\n", "400"},
		{"9112 2.2", "bare LF", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "400"},
		{"9112 5.2", "obs-fold", "GET", ok("x: a\r\n b\r\n", ""), "400"},
		{"9112 6.3", "CL and TE", "GET", ok("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400"},
		{"9112 6.3", "two lengths", "GET", ok("Content-Length: 2\r\nContent-Length: 3\r\n", "ab"), "400"},
		{"9112 6.3", "until the end", "GET", ok("", "ab"), "200 BODY=ab CLOSE"},
		{"9112 6.3", "chunked", "GET", ok("Transfer-Encoding: chunked\r\n", "2\r\nab\r\n0\r\nx: y\r\n\r\n"), "200 BODY=ab TRAILER:x=y"},
		{"9112 6.3", "a coding that is not known", "GET", ok("Transfer-Encoding: gzip\r\n", "ab"), "400"},
		{"9112 6.3", "HEAD", "HEAD", ok("Content-Length: 2\r\n", ""), "200 content-length=2"},
		{"9112 6.3", "HEAD, chunked", "HEAD", ok("Transfer-Encoding: chunked\r\n", ""), "200"},
		{"9112 6.3", "304 with a length", "GET", "HTTP/1.1 304 X\r\nContent-Length: 2\r\n\r\n", "304 content-length=2"},
		{"9112 6.3", "204", "GET", "HTTP/1.1 204 X\r\n\r\n", "204"},
		{"9112 6.3", "204 with a body", "GET", "HTTP/1.1 204 X\r\nContent-Length: 2\r\n\r\nab", "400"},
		{"9112 6.3", "103 with a body", "GET", "HTTP/1.1 103 X\r\nContent-Length: 2\r\n\r\nab", "400"},
		{"9112 6.3", "CONNECT", "CONNECT", ok("Content-Length: 2\r\n", "abc"), "200 content-length=2 BODY=abc CLOSE"},
		{"9112 6.3", "CONNECT refused", "CONNECT", "HTTP/1.1 403 X\r\nContent-Length: 2\r\n\r\nab", "403 content-length=2 BODY=ab"},
		{"9110 15.2.2", "101 that nobody asked for", "GET", "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n", "400"},
		{"9110 7.6.1", "hop by hop", "GET", ok("Content-Length: 0\r\nConnection: keep-alive, x-a\r\nx-a: 1\r\nKeep-Alive: 5\r\nUpgrade: foo\r\n", ""), "200 content-length=0"},
		{"9112 9.3", "HTTP/1.0", "GET", "HTTP/1.0 200 X\r\nContent-Length: 0\r\n\r\n", "200 content-length=0 CLOSE"},
		{"9112 6.1", "TE of HTTP/1.0", "GET", "HTTP/1.0 200 X\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
	} {
		t.Run(test.section+" "+test.name, func(t *testing.T) {
			p, err := parse([]byte(test.in), limits, test.method, false)
			got := verdict(err)
			if err == nil {
				got = p.String()
			}
			if got != test.want {
				t.Errorf("got %q (%v), want %q", got, err, test.want)
			}
		})
	}
}
