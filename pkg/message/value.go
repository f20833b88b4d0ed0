package message

import (
	"strconv"
	"strings"
)

// Value is the first value of a field of the request or of what stands beside its
// fields: the pseudo-header fields of HTTP/2 by their names, "host" for the
// authority, "upgrade" and "content-length". The name is in lower case.
func (r *Request) Value(name string) (string, bool) {
	if v, ok, special := r.special(name); special {
		return v, ok
	}
	return r.Fields.Lookup(name)
}

// combined are the request fields of which Envoy keeps one line, joined by commas,
// as it was seen to (1.40); all of its own, x-envoy-*, are as well.
var combined = map[string]bool{
	"accept": true, "accept-encoding": true, "access-control-request-headers": true, "access-control-request-method": true,
	"authorization": true, "cache-control": true, "content-type": true, "expect": true, "grpc-accept-encoding": true,
	"grpc-timeout": true, "if-match": true, "if-modified-since": true, "if-none-match": true, "if-range": true,
	"if-unmodified-since": true, "origin": true, "pragma": true, "referer": true, "te": true, "user-agent": true, "via": true,
	"x-client-trace-id": true, "x-forwarded-client-cert": true, "x-forwarded-for": true, "x-forwarded-host": true,
	"x-forwarded-port": true, "x-forwarded-proto": true, "x-request-id": true,
}

// Combined reports whether several lines of a request's field count as one.
func Combined(name string) bool { return combined[name] || strings.HasPrefix(name, "x-envoy-") }

// Joined is as Value, with all lines of a field joined by commas.
func (r *Request) Joined(name string) (string, bool) {
	if v, ok, special := r.special(name); special {
		return v, ok
	}
	return r.Fields.Joined(name)
}

func (r *Request) special(name string) (value string, found, special bool) {
	switch name {
	case ":authority", "host":
		return r.Authority, r.Authority != "", true
	case ":path":
		return r.Path, r.Path != "", true
	case ":method":
		return r.Method, true, true
	case ":scheme":
		return r.Scheme, r.Scheme != "", true
	case "upgrade":
		return r.Upgrade, r.Upgrade != "", true
	case "content-length":
		if r.ContentLength > 0 {
			return strconv.FormatInt(r.ContentLength, 10), true, true
		}
		value, found = r.Fields.Lookup(name)
		return value, found, true
	}
	return "", false, false
}

// Value is the first value of a field of the response, or ":status".
func (r *Response) Value(name string) (string, bool) {
	if name == ":status" {
		return strconv.Itoa(r.Status), true
	}
	if name == "content-length" && r.ContentLength > 0 {
		return strconv.FormatInt(r.ContentLength, 10), true
	}
	return r.Fields.Lookup(name)
}

// Joined is as Value, with all lines of a field joined by commas.
func (r *Response) Joined(name string) (string, bool) {
	if name == ":status" || name == "content-length" {
		return r.Value(name)
	}
	return r.Fields.Joined(name)
}

// GRPC reports whether the request is of gRPC, by its content type.
func (r *Request) GRPC() bool {
	const base = "application/grpc"
	ct := r.Fields.Get("content-type")
	return r.Path != "" && strings.HasPrefix(ct, base) && (len(ct) == len(base) || ct[len(base)] == '+')
}

// GRPCFromHTTP is the gRPC status that an HTTP status means to a gRPC client
// (gRPC's http-grpc-status-mapping).
func GRPCFromHTTP(status int) int {
	switch status {
	case 400:
		return 13
	case 401:
		return 16
	case 403:
		return 7
	case 404:
		return 12
	case 429, 502, 503, 504:
		return 14
	}
	return 2
}

// Cookie is the value of a cookie, without quotes around it (RFC 6265 section
// 4.1.1), and whether the request has one of that name.
func (r *Request) Cookie(name string) (string, bool) {
	for i := range r.Fields {
		if r.Fields[i].Name != "cookie" {
			continue
		}
		for rest := r.Fields[i].Value; rest != ""; {
			var pair string
			pair, rest, _ = strings.Cut(rest, ";")
			key, value, ok := strings.Cut(strings.TrimLeft(pair, " "), "=")
			if !ok || key != name {
				continue
			}
			if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
				value = value[1 : len(value)-1]
			}
			return value, true
		}
	}
	return "", false
}

// QueryValue is the first value of a parameter in a path's query, as written, and
// whether there is one.
func QueryValue(path, name string) (string, bool) {
	_, query, ok := strings.Cut(path, "?")
	for ok && query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if key, value, _ := strings.Cut(pair, "="); key == name {
			return value, true
		}
	}
	return "", false
}

// WithoutQuery is a path up to its query or fragment.
func WithoutQuery(path string) string {
	if at := strings.IndexAny(path, "?#"); at >= 0 {
		return path[:at]
	}
	return path
}
