package h2

import "strconv"

// nameChars are those of a field's name (RFC 9110 section 5.1) in lower case (RFC
// 9113 section 8.2).
var nameChars = func() (chars [256]bool) {
	for c := 'a'; c <= 'z'; c++ {
		chars[c] = true
	}
	for c := '0'; c <= '9'; c++ {
		chars[c] = true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		chars[c] = true
	}
	return chars
}()

// validName takes pseudo-fields as well.
func validName[T string | []byte](name T) bool {
	for i := range len(name) {
		if !nameChars[name[i]] && (i > 0 || name[i] != ':') {
			return false
		}
	}
	return len(name) > 0
}

// validValue: no control characters but the tab, no white space at the ends. RFC
// 9113 section 8.2.1 names NUL, CR and LF; the others are RFC 9110's (section 5.5).
func validValue[T string | []byte](value T) bool {
	if n := len(value); n > 0 && (isSpace(value[0]) || isSpace(value[n-1])) {
		return false
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// head is what the engine itself must know of a header list.
type head struct {
	status   int   // of a response
	length   int64 // content-length, or -1
	method   string
	protocol bool // an extended CONNECT (RFC 8441)
}

// informational responses do not end the wait for one.
func (h *head) informational() bool { return h.status >= 100 && h.status < 200 }

// bodiless: a response whose content-length says nothing of what follows.
func (h *head) bodiless() bool { return h.informational() || h.status == 204 || h.status == 304 }

// connect reports whether the request asks for a tunnel, of which no length is
// known.
func (h *head) connect() bool { return h.method == "CONNECT" }

// regular checks a field that is no pseudo-field (sections 8.2.2 and 8.1.1).
func (h *head) regular(f *Field) bool {
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return false
	case "te":
		return f.Value == "trailers"
	case "content-length":
		n, err := strconv.ParseInt(f.Value, 10, 64)
		if err != nil || f.Value[0] < '0' || f.Value[0] > '9' || h.length >= 0 && h.length != n {
			return false
		}
		h.length = n
	}
	return f.Name[0] != ':' // a pseudo-field after others
}

// pseudo are the pseudo-fields of a request; each stands there once.
type pseudo struct{ method, scheme, authority, path, protocol *Field }

func (p *pseudo) of(name string) **Field {
	switch name {
	case ":method":
		return &p.method
	case ":scheme":
		return &p.scheme
	case ":authority":
		return &p.authority
	case ":path":
		return &p.path
	case ":protocol":
		return &p.protocol
	}
	return nil
}

// requestHead checks a request's fields (section 8.3.1); ok is false for a
// malformed one.
func requestHead(d *decoder, extended bool) (h head, ok bool) {
	h.length = -1
	if d.wrong {
		return h, false
	}
	fields := d.fields
	var p pseudo
	i := 0
	for ; i < len(fields) && fields[i].Name[0] == ':'; i++ {
		at := p.of(fields[i].Name)
		if at == nil || *at != nil {
			return h, false
		}
		*at = &fields[i]
	}
	for ; i < len(fields); i++ {
		if !h.regular(&fields[i]) {
			return h, false
		}
	}
	if p.method == nil || !validMethod(p.method.Value) {
		return h, false
	}
	h.method, h.protocol = p.method.Value, p.protocol != nil
	if h.protocol && (!extended || !h.connect() || p.authority == nil || p.protocol.Value == "") {
		return h, false
	}
	if h.connect() {
		h.length = -1
	}
	if h.connect() && !h.protocol { // section 8.5
		return h, p.scheme == nil && p.path == nil && p.authority != nil && p.authority.Value != ""
	}
	if p.scheme == nil || p.scheme.Value == "" || p.path == nil || p.path.Value == "" {
		return h, false
	}
	if p.authority != nil && p.authority.Value == "" {
		return h, false
	}
	return h, p.path.Value[0] == '/' || p.path.Value == "*" && h.method == "OPTIONS"
}

func validMethod(s string) bool {
	for i := range len(s) {
		if c := s[i]; !nameChars[c] && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}

// responseHead checks a response's fields (section 8.3.2).
func responseHead(d *decoder) (h head, ok bool) {
	h.length = -1
	fields := d.fields
	if d.wrong || len(fields) == 0 || fields[0].Name != ":status" {
		return h, false
	}
	status := fields[0].Value
	if len(status) != 3 {
		return h, false
	}
	for i := range 3 {
		if status[i] < '0' || status[i] > '9' {
			return h, false
		}
		h.status = 10*h.status + int(status[i]-'0')
	}
	for i := range fields[1:] {
		if !h.regular(&fields[1+i]) {
			return h, false
		}
	}
	// 101 switches protocols, which HTTP/2 has no use for (section 8.6).
	return h, h.status >= 100 && h.status != 101
}

// validTrailers: no pseudo-fields, none of a connection's.
func validTrailers(d *decoder) bool {
	if d.wrong {
		return false
	}
	h := head{length: -1}
	for i := range d.fields {
		if !h.regular(&d.fields[i]) {
			return false
		}
	}
	return true
}
