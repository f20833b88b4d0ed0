package codec

import (
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/h1"
	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// requestOf makes a request of an HTTP/2 one, whose fields the engine checked, and
// reports whether its client waits for 100 (Continue). ok is false for a target that
// HTTP/1 could not carry. An extended CONNECT becomes the upgrade that it stands for
// (RFC 8441 section 5), as with Envoy.
func requestOf(fields []h2.Field, hasBody bool, r *message.Request) (waits, ok bool) {
	*r = message.Request{Version: message.HTTP2}
	i := 0
	for ; i < len(fields) && fields[i].Name[0] == ':'; i++ {
		switch value := fields[i].Value; fields[i].Name {
		case ":method":
			r.Method = value
		case ":scheme":
			r.Scheme = value
		case ":authority":
			r.Authority = value
		case ":path":
			r.Path = value
		case ":protocol":
			r.Upgrade = value
		}
	}
	r.Fields = fields[i:] // the stream's own, with room for what is added
	if hasBody {
		r.ContentLength = message.Unknown
	}
	cookies, at := 0, 0
	kept := r.Fields[:0]
	for _, f := range r.Fields {
		switch f.Name {
		case "host":
			if r.Authority == "" {
				r.Authority = f.Value
			}
			continue
		case "expect":
			if f.Value == "100-continue" {
				waits = hasBody
				continue
			}
		case "content-length":
			if n, err := strconv.ParseInt(f.Value, 10, 64); err == nil && hasBody {
				r.ContentLength = n
			}
		case "cookie": // crumbs are one field again (RFC 9113 section 8.2.3)
			if cookies++; cookies > 1 {
				kept[at].Value += "; " + f.Value
				continue
			}
			at = len(kept)
		}
		kept = append(kept, f)
	}
	r.Fields = kept
	if r.Upgrade != "" {
		r.Method, r.ContentLength = "GET", 0
	} else if r.Method == "CONNECT" {
		return waits, h1.ValidAuthority(r.Authority)
	}
	return waits, h1.ValidTarget(r.Path) && h1.ValidAuthority(r.Authority)
}

// appendRequest appends an HTTP/2 request's fields.
func appendRequest(b []h2.Field, r *message.Request) []h2.Field {
	method := r.Method
	if r.Upgrade != "" {
		method = "CONNECT"
	}
	b = append(b, h2.Field{Name: ":method", Value: method})
	if r.Upgrade != "" {
		b = append(b, h2.Field{Name: ":protocol", Value: r.Upgrade})
	}
	if r.Method != "CONNECT" {
		b = append(b, h2.Field{Name: ":scheme", Value: r.Scheme}, h2.Field{Name: ":path", Value: r.Path})
	}
	b = append(b, h2.Field{Name: ":authority", Value: r.Authority})
	length := r.ContentLength
	if method == "CONNECT" {
		length = message.Unknown
	}
	return appendRegular(b, r.Fields, length)
}

// appendResponse appends an HTTP/2 response's fields.
func appendResponse(b []h2.Field, r *message.Response, length int64) []h2.Field {
	return appendRegular(append(b, h2.Field{Name: ":status", Value: statusCode(r.Status)}), r.Fields, length)
}

// appendRegular appends the fields that HTTP/2 carries, with this length.
func appendRegular(b []h2.Field, fields message.Fields, length int64) []h2.Field {
	told := false
	for i := range fields {
		switch fields[i].Name {
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host":
			continue
		case "content-length":
			if told || length < 0 {
				continue
			}
			told = true
			b = append(b, h2.Field{Name: "content-length", Value: strconv.FormatInt(length, 10)})
			continue
		}
		b = append(b, fields[i])
	}
	if !told && length > 0 {
		b = append(b, h2.Field{Name: "content-length", Value: strconv.FormatInt(length, 10)})
	}
	return b
}

// statusCodes are those of three digits.
var statusCodes = func() (t [500]string) {
	for i := range t {
		t[i] = strconv.Itoa(100 + i)
	}
	return t
}()

func statusCode(status int) string {
	if i := status - 100; i >= 0 && i < len(statusCodes) {
		return statusCodes[i]
	}
	return strconv.Itoa(status)
}

// responseOf makes a response of an HTTP/2 one. A success of an extended CONNECT
// becomes the 101 that it stands for; upgrade is the protocol that was asked for, or "".
func responseOf(fields []h2.Field, hasBody bool, upgrade string, r *message.Response) {
	*r = message.Response{ContentLength: message.Unknown}
	i := 0
	for ; i < len(fields) && fields[i].Name[0] == ':'; i++ {
		if fields[i].Name == ":status" {
			r.Status, _ = strconv.Atoi(fields[i].Value) // the engine checked it
		}
	}
	r.Fields = fields[i:] // the stream's own, with room for what is added
	if value, ok := r.Fields.Lookup("content-length"); ok {
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			r.ContentLength = n
		}
	} else if !hasBody && r.Status != 304 {
		r.ContentLength = 0
	}
	if upgrade != "" && r.Status/100 == 2 {
		r.Status, r.ContentLength = 101, message.Unknown
		r.Fields.Set("upgrade", upgrade) // without it no client believes a 101 (RFC 9110 section 15.2.2)
	}
}
