package push

import (
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
}

// appendRoutes encodes a route configuration behind b, which must be empty. Routes that
// are the same messages as in old, which may be nil, are not looked at again: a change
// costs what has changed, and a copy. The bytes depend on the content alone.
func appendRoutes(b []byte, c *routev3.RouteConfiguration, old *resource) ([]byte, []span, error) {
	var routes []*routev3.Route // of all virtual hosts
	for _, vh := range c.GetVirtualHosts() {
		routes = append(routes, vh.GetRoutes()...)
	}
	fields, err := fieldsOf(routes, old)
	if err != nil {
		return b, nil, err
	}
	if b, err = appendMessage(b, without(c, "virtual_hosts")); err != nil {
		return b, nil, err
	}
	spans := make([]span, 0, len(routes))
	for _, vh := range c.GetVirtualHosts() {
		shell, err := appendMessage(nil, without(vh, "routes"))
		if err != nil {
			return b, nil, err
		}
		of := fields[len(spans):][:len(vh.GetRoutes())]
		size := len(shell)
		for _, f := range of {
			size += len(f)
		}
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldHosts, protowire.BytesType), uint64(size))
		b = append(b, shell...)
		for i, f := range of {
			spans = append(spans, span{vh.Routes[i], len(b), len(b) + len(f)})
			b = append(b, f...)
		}
	}
	return b, spans, nil
}

// fieldsOf are routes as fields of a virtual host. Most stand where they stood before,
// counted from the beginning or from the end.
func fieldsOf(routes []*routev3.Route, old *resource) ([][]byte, error) {
	var before []span
	var value []byte
	if old != nil {
		before, value = old.spans, old.value
	}
	fields := make([][]byte, len(routes))
	first, most := 0, min(len(routes), len(before))
	for first < most && routes[first] == before[first].message {
		fields[first] = value[before[first].from:before[first].to]
		first++
	}
	last, end := len(routes), len(before)
	for last > first && end > first && routes[last-1] == before[end-1].message {
		last, end = last-1, end-1
		fields[last] = value[before[end].from:before[end].to]
	}
	moved := make(map[*routev3.Route]span, end-first)
	for _, s := range before[first:end] {
		moved[s.message] = s
	}
	for i := first; i < last; i++ {
		if s, ok := moved[routes[i]]; ok {
			fields[i] = value[s.from:s.to]
			continue
		}
		one, err := appendMessage(nil, routes[i])
		if err != nil {
			return nil, err
		}
		fields[i] = appendBytes(nil, fieldRoutes, one)
	}
	return fields, nil
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
