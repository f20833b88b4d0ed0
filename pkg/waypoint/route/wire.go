package route

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Fields of RouteConfiguration and VirtualHost.
const (
	fieldName   protowire.Number = 1
	fieldHosts  protowire.Number = 2
	fieldRoutes protowire.Number = 3
)

var errWire = errors.New("it cannot be decoded")

// eachField calls f with each field of a message: whole with its tag, and its payload if
// it has a length.
func eachField(wire []byte, f func(number protowire.Number, whole, payload []byte)) error {
	for len(wire) > 0 {
		number, kind, tag := protowire.ConsumeTag(wire)
		if tag < 0 {
			return fmt.Errorf("%w: %w", errWire, protowire.ParseError(tag))
		}
		size := protowire.ConsumeFieldValue(number, kind, wire[tag:])
		if size < 0 {
			return fmt.Errorf("%w: %w", errWire, protowire.ParseError(size))
		}
		var payload []byte
		if kind == protowire.BytesType {
			payload, _ = protowire.ConsumeBytes(wire[tag:]) // never nil
		}
		f(number, wire[:tag+size], payload)
		wire = wire[tag+size:]
	}
	return nil
}

// split takes the elements of a repeated field of messages out of a message; they
// are parts of it. The rest are its other fields in their order: a message without
// those elements. About as many are expected as there is room made for.
func split(wire []byte, field protowire.Number, room int) (rest []byte, elements [][]byte, err error) {
	elements = make([][]byte, 0, room)
	err = eachField(wire, func(number protowire.Number, whole, payload []byte) {
		if number == field && payload != nil {
			elements = append(elements, payload)
		} else {
			rest = append(rest, whole...)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	return rest, elements, nil
}

func decode(wire []byte, into proto.Message) error {
	if err := proto.Unmarshal(wire, into); err != nil {
		return fmt.Errorf("%w: %w", errWire, err)
	}
	return nil
}

// Name is the name of an encoded RouteConfiguration.
func Name(wire []byte) (name string, err error) {
	err = eachField(wire, func(number protowire.Number, _, payload []byte) {
		if number == fieldName && payload != nil {
			name = string(payload) // of several the last counts
		}
	})
	if err != nil {
		return "", err
	}
	return name, nil
}

// CompileFrom compiles an encoded configuration. What has the same bytes in an older
// table, made by CompileFrom with the same options, is taken over without a look into
// it, so that a change costs what has changed. The table keeps wire, which must not be
// changed any more.
func CompileFrom(old *Table, wire []byte, o Options) (*Table, error) {
	room := 1
	if old != nil {
		room = len(old.hosts)
	}
	rest, hosts, err := split(wire, fieldHosts, room)
	if err != nil {
		return nil, err
	}
	c := &compiler{options: o}
	var all *common
	previous := map[string]*host{} // by their shells
	if old != nil && old.common.wire != nil && bytes.Equal(old.common.wire, rest) {
		all = old.common
		for _, h := range old.hosts {
			previous[string(h.wire)] = h
		}
	} else {
		rc := &routev3.RouteConfiguration{}
		if err := decode(rest, rc); err != nil {
			return nil, err
		}
		if all, err = c.common(rc); err != nil {
			return nil, err
		}
		all.wire = append([]byte{}, rest...) // never nil
	}
	t := newTable(all)
	for i, w := range hosts {
		room = 0
		if old != nil && i < len(old.hosts) {
			room = len(old.hosts[i].index.routes) // mostly the same one
		}
		h, err := c.host(w, room, all, previous)
		if err == nil {
			err = t.add(h)
		}
		if err != nil {
			at := fmt.Sprintf("virtual_hosts[%d]", i)
			if name, err := Name(w); err == nil { // its field has the same number
				at = fmt.Sprintf("%s %q", at, name)
			}
			return nil, fmt.Errorf("%s: %w", at, err)
		}
	}
	return t.complete(c), nil
}

// host compiles a virtual host.
func (c *compiler) host(wire []byte, room int, all *common, previous map[string]*host) (*host, error) {
	rest, wires, err := split(wire, fieldRoutes, room)
	if err != nil {
		return nil, err
	}
	h, old := &host{}, previous[string(rest)]
	routes, before := make([]*Route, len(wires)), &index{tree: &node{}}
	if old != nil {
		h.hostShell, before = old.hostShell, old.index
		before.takeOver(routes, wires)
	} else {
		vh := &routev3.VirtualHost{}
		if err := decode(rest, vh); err != nil {
			return nil, err
		}
		if h.hostShell, err = c.shell(vh, all); err != nil {
			return nil, err
		}
		h.wire = append([]byte{}, rest...)
	}
	for i, w := range wires {
		if routes[i] != nil {
			continue
		}
		m := &routev3.Route{}
		if err := decode(w, m); err != nil {
			return nil, fmt.Errorf("routes[%d]: %w", i, err)
		}
		if routes[i], err = c.route(m, h.hostShell); err != nil {
			return nil, fmt.Errorf("routes[%d] %q: %w", i, m.GetName(), err)
		}
	}
	h.index = before.with(routes)
	h.index.wire = wires
	return h, nil
}

// takeOver fills in the routes that were compiled of the same bytes: most stand where
// they stood, counted from the beginning or from the end.
func (x *index) takeOver(routes []*Route, wires [][]byte) {
	first, most := 0, min(len(wires), len(x.wire))
	for first < most && bytes.Equal(wires[first], x.wire[first]) {
		routes[first] = x.routes[first]
		first++
	}
	last, end := len(wires), len(x.wire)
	for last > first && end > first && bytes.Equal(wires[last-1], x.wire[end-1]) {
		last, end = last-1, end-1
		routes[last] = x.routes[end]
	}
	if last == first || end == first || last-first == 1 && end-first == 1 {
		return // nothing else can be what it was
	}
	at, seed := make(map[uint64]int, end-first), maphash.MakeSeed()
	for i := first; i < end; i++ {
		at[maphash.Bytes(seed, x.wire[i])] = i
	}
	for i := first; i < last; i++ {
		if j, ok := at[maphash.Bytes(seed, wires[i])]; ok && bytes.Equal(x.wire[j], wires[i]) {
			routes[i] = x.routes[j]
		}
	}
}
