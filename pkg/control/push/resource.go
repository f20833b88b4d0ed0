package push

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// resource is one resource as the wire has it. It is never changed, but for
// message, which is the log's writer's.
type resource struct {
	name, version string
	// message is what was encoded, or nil: it is not kept.
	message proto.Message
	// value is the message as bytes, and packed the google.protobuf.Any around it:
	// parts of field.
	value, packed []byte
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
	e.scratch, err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(e.scratch[:0], m)
	if err != nil {
		return nil, fmt.Errorf("push: %s: %w", name, err)
	}
	if old != nil && bytes.Equal(old.value, e.scratch) {
		if e.keep {
			old.message = m
		}
		return old, nil
	}
	sum := sha256.Sum256(e.scratch)
	version := base64.RawURLEncoding.EncodeToString(sum[:versionBytes])
	body := appendString(nil, 1, version) // envoy.service.discovery.v3.Resource
	body = protowire.AppendTag(body, 2, protowire.BytesType)
	any := protowire.SizeTag(1) + protowire.SizeBytes(len(typeURL)) + protowire.SizeTag(2) + protowire.SizeBytes(len(e.scratch))
	body = protowire.AppendVarint(body, uint64(any)) // google.protobuf.Any
	body = appendString(body, 1, typeURL)
	body = appendBytes(body, 2, e.scratch)
	end := len(body)
	body = appendString(body, 3, name)
	field := appendBytes(nil, 2, body)
	offset := len(field) - len(body) + end
	r := &resource{name: name, version: version, value: field[offset-len(e.scratch) : offset], packed: field[offset-any : offset], field: mem.SliceBuffer(field)}
	if e.keep {
		r.message = m
	}
	return r, nil
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}
