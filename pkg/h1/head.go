package h1

import (
	"bytes"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// Limits bound what a peer may send in a head or in trailers.
type Limits struct {
	// Head is in bytes, with the line that begins it; 0 is 60 KiB, as in Envoy.
	Head int
	// Fields is how many field lines; 0 is 100, as in Envoy.
	Fields int
}

// WithDefaults fills what is zero.
func (l Limits) WithDefaults() Limits {
	if l.Head == 0 {
		l.Head = 60 << 10
	}
	if l.Fields == 0 {
		l.Fields = 100
	}
	return l
}

// Framing says how a message's body ends.
type Framing uint8

// The framings (RFC 9112 section 6.3).
const (
	NoBody Framing = iota
	Length
	Chunked
	UntilClose
	Raw // the bytes of another protocol, after an upgrade or CONNECT
)

// Head is what a head says of its connection and its body, and the state of
// finding it. Its zero value is ready once Reset was called.
type Head struct {
	// Framing of the body, and its length where that is Length.
	Framing Framing
	Length  int64
	// KeepAlive is set when the connection may be used again after this message.
	KeepAlive bool
	// Continue is set when the client waits for 100 (Continue).
	Continue bool

	limits Limits
	start  int   // of the first line that is not empty
	line   int   // where the line begins that is not complete
	at     int   // what is before was looked at
	ends   []int // of the lines, without CRLF
	facts  facts
}

// Reset makes h ready for the next head.
func (h *Head) Reset(limits Limits) {
	ends := h.ends[:0]
	*h = Head{limits: limits, ends: ends}
}

// Find looks for a head at the beginning of b, which grew since the last call. It
// returns how long the head is, or 0 when there is more to come.
func (h *Head) Find(b []byte) (int, error) {
	for {
		i := bytes.IndexByte(b[h.at:], '\n')
		if i < 0 {
			h.at = len(b)
			return 0, h.early(b)
		}
		end := h.at + i
		if end == h.line || b[end-1] != '\r' {
			return 0, errBareLF
		}
		h.at = end + 1
		if h.at-h.start > h.limits.Head {
			return 0, errHeadTooLarge
		}
		switch {
		case end-1 > h.line:
			if len(h.ends) == 0 && lower[b[h.line]] == 0 {
				return 0, errNotHTTP
			}
			if len(h.ends) > h.limits.Fields {
				return 0, errTooManyFields
			}
			h.ends = append(h.ends, end-1)
		case len(h.ends) > 0:
			return h.at, nil
		case h.at > h.limits.Head:
			return 0, errHeadTooLarge
		default: // an empty line before the first is ignored (RFC 9112 section 2.2)
			h.start = h.at
		}
		h.line = h.at
	}
}

// early refuses what cannot become a head, without waiting for its end.
func (h *Head) early(b []byte) error {
	if len(b)-h.start >= h.limits.Head {
		return errHeadTooLarge
	}
	if len(h.ends) == 0 && len(b) > h.start && lower[b[h.start]] == 0 && b[h.start] != '\r' {
		return errNotHTTP
	}
	return nil
}

// facts are what the fields say of the connection, while they are read.
type facts struct {
	host       []byte
	hosts      int
	length     int64 // -1 for none
	encodings  int
	chunked    bool // the last coding is chunked
	connection bool // there is a Connection field
	close      bool
	keepAlive  bool
	upgrade    bool // named by Connection
	protocol   []byte
	named      int // how many others Connection names
}

// fields parses the field lines into f. Those that belong to the connection are
// not in f but in h.facts.
func (h *Head) fields(b []byte, f *message.Fields) error {
	h.facts = facts{length: -1}
	start := h.ends[0] + 2
	for _, end := range h.ends[1:] {
		name, value, err := splitField(b[start:end])
		if err != nil {
			return err
		}
		start = end + 2
		keep, err := h.note(name, &value)
		if err != nil {
			return err
		}
		if keep {
			*f = append(*f, message.Field{Name: alias(name), Value: alias(value)})
		}
	}
	if h.facts.named > 0 {
		return h.dropNamed(b, f)
	}
	return nil
}

// splitField makes a line's name lower case, in place.
func splitField(line []byte) (name, value []byte, err error) {
	i := 0
	for i < len(line) {
		c := lower[line[i]]
		if c == 0 {
			break
		}
		line[i] = c
		i++
	}
	if i == 0 || i == len(line) || line[i] != ':' {
		if i == 0 && (line[0] == ' ' || line[0] == '\t') {
			return nil, nil, errFold
		}
		return nil, nil, errFieldName
	}
	value = trim(line[i+1:])
	if !validValue(value) {
		return nil, nil, errFieldValue
	}
	return line[:i], value, nil
}

// note takes what a field says of the connection, and reports whether it is passed
// on. What Envoy passes on is (RFC 9110 section 7.6.1).
func (h *Head) note(name []byte, value *[]byte) (keep bool, err error) {
	f := &h.facts
	switch alias(name) {
	case "host":
		f.host = *value
		f.hosts++
		return false, nil
	case "content-length":
		if f.length >= 0 {
			return false, errLengths
		}
		f.length, err = parseLength(*value)
		return true, err
	case "transfer-encoding":
		f.encoding(*value)
		return false, nil
	case "connection":
		f.connection = true
		f.tokens(*value)
		return false, nil
	case "upgrade":
		f.protocol = *value
		return false, nil
	case "keep-alive", "proxy-connection", "http2-settings":
		return false, nil
	case "te":
		// Of the codings that a client takes, only trailers pass through a proxy.
		for rest := *value; rest != nil; {
			var token []byte
			if token, rest = nextToken(rest); isToken(token, "trailers") {
				*value = token
				return true, nil
			}
		}
		return false, nil
	case "expect":
		if isToken(*value, "100-continue") {
			h.Continue = true
			return false, nil
		}
	}
	return true, nil
}

func parseLength(b []byte) (n int64, err error) {
	if len(b) == 0 || len(b) > 18 {
		return 0, errLength
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, errLength
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

func (f *facts) encoding(value []byte) {
	for rest := value; ; {
		var token []byte
		token, rest = nextToken(rest)
		f.encodings++
		f.chunked = isToken(token, "chunked") && (f.encodings == 1 || !f.chunked)
		if rest == nil {
			return
		}
	}
}

func (f *facts) tokens(value []byte) {
	for rest := value; rest != nil; {
		var token []byte
		token, rest = nextToken(rest)
		switch {
		case len(token) == 0:
		case isToken(token, "close"):
			f.close = true
		case isToken(token, "keep-alive"):
			f.keepAlive = true
		case isToken(token, "upgrade"):
			f.upgrade = true
		case isToken(token, "te"), isToken(token, "http2-settings"):
		default:
			f.named++
		}
	}
}

// dropNamed takes away the fields that Connection names.
func (h *Head) dropNamed(b []byte, f *message.Fields) error {
	start := h.ends[0] + 2
	for _, end := range h.ends[1:] {
		line := b[start:end]
		start = end + 2
		const name = "connection:"
		if len(line) < len(name) || alias(line[:len(name)]) != name {
			continue
		}
		for rest := line[len(name):]; rest != nil; {
			var token []byte
			token, rest = nextToken(rest)
			for i, c := range token {
				if lower[c] == 0 {
					return errConnection
				}
				token[i] = lower[c]
			}
			switch s := alias(token); s {
			case "", "close", "keep-alive", "upgrade", "te", "content-length", "transfer-encoding":
			case "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded":
				return errConnection // nobody may make a proxy forget who asked (Envoy refuses it too)
			default:
				f.Del(s)
			}
		}
	}
	return nil
}

// body sets the framing of a message that may have one.
func (h *Head) body() error {
	f := &h.facts
	switch {
	case f.encodings > 0:
		if f.length >= 0 {
			return errLengthAndTE
		}
		if !f.chunked {
			return errTENotChunked
		}
		if f.encodings > 1 {
			return errTEUnknown
		}
		h.Framing = Chunked
	case f.length >= 0:
		h.Length = f.length
		h.Framing = NoBody
		if f.length > 0 {
			h.Framing = Length
		}
	}
	return nil
}
