package h1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// seeds are requests that parse, and some that do not.
var seeds = []string{
	get(""), get("X-A: 1\r\nx_b: 2\r\n"), get("Connection: close, x\r\nX: 1\r\n"), post("Content-Length: 3\r\n") + "abc",
	chunked("3;a=\"b\"\r\nabc\r\n0\r\nT: u\r\n\r\n"), "GET http://b:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
	"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "GET / HTTP/1.0\r\n\r\n", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
	get("x: 1\r\n 2\r\n"), "GET / HTTP/1.1\nHost: a\n\n", get("Host: b\r\n"), post("Content-Length: 1\r\nContent-Length: 1\r\n") + "a",
	post("Expect: 100-continue\r\nContent-Length: 1\r\n") + "a", get("Upgrade: websocket\r\nConnection: upgrade\r\n"), "\r\n" + get(""),
	get("TE: trailers, deflate\r\n"), post("Transfer-Encoding: chunked, chunked\r\n") + "0\r\n\r\n", get("x:\t1 \r\n"),
}

// What net/http refuses in a request we refuse, and where both accept they read the
// same: never do we take for a message what another would not. Where we accept and
// it does not, the case is named here with its reason.
//
// We are stricter than net/http in: bare LF and CR, folded lines, more or less than
// one space in the request line, blanks before a version's CRLF, methods that are not
// well known, fragments and bytes beyond ASCII in targets, userinfo and bad ports in
// authorities, doubled lengths even if equal, transfer codings in HTTP/1.0 (which it
// takes no notice of), Connection naming Host or X-Forwarded-For, CONNECT with a body, chunk
// lines ending in LF alone, and limits.
func FuzzRequestAgainstNetHTTP(f *testing.F) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		ours, err := parse(bytes.Clone(in), limits, "", false)
		if err != nil {
			return
		}
		r := &ours.request
		theirs, body, err := readRequest(in)
		if err != nil {
			if known(r, in, err) {
				return
			}
			t.Fatalf("net/http refuses %q: %v; we read %v", in, err, ours)
		}
		if theirs.Method != r.Method || theirs.Host != r.Authority {
			t.Fatalf("%q: net/http reads %s of %q, we read %v", in, theirs.Method, theirs.Host, ours)
		}
		if body != ours.body {
			t.Fatalf("%q: net/http reads the body %q, we read %q", in, body, ours.body)
		}
		for _, field := range r.Fields {
			if field.Name == "te" { // reduced to trailers
				continue
			}
			if !slices.ContainsFunc(theirs.Header[http.CanonicalHeaderKey(field.Name)], func(v string) bool { return v == field.Value }) {
				t.Fatalf("%q: net/http has no %s: %q", in, field.Name, field.Value)
			}
		}
		for _, field := range ours.trailers {
			if v := theirs.Trailer[http.CanonicalHeaderKey(field.Name)]; !slices.Contains(v, field.Value) {
				t.Fatalf("%q: net/http has no trailer %s: %q", in, field.Name, field.Value)
			}
		}
		if theirs.Close && ours.head.KeepAlive {
			t.Fatalf("%q: net/http closes, we do not", in)
		}
	})
}

func readRequest(in []byte) (*http.Request, string, error) {
	// net/http skips no empty lines before a request.
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimLeft(in, "\r\n"))))
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(r.Body)
	return r, string(body), err
}

// known are requests that we accept and net/http does not, harmless ones.
func known(r *message.Request, in []byte, err error) bool {
	text := err.Error()
	switch {
	// net/url parses what we pass on untouched: a bad escape is the origin's matter.
	case strings.Contains(text, "invalid URL escape"), strings.Contains(text, "invalid URI"), strings.Contains(text, "net/url"):
		return true
	case strings.HasPrefix(text, "parse ") && (strings.HasPrefix(r.Path, "/") || r.Path == "*" || r.Method == "CONNECT"):
		return true
	// Extensions are not counted against the body's size by us, but bounded.
	case strings.Contains(text, "chunked encoding contains too much non-data"):
		return true
	// HTTP/1.0 may ask without a host; so may absolute targets and CONNECT.
	case strings.Contains(text, "missing required Host header"):
		return true
	// It allows trailers none of the names that frame a message; we drop them.
	case strings.Contains(text, "bad trailer key"):
		return true
	}
	return false
}

// Responses are held to the same: a bad upstream must not be read in two ways.
func FuzzResponseAgainstNetHTTP(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nA: b\r\n\r\n",
		"HTTP/1.0 200\r\n\r\nab", "HTTP/1.1 204 X\r\n\r\n", "HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 103 X\r\nLink: a\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: close, x\r\nX: 1\r\nContent-Length: 0\r\n\r\n",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, head bool) {
		method := map[bool]string{false: "GET", true: "HEAD"}[head]
		ours, err := parse(bytes.Clone(in), limits, method, false)
		if err != nil {
			return
		}
		theirs, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(bytes.TrimLeft(in, "\r\n"))), &http.Request{Method: method})
		var body []byte
		if err == nil {
			body, err = io.ReadAll(theirs.Body)
		}
		if err != nil {
			text := err.Error()
			if strings.Contains(text, "too much non-data") || strings.Contains(text, "bad trailer key") {
				return // as for requests
			}
			t.Fatalf("net/http refuses %q: %v; we read %v", in, err, ours)
		}
		if theirs.StatusCode != ours.response.Status || string(body) != ours.body || theirs.Close && ours.head.KeepAlive {
			t.Fatalf("%q: net/http reads %d %q, close %v; we read %v", in, theirs.StatusCode, body, theirs.Close, ours)
		}
	})
}

// However a chunked body is cut into pieces, it reads the same.
func FuzzChunkedInPieces(f *testing.F) {
	for _, seed := range []string{"3\r\nabc\r\n0\r\n\r\n", "3;a=b\r\nabc\r\n1\r\nx\r\n0\r\nA: b\r\n\r\nrest", "0\r\n\r\n", "3\nabc", "a \r\n0123456789\r\n0;\"\\\"\"\r\n\r\n"} {
		f.Add([]byte(seed), uint8(1))
		f.Add([]byte(seed), uint8(5))
	}
	read := func(in []byte, piece int) (string, message.Fields, int, error) {
		var h Head
		h.Reset(limits)
		h.Framing = Chunked
		var b Body
		b.Reset(&h)
		body, taken := "", 0
		for taken < len(in) && !b.Done() {
			part := in[taken:min(len(in), taken+piece)]
			for len(part) > 0 && !b.Done() {
				data, n, err := b.Next(part)
				body += string(data)
				taken += n
				part = part[n:]
				if err != nil {
					return body, nil, taken, err
				}
				if n == 0 && !b.Done() {
					return body, nil, taken, errors.New("stuck")
				}
			}
		}
		return body, b.Trailers(), taken, b.End()
	}
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		body, trailers, taken, err := read(in, len(in)+1)
		body2, trailers2, taken2, err2 := read(in, int(piece)%16+1)
		if body != body2 || !slices.Equal(trailers, trailers2) || verdict(err) != verdict(err2) || err == nil && taken != taken2 {
			t.Fatalf("%q: at once %q %v %d %v, in pieces of %d %q %v %d %v", in, body, trailers, taken, err, piece%16+1, body2, trailers2, taken2, err2)
		}
	})
}

// A head that came in is sent, and reads the same at the other end.
func FuzzRoundTrip(f *testing.F) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		first, err := parse(bytes.Clone(in), limits, "", false)
		if err != nil {
			return
		}
		framing := NoBody
		switch {
		case first.request.ContentLength > 0:
			framing = Length
		case first.request.ContentLength < 0:
			framing = Chunked
		}
		out, err := AppendRequest(nil, &first.request, framing)
		if err != nil {
			t.Fatalf("%q cannot be sent: %v", in, err)
		}
		switch framing {
		case Length:
			out = append(out, first.body...)
		case Chunked:
			if first.body != "" {
				out = append(AppendChunk(out, len(first.body)), first.body+"\r\n"...)
			}
			if out, err = AppendLast(out, first.trailers); err != nil {
				t.Fatalf("%q: trailers cannot be sent: %v", in, err)
			}
		}
		roomy := Limits{Head: 2 * limits.Head, Fields: 2 * limits.Fields}
		second, err := parse(bytes.Clone(out), roomy, "", false)
		if err != nil {
			t.Fatalf("%q was sent as %q: %v", in, out, err)
		}
		drop := func(p *parsed) {
			p.request.Fields.Del("content-length") // it may be written otherwise
			p.head.KeepAlive, p.head.Continue = true, false
		}
		drop(first)
		drop(second)
		if first.String() != second.String() || second.rest != "" {
			t.Fatalf("%q was sent as %q: %v became %v", in, out, first, second)
		}
	})
}

// A head that comes byte by byte reads as one that comes at once.
func FuzzHeadInPieces(f *testing.F) {
	for _, seed := range seeds {
		f.Add([]byte(seed), uint8(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		find := func(step int) (int, error) {
			var h Head
			h.Reset(limits)
			for end := min(step, len(in)); ; end = min(end+step, len(in)) {
				b := bytes.Clone(in[:end])
				n, err := h.Find(b)
				if n > 0 {
					err = h.Request(b, &message.Request{})
				}
				if n > 0 || err != nil || end == len(in) {
					return n, err
				}
			}
		}
		n, err := find(len(in) + 1)
		n2, err2 := find(int(piece)%16 + 1)
		if verdict(err) != verdict(err2) || err == nil && n != n2 {
			t.Fatalf("%q: at once %d, %v; in pieces %d, %v", in, n, err, n2, err2)
		}
	})
}
