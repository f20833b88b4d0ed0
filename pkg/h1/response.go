package h1

import "github.com/fairlead-mesh/fairlead/pkg/message"

// Response parses the head that Find found in b, of a response to a request with
// this method, which asked for an upgrade or did not. r keeps its Fields' capacity;
// its strings stand in b. A 101 keeps its Upgrade field.
func (h *Head) Response(b []byte, r *message.Response, method string, upgrade bool) error {
	*r = message.Response{Fields: r.Fields[:0], ContentLength: message.Unknown}
	if h.start > 0 { // only servers pass over empty lines (RFC 9112 section 2.2)
		return errStatusLine
	}
	http10, err := h.statusLine(b[h.start:h.ends[0]], r)
	if err != nil {
		return err
	}
	if err := h.fields(b, &r.Fields); err != nil {
		return err
	}
	f := &h.facts
	if f.hosts > 0 {
		r.Fields.Add("host", alias(f.host)) // no meaning in a response
	}
	if http10 && f.encodings > 0 {
		return errTEInHTTP10 // some recipients take it, some do not know it
	}
	h.KeepAlive = !f.close && (!http10 || f.keepAlive)
	if err := h.body(); err != nil {
		return err
	}
	if f.length >= 0 {
		r.ContentLength = f.length
	}
	switch {
	case r.Status == 101:
		if !upgrade {
			return errSwitch
		}
		if len(f.protocol) > 0 {
			r.Fields.Add("upgrade", alias(f.protocol))
		}
		h.Framing = Raw
	case r.Status < 200, r.Status == 204:
		if h.Framing != NoBody {
			return errNoBodyAllowed
		}
		r.ContentLength = 0
	case method == "CONNECT" && r.Status < 300:
		h.Framing = Raw // lengths are ignored (RFC 9110 section 9.3.6)
		r.ContentLength = message.Unknown
	case method == "HEAD", r.Status == 304:
		h.Framing = NoBody
	case h.Framing == NoBody && f.length < 0:
		h.Framing = UntilClose
	}
	if h.Framing == Raw || h.Framing == UntilClose {
		h.KeepAlive = false
	}
	return nil
}

func (h *Head) statusLine(line []byte, r *message.Response) (http10 bool, err error) {
	const least = len("HTTP/1.1 200")
	if len(line) < least || line[8] != ' ' || len(line) > least && line[least] != ' ' {
		return false, errStatusLine
	}
	switch alias(line[:8]) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		http10 = true
	default:
		return false, errStatusLine
	}
	for _, c := range line[9:least] {
		if !isDigit(c) {
			return false, errStatusLine
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 || !validValue(line[least:]) {
		return false, errStatusLine
	}
	return http10, nil
}
