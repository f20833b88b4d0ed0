// Package message has the nouns of HTTP that all its versions share: the heads of
// requests and responses, and their fields. It imports the standard library alone.
//
// Strings in a head may stand in a connection's buffer: they are valid until the
// exchange ends. Who keeps one longer clones it.
package message

// Version is of HTTP.
type Version uint8

// The versions.
const (
	HTTP10 Version = iota + 1
	HTTP11
	HTTP2
)

// String is as Envoy's %PROTOCOL% has it.
func (v Version) String() string {
	switch v {
	case HTTP10:
		return "HTTP/1.0"
	case HTTP11:
		return "HTTP/1.1"
	case HTTP2:
		return "HTTP/2"
	}
	return "-"
}

// Unknown is the content length of a body whose end is told otherwise.
const Unknown = -1

// Request is the head of a request, as it is in all versions (RFC 9110).
type Request struct {
	Version Version
	Method  string
	// Scheme is "http" or "https".
	Scheme string
	// Authority is the host with its port, if one was given. It is not in Fields.
	Authority string
	// Path is the path and the query; "*" or, for CONNECT, "".
	Path string
	// Upgrade is the protocol that a request wants to go over to, in lower case:
	// of HTTP/1.1's Upgrade field, or of an extended CONNECT (RFC 8441). "" for none.
	Upgrade string
	// Fields are all others, without those that belong to one connection
	// (RFC 9110 section 7.6.1), which a codec takes and makes itself.
	Fields Fields
	// ContentLength is that of the body in bytes, or Unknown. A request without a
	// body has 0.
	ContentLength int64
}

// Response is the head of a response.
type Response struct {
	Status int
	Fields Fields
	// ContentLength is that of the body in bytes, or Unknown.
	ContentLength int64
}
