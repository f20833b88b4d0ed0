package hcm

import (
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
)

// local makes the response of an answer that is our own. A gRPC client gets it as a
// status in a response without a body.
func local(reply *filter.Reply, grpc, head bool) (r *message.Response, body string) {
	if grpc {
		code := message.GRPCFromHTTP(reply.Status)
		if reply.GRPCStatus != nil {
			code = *reply.GRPCStatus
		}
		r = &message.Response{Status: 200, ContentLength: message.Unknown}
		r.Fields = append(r.Fields, message.Field{Name: "content-type", Value: "application/grpc"}, message.Field{Name: "grpc-status", Value: strconv.Itoa(code)})
		if reply.Body != "" {
			r.Fields.Add("grpc-message", percentEncode(reply.Body))
		}
		for _, f := range reply.Fields {
			r.Fields.Set(f.Name, f.Value)
		}
		return r, ""
	}
	r = &message.Response{Status: reply.Status, ContentLength: int64(len(reply.Body))}
	if reply.Body != "" {
		r.Fields = append(r.Fields, message.Field{Name: "content-length", Value: strconv.Itoa(len(reply.Body))}, message.Field{Name: "content-type", Value: contentType(reply)})
	}
	for _, f := range reply.Fields {
		r.Fields.Add(f.Name, f.Value)
	}
	if head {
		return r, ""
	}
	return r, reply.Body
}

// percentEncode is how a status message travels in gRPC.
func percentEncode(s string) string {
	var out []byte
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			out = append(out, '%', upperHex(c>>4), upperHex(c&15))
		} else {
			out = append(out, c)
		}
	}
	return string(out)
}

func contentType(reply *filter.Reply) string {
	if reply.ContentType != "" {
		return reply.ContentType
	}
	return "text/plain"
}
