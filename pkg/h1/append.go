package h1

import (
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// AppendRequest appends the head of a request whose body has this framing.
func AppendRequest(b []byte, r *message.Request, framing Framing) ([]byte, error) {
	target := r.Path
	if r.Method == "CONNECT" {
		target = r.Authority
	}
	if target == "" || !validTarget(bytesOf(target)) || !token(r.Method) || !validValue(bytesOf(r.Authority)) || !validValue(bytesOf(r.Upgrade)) {
		return b, errUnsendable
	}
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\nhost: "...)
	b = append(b, r.Authority...)
	b = append(b, "\r\n"...)
	length := int64(message.Unknown)
	switch {
	case framing == Length:
		length = r.ContentLength
	case framing == NoBody && r.Upgrade == "" && (mayExpectBody(r.Method) || r.ContentLength == 0 && hasLength(r.Fields)):
		length = 0
	}
	b, err := appendFields(b, r.Fields, length)
	if err != nil {
		return b, err
	}
	if framing == Chunked {
		b = append(b, "transfer-encoding: chunked\r\n"...)
	}
	if r.Upgrade != "" {
		b = append(b, "connection: upgrade\r\nupgrade: "...)
		b = append(b, r.Upgrade...)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// mayExpectBody reports whether a request without a body says so (RFC 9110 section
// 8.6); Envoy leaves it out for GET, HEAD, DELETE, CONNECT, OPTIONS and TRACE alone.
func mayExpectBody(method string) bool {
	switch method {
	case "GET", "HEAD", "DELETE", "CONNECT", "TRACE":
		return false
	}
	return true
}

func hasLength(f message.Fields) bool {
	_, ok := f.Lookup("content-length")
	return ok
}

// AppendResponse appends the head of a response whose body has this framing. length
// is that of the Content-Length field, or message.Unknown for none. connection is the
// Connection field's value, or "".
func AppendResponse(b []byte, r *message.Response, framing Framing, length int64, connection string) ([]byte, error) {
	b = appendStatus(b, r.Status)
	if framing == Chunked {
		length = message.Unknown
	}
	b, err := appendFields(b, r.Fields, length)
	if err != nil {
		return b, err
	}
	if framing == Chunked {
		b = append(b, "transfer-encoding: chunked\r\n"...)
	}
	if connection != "" {
		b = append(b, "connection: "...)
		b = append(b, connection...)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

func appendStatus(b []byte, status int) []byte {
	if status == 200 {
		return append(b, "HTTP/1.1 200 OK\r\n"...)
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, StatusText(status)...)
	return append(b, "\r\n"...)
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "content-length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// appendFields leaves out what the codec writes itself, and writes names in lower
// case. A length that is known stands where its field is, or at the end.
func appendFields(b []byte, f message.Fields, length int64) ([]byte, error) {
	for i := range f {
		name, value := f[i].Name, f[i].Value
		switch name {
		case "content-length":
			if length >= 0 {
				b = appendLength(b, length)
				length = message.Unknown
			}
			continue
		case "transfer-encoding", "connection", "keep-alive", "proxy-connection", "host":
			continue
		}
		at := len(b)
		b = append(b, name...)
		for i, c := range b[at:] {
			if b[at+i] = lower[c]; lower[c] == 0 {
				return b, errUnsendable
			}
		}
		b = append(b, ": "...)
		at = len(b)
		b = append(b, value...)
		if !validValue(b[at:]) || len(name) == 0 {
			return b, errUnsendable
		}
		b = append(b, "\r\n"...)
	}
	if length >= 0 {
		b = appendLength(b, length)
	}
	return b, nil
}

// ChunkRoom is what a chunk's line takes at most.
const ChunkRoom = 18

// AppendChunk appends the line that begins a chunk of n bytes, n > 0. The chunk is
// followed by CRLF.
func AppendChunk(b []byte, n int) []byte {
	return append(strconv.AppendInt(b, int64(n), 16), "\r\n"...)
}

// AppendLast appends the end of a chunked body.
func AppendLast(b []byte, trailers message.Fields) ([]byte, error) {
	b, err := appendFields(append(b, "0\r\n"...), trailers, message.Unknown)
	if err != nil {
		return b, err
	}
	return append(b, "\r\n"...), nil
}

func token(s string) bool {
	for i := range len(s) {
		if lower[s[i]] == 0 {
			return false
		}
	}
	return s != ""
}
