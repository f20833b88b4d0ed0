package push

import (
	"crypto/sha256"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Fields of RouteConfiguration and VirtualHost.
const (
	fieldHosts  protowire.Number = 2
	fieldRoutes protowire.Number = 3
)

// span is a route, which is never changed, and where it is in an encoded route
// configuration: as a field of its virtual host.
type span struct {
	message  *routev3.Route
	from, to int
	sum      sum
}

// sum is a hash of a part of a resource.
type sum [16]byte

func sumOf(part []byte) sum {
	whole := sha256.Sum256(part)
	return sum(whole[:len(sum{})])
}

// piece is a route as a field of its virtual host.
type piece struct {
	field []byte
	sum   sum
}

// appendRoutes encodes a route configuration behind b, which must be empty, and hashes
// it. Routes that are the same messages as in old, which may be nil, are not looked at
// again: a change costs what has changed, and a copy. Bytes and hash depend on the
// content alone.
func appendRoutes(b []byte, c *routev3.RouteConfiguration, old *resource) (_ []byte, spans []span, hash [sha256.Size]byte, err error) {
	var routes []*routev3.Route // of all virtual hosts
	for _, vh := range c.GetVirtualHosts() {
		routes = append(routes, vh.GetRoutes()...)
	}
	pieces, err := piecesOf(routes, old)
	if err != nil {
		return b, nil, hash, err
	}
	if b, err = appendMessage(b, without(c, "virtual_hosts")); err != nil {
		return b, nil, hash, err
	}
	sums := make([]byte, 0, (len(routes)+len(c.GetVirtualHosts())+1)*len(sum{}))
	note := func(s sum) { sums = append(sums, s[:]...) }
	note(sumOf(b))
	spans = make([]span, 0, len(routes))
	for _, vh := range c.GetVirtualHosts() {
		shell, err := appendMessage(nil, without(vh, "routes"))
		if err != nil {
			return b, nil, hash, err
		}
		of := pieces[len(spans):][:len(vh.GetRoutes())]
		size := len(shell)
		for _, p := range of {
			size += len(p.field)
		}
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldHosts, protowire.BytesType), uint64(size))
		note(sumOf(protowire.AppendVarint(slices.Clone(shell), uint64(len(of)))))
		b = append(b, shell...)
		for i, p := range of {
			spans = append(spans, span{vh.Routes[i], len(b), len(b) + len(p.field), p.sum})
			b = append(b, p.field...)
			note(p.sum)
		}
	}
	return b, spans, sha256.Sum256(sums), nil
}

// piecesOf encodes routes. Most stand where they stood before, counted from the
// beginning or from the end.
func piecesOf(routes []*routev3.Route, old *resource) ([]piece, error) {
	var before []span
	if old != nil {
		before = old.spans
	}
	again := func(s span) piece { return piece{old.value[s.from:s.to], s.sum} }
	pieces := make([]piece, len(routes))
	first, most := 0, min(len(routes), len(before))
	for first < most && routes[first] == before[first].message {
		pieces[first] = again(before[first])
		first++
	}
	last, end := len(routes), len(before)
	for last > first && end > first && routes[last-1] == before[end-1].message {
		last, end = last-1, end-1
		pieces[last] = again(before[end])
	}
	moved := make(map[*routev3.Route]span, end-first)
	for _, s := range before[first:end] {
		moved[s.message] = s
	}
	for i := first; i < last; i++ {
		if s, ok := moved[routes[i]]; ok {
			pieces[i] = again(s)
			continue
		}
		one, err := appendMessage(nil, routes[i])
		if err != nil {
			return nil, err
		}
		field := appendBytes(nil, fieldRoutes, one)
		pieces[i] = piece{field, sumOf(field)}
	}
	return pieces, nil
}

func appendMessage(b []byte, m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, m)
}

// without is a shallow copy of m that lacks a field.
func without(m proto.Message, field protoreflect.Name) proto.Message {
	from := m.ProtoReflect()
	to := from.New()
	from.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Name() != field {
			to.Set(fd, v)
		}
		return true
	})
	to.SetUnknown(from.GetUnknown())
	return to.Interface()
}
