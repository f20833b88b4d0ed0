package push

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// resource is one resource as the wire has it. It is never changed, but for
// message and spans, which are the log's writer's.
type resource struct {
	name, version string
	// message is what was encoded, or nil: it is not kept.
	message proto.Message
	// value is the message as bytes, and packed the google.protobuf.Any around it:
	// parts of field.
	value, packed []byte
	// spans are the routes in value, of a route configuration whose message is kept.
	spans []span
	// field is field 2 of a DeltaDiscoveryResponse: tag, length, Resource. It is
	// kept as gRPC takes it, so that sending it allocates nothing.
	field mem.Buffer
}

// versionBytes is how much of the content's hash is the version. Twelve bytes
// are sixteen characters: nobody finds two objects that share them.
const versionBytes = 12

// encoder marshals messages, each once for all clients.
type encoder struct {
	// keep remembers the messages, so that one that comes again is not looked at:
	// for those whose maker has them in memory anyway and never changes one.
	keep    bool
	scratch []byte
}

// encode returns old where m has not changed.
func (e *encoder) encode(typeURL, name string, m proto.Message, old *resource) (*resource, error) {
	if old != nil && old.message == m {
		return old, nil
	}
	var err error
	var spans []span
	var hash [sha256.Size]byte
	routes, inParts := m.(*routev3.RouteConfiguration)
	if inParts = inParts && e.keep; inParts {
		e.scratch, spans, hash, err = appendRoutes(e.scratch[:0], routes, old)
	} else {
		e.scratch, err = appendMessage(e.scratch[:0], m)
	}
	if err != nil {
		return nil, fmt.Errorf("push: %s: %w", name, err)
	}
	if old != nil && bytes.Equal(old.value, e.scratch) {
		if e.keep {
			old.message, old.spans = m, spans
		}
		return old, nil
	}
	if !inParts {
		hash = sha256.Sum256(e.scratch)
	}
	r := &resource{name: name, version: base64.RawURLEncoding.EncodeToString(hash[:versionBytes]), spans: spans}
	r.pack(typeURL, e.scratch)
	if e.keep {
		r.message = m
	}
	return r, nil
}

// pack makes the field of a response that has a message: once in its full size, as
// some are of a megabyte.
func (r *resource) pack(typeURL string, value []byte) {
	any := sizeOf(len(typeURL)) + sizeOf(len(value)) // google.protobuf.Any
	body := sizeOf(len(r.version)) + sizeOf(any) + sizeOf(len(r.name))
	field := make([]byte, 0, sizeOf(body))
	field = protowire.AppendVarint(protowire.AppendTag(field, 2, protowire.BytesType), uint64(body))
	field = appendString(field, 1, r.version) // envoy.service.discovery.v3.Resource
	field = protowire.AppendVarint(protowire.AppendTag(field, 2, protowire.BytesType), uint64(any))
	from := len(field)
	field = appendString(field, 1, typeURL)
	field = appendBytes(field, 2, value)
	end := len(field)
	field = appendString(field, 3, r.name)
	r.value, r.packed, r.field = field[end-len(value):end], field[from:end], mem.SliceBuffer(field)
}

// sizeOf is the size of a field with a number below 16 that holds n bytes.
func sizeOf(n int) int { return 1 + protowire.SizeBytes(n) }

func appendString(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}
