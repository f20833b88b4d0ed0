package codec

import (
	"bytes"
	"slices"

	"golang.org/x/net/http/httpguts"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
)

// protocolOf tells the protocol from first bytes, if they are enough. What a server
// could take for a request is HTTP/1, however wrong it is: its reader refuses it,
// and nobody gets past a policy on requests by a line that he bends.
func protocolOf(b []byte) (protocol Protocol, known bool) {
	if n := min(len(b), len(h2.Preface)); string(b[:n]) == h2.Preface[:n] {
		return HTTP2, n == len(h2.Preface)
	}
	line, _, whole := bytes.Cut(trim(b, true), []byte{'\n'})
	method, target := line, []byte(nil)
	if at := slices.IndexFunc(line, isBlank); at >= 0 {
		method, target = line[:at], trim(line[at:], false)
	}
	switch {
	case slices.ContainsFunc(method, notOfToken), len(target) > 0 && (target[0] < ' ' || target[0] == 0x7f):
		return TCP, true
	case !whole:
		return TCP, false
	case isRequest(method, target):
		return HTTP1, true
	}
	return TCP, true
}

// endsRequest tells whether the bytes of a client that sends no more are a request to
// servers that take the end for that of a line.
func endsRequest(b []byte) bool {
	protocol, known := protocolOf(append(bytes.Clone(b), '\n'))
	return known && protocol == HTTP1
}

// isRequest tells whether servers are found that take a line for a request's: not all
// of them look at the version (Java's own, HTTP/0.9), nor do all look for a "/".
func isRequest(method, target []byte) bool {
	words := fields(target)
	if len(method) == 0 || len(words) == 0 {
		return false
	}
	path := words[0][0] == '/' || bytes.Contains(words[0], []byte(":/"))
	switch {
	case slices.ContainsFunc(words, isVersion):
		return true
	case len(words) == 1: // in lower case it is one of memcached's commands
		return string(method) == "GET" || path && bytes.ContainsAny(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	}
	return path && !bytes.HasPrefix(words[1], []byte("RTSP/"))
}

// isVersion tells whether a word begins with a version of HTTP.
func isVersion(word []byte) bool {
	const http = "HTTP/"
	return len(word) >= len(http) && bytes.EqualFold(word[:len(http)], []byte(http))
}

// isBlank tells whether servers are found that take a byte for a space, in ASCII or in
// Latin-1.
func isBlank(c byte) bool {
	switch c {
	case ' ', '\t', '\v', '\f', '\r', 0x1c, 0x1d, 0x1e, 0x1f, 0x85, 0xa0:
		return true
	}
	return false
}

// trim takes the spaces before a line away, and, where it asks so, empty lines.
func trim(b []byte, lines bool) []byte {
	for len(b) > 0 && (isBlank(b[0]) || lines && b[0] == '\n') {
		b = b[1:]
	}
	return b
}

// fields are the words of a line.
func fields(line []byte) (words [][]byte) {
	for len(line) > 0 {
		at := slices.IndexFunc(line, isBlank)
		if at < 0 {
			at = len(line)
		}
		if at > 0 {
			words = append(words, line[:at])
		}
		line = line[min(at+1, len(line)):]
	}
	return words
}

// notOfToken tells whether a byte cannot be in a method (RFC 9110 section 5.6.2).
func notOfToken(c byte) bool { return !httpguts.IsTokenRune(rune(c)) }
