// Package rules holds messages of Envoy's API against the rules that the API itself
// states, as options of its fields (protoc-gen-validate's `validate.rules`).
//
// It reads them from the descriptors that are linked anyway. The Validate methods
// that are generated from them say the same, but the linker keeps those of every
// message when one is called: four megabytes of an idle waypoint.
package rules

import (
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Check is an error that names the first field of m, or of a message in m, that
// breaks one of its rules. What an Any holds is not looked at.
func Check(m proto.Message) error {
	from := m.ProtoReflect()
	if v := nodeOf(from.Descriptor()).check(from); v != nil {
		return v
	}
	return nil
}

// violation is a broken rule.
type violation struct {
	path   string // route.weighted_clusters.clusters[2].name
	reason string // "must not be empty"
}

// Error implements error.
func (v *violation) Error() string { return v.path + " " + v.reason }

// below says where the message is in which v was found.
func (v *violation) below(at string) *violation {
	if v != nil {
		v.path = at + "." + v.path
	}
	return v
}

// check returns the first violation in m, or nil.
func (n *node) check(m protoreflect.Message) *violation {
	n.once.Do(n.compile)
	if n.unknown != nil {
		return n.unknown
	}
	for i := range n.fields {
		f := &n.fields[i]
		if f.optional && !m.Has(f.fd) {
			continue
		}
		if v := f.check(m); v != nil {
			return v
		}
	}
	for i := range n.choices {
		c := &n.choices[i]
		switch chosen := m.WhichOneof(c.of); {
		case chosen == nil:
			if c.required {
				return &violation{string(c.of.Name()), "is required: set one of its fields"}
			}
		case c.fields[chosen.Number()] != nil:
			if v := c.fields[chosen.Number()].check(m); v != nil {
				return v
			}
		}
	}
	return nil
}

// check holds a field of m, which is set if it is a choice.
func (f *field) check(m protoreflect.Message) *violation {
	if f.holds == scalars {
		if reason := f.value.broken(m.Get(f.fd)); reason != "" {
			return &violation{f.name, reason}
		}
		return nil
	}
	if !m.Has(f.fd) {
		return f.checkAbsent()
	}
	v := m.Get(f.fd)
	switch f.holds {
	case lists:
		return f.checkList(v.List())
	case maps:
		return f.checkMap(v.Map())
	}
	in := v.Message()
	if !in.IsValid() { // a choice that was set to nothing
		return f.checkAbsent()
	}
	if f.wrapped != nil {
		if reason := f.value.broken(in.Get(f.wrapped)); reason != "" {
			return &violation{f.name, reason}
		}
		return nil
	}
	if reason := f.span.broken(in); reason != "" {
		return &violation{f.name, reason}
	}
	if f.node == nil {
		return nil
	}
	return f.node.check(in).below(f.name)
}

// checkAbsent holds a list, map or message that is not there.
func (f *field) checkAbsent() *violation {
	if f.required {
		return &violation{f.name, "is required"}
	}
	if reason := f.count.broken(0); reason != "" {
		return &violation{f.name, reason}
	}
	return nil
}

func (f *field) checkList(l protoreflect.List) *violation {
	if reason := f.count.broken(l.Len()); reason != "" {
		return &violation{f.name, reason}
	}
	var seen map[any]int
	if f.unique {
		seen = make(map[any]int, l.Len())
	}
	for i := range l.Len() {
		e := l.Get(i)
		if f.unique {
			if first, twice := seen[e.Interface()]; twice {
				return &violation{f.at(strconv.Itoa(i)), "is the same as item " + strconv.Itoa(first)}
			}
			seen[e.Interface()] = i
		}
		if reason := f.value.broken(e); reason != "" {
			return &violation{f.at(strconv.Itoa(i)), reason}
		}
		if f.node != nil && e.Message().IsValid() {
			if v := f.node.check(e.Message()); v != nil {
				return v.below(f.at(strconv.Itoa(i)))
			}
		}
	}
	return nil
}

// checkMap reports the entry with the smallest key, so that an error stays the same.
func (f *field) checkMap(entries protoreflect.Map) (found *violation) {
	if reason := f.count.broken(entries.Len()); reason != "" {
		return &violation{f.name, reason}
	}
	if f.key == nil && f.value == nil && f.node == nil {
		return nil
	}
	smallest := ""
	entries.Range(func(key protoreflect.MapKey, e protoreflect.Value) bool {
		if found != nil && key.String() > smallest {
			return true
		}
		if v := f.checkEntry(key, e); v != nil {
			found, smallest = v, key.String()
		}
		return true
	})
	return found
}

func (f *field) checkEntry(key protoreflect.MapKey, e protoreflect.Value) *violation {
	if reason := f.key.broken(key.Value()); reason != "" {
		return &violation{f.at(strconv.Quote(key.String())), "has a key that " + reason}
	}
	if reason := f.value.broken(e); reason != "" {
		return &violation{f.at(strconv.Quote(key.String())), reason}
	}
	if f.node != nil && e.Message().IsValid() {
		if v := f.node.check(e.Message()); v != nil {
			return v.below(f.at(strconv.Quote(key.String())))
		}
	}
	return nil
}

func (f *field) at(index string) string { return f.name + "[" + index + "]" }
