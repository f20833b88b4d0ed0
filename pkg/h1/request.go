package h1

import (
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// Request parses the head that Find found in b. r keeps its Fields' capacity; its
// strings stand in b. Scheme is left alone.
func (h *Head) Request(b []byte, r *message.Request) error {
	*r = message.Request{Scheme: r.Scheme, Fields: r.Fields[:0]}
	target, err := h.requestLine(b[h.start:h.ends[0]], r)
	if err != nil {
		return err
	}
	if err := h.fields(b, &r.Fields); err != nil {
		return err
	}
	if err := h.target(target, r); err != nil {
		return err
	}
	f := &h.facts
	if r.Version == message.HTTP10 {
		h.KeepAlive = f.keepAlive && !f.close
		h.Continue = false // RFC 9110 section 10.1.1
		if f.encodings > 0 {
			return errTEInHTTP10
		}
	} else {
		h.KeepAlive = !f.close
	}
	if err := h.body(); err != nil {
		return err
	}
	if r.Method == "CONNECT" && (h.Framing != NoBody || f.length >= 0) {
		return errConnectBody
	}
	switch h.Framing {
	case Chunked:
		r.ContentLength = message.Unknown
	case Length:
		r.ContentLength = h.Length
	default:
		h.Continue = false
	}
	if f.upgrade && len(f.protocol) > 0 && r.Version == message.HTTP11 && r.Method != "CONNECT" {
		// An upgrade to HTTP/2 may be ignored, and is (RFC 9113 section 3.1).
		if r.Upgrade = strings.ToLower(alias(f.protocol)); r.Upgrade == "h2c" {
			r.Upgrade = ""
		}
	}
	return nil
}

// requestLine returns the target.
func (h *Head) requestLine(line []byte, r *message.Request) ([]byte, error) {
	i := 0
	for i < len(line) && line[i] != ' ' {
		i++
	}
	if i == len(line) {
		return nil, errRequestLine
	}
	if r.Method = method(line[:i]); r.Method == "" {
		return nil, errMethod
	}
	line = line[i+1:]
	const version = "HTTP/1.1"
	at := len(line) - len(version) - 1
	if at <= 0 || line[at] != ' ' {
		return nil, errRequestLine
	}
	target, v := line[:at], line[at+1:]
	switch alias(v) {
	case version:
		r.Version = message.HTTP11
	case "HTTP/1.0":
		r.Version = message.HTTP10
	default:
		if alias(v[:5]) == "HTTP/" && v[6] == '.' && isDigit(v[5]) && isDigit(v[7]) {
			return nil, errVersion
		}
		return nil, errRequestLine
	}
	if !validTarget(target) {
		return nil, errTarget
	}
	return target, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// target reads the four forms of RFC 9112 section 3.2, and the Host.
func (h *Head) target(t []byte, r *message.Request) error {
	f := &h.facts
	if f.hosts > 1 {
		return errHosts
	}
	if !validAuthority(f.host) {
		return errAuthority
	}
	r.Authority = alias(f.host)
	switch {
	case r.Method == "CONNECT":
		colon := strings.LastIndexByte(alias(t), ':')
		if colon <= 0 || colon == len(t)-1 || !validAuthority(t) {
			return errTarget
		}
		r.Authority = alias(t)
		return nil // Envoy takes one without Host
	case t[0] == '/':
		r.Path = alias(t)
	case alias(t) == "*":
		if r.Method != "OPTIONS" {
			return errTarget
		}
		r.Path = "*"
	default:
		rest, ok := cutScheme(t)
		if !ok {
			return errTarget
		}
		end := 0
		for end < len(rest) && rest[end] != '/' && rest[end] != '?' {
			end++
		}
		if end == 0 || !validAuthority(rest[:end]) {
			return errTarget
		}
		// The target's authority stands for the Host's (RFC 9112 section 3.2.2).
		r.Authority = alias(rest[:end])
		switch {
		case end == len(rest):
			r.Path = "/"
		case rest[end] == '?':
			r.Path = "/" + alias(rest[end:])
		default:
			r.Path = alias(rest[end:])
		}
		return nil // as Envoy: what Host would say is known
	}
	if f.hosts == 0 && r.Version == message.HTTP11 {
		return errNoHost
	}
	return nil
}

func cutScheme(t []byte) (rest []byte, ok bool) {
	for _, scheme := range []string{"http://", "https://"} {
		if len(t) > len(scheme) && strings.EqualFold(alias(t[:len(scheme)]), scheme) {
			return t[len(scheme):], true
		}
	}
	return nil, false
}

// method is one of those that Envoy takes, or "".
func method(b []byte) string {
	for _, m := range commonMethods {
		if alias(b) == m {
			return m
		}
	}
	for _, m := range rareMethods {
		if alias(b) == m {
			return m
		}
	}
	return ""
}

var commonMethods = []string{"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT"}

var rareMethods = []string{
	"ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "M-SEARCH",
	"NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "TRACE", "UNBIND",
	"UNLINK", "UNLOCK", "UNSUBSCRIBE",
}
