package rules

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/envoyproxy/protoc-gen-validate/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// node is the rules of a kind of message, read when the first of it is checked.
type node struct {
	of   protoreflect.MessageDescriptor
	once sync.Once

	fields  []field
	choices []choice
	// unknown is a rule that this package does not know: what has it is refused.
	unknown *violation
}

// choice is a oneof, of which one field is set at most.
type choice struct {
	of       protoreflect.OneofDescriptor
	required bool
	fields   map[protoreflect.FieldNumber]*field
}

// field is a field that has rules, or whose messages may have.
type field struct {
	fd       protoreflect.FieldDescriptor
	name     string
	holds    shape
	optional bool // proto3 optional: held only when set

	required bool                         // of a message
	count    count                        // of items or pairs
	unique   bool                         // items
	key      checks                       // of a map's keys
	value    checks                       // of a scalar, of items, or of a map's values
	wrapped  protoreflect.FieldDescriptor // of a wrapper (google.protobuf.UInt32Value), whose value is the scalar
	span     span                         // of a duration
	node     *node                        // of a message, an item or a map's value, or nil
}

// shape is what a field holds.
type shape uint8

const (
	scalars shape = iota
	messages
	lists
	maps
)

func shapeOf(fd protoreflect.FieldDescriptor) shape {
	switch {
	case fd.IsMap():
		return maps
	case fd.IsList():
		return lists
	case fd.Message() != nil:
		return messages
	}
	return scalars
}

var nodes struct {
	mu sync.Mutex
	of map[protoreflect.FullName]*node
}

func nodeOf(d protoreflect.MessageDescriptor) *node {
	nodes.mu.Lock()
	defer nodes.mu.Unlock()
	n := nodes.of[d.FullName()]
	if n == nil {
		if nodes.of == nil {
			nodes.of = map[protoreflect.FullName]*node{}
		}
		n = &node{of: d}
		nodes.of[d.FullName()] = n
	}
	return n
}

func (n *node) compile() {
	if boolOption(n.of, validate.E_Disabled) || boolOption(n.of, validate.E_Ignored) {
		return
	}
	chosen := map[protoreflect.FullName]int{}
	for i := range n.of.Oneofs().Len() {
		if of := n.of.Oneofs().Get(i); !of.IsSynthetic() {
			chosen[of.FullName()] = len(n.choices)
			n.choices = append(n.choices, choice{of, boolOption(of, validate.E_Required), map[protoreflect.FieldNumber]*field{}})
		}
	}
	for i := range n.of.Fields().Len() {
		fd := n.of.Fields().Get(i)
		f, err := newField(fd)
		switch of := fd.ContainingOneof(); {
		case err != nil:
			n.unknown = &violation{string(fd.Name()), "cannot be checked: " + err.Error()}
			return
		case f == nil:
		case of != nil && !of.IsSynthetic():
			n.choices[chosen[of.FullName()]].fields[fd.Number()] = f
		default:
			n.fields = append(n.fields, *f)
		}
	}
	n.choices = slices.DeleteFunc(n.choices, func(c choice) bool { return !c.required && len(c.fields) == 0 })
}

func boolOption(d protoreflect.Descriptor, option protoreflect.ExtensionType) bool {
	set, _ := proto.GetExtension(d.Options(), option).(bool)
	return set
}

// newField reads the rules of a field. It returns nil if there is nothing to check.
func newField(fd protoreflect.FieldDescriptor) (*field, error) {
	f := &field{fd: fd, name: string(fd.Name()), holds: shapeOf(fd)}
	if of := fd.ContainingOneof(); of != nil {
		f.optional = of.IsSynthetic()
	}
	holds := fd.Message()
	if fd.IsMap() {
		holds = fd.MapValue().Message()
	}
	switch {
	case holds == nil:
	case strings.HasPrefix(string(holds.FullName()), "google."):
		// These have no rules of their own.
		if strings.HasSuffix(string(holds.Name()), "Value") && holds.Fields().Len() == 1 {
			f.wrapped = holds.Fields().ByName("value")
		}
	default:
		f.node = nodeOf(holds)
	}
	if proto.HasExtension(fd.Options(), validate.E_Rules) {
		all, _ := proto.GetExtension(fd.Options(), validate.E_Rules).(*validate.FieldRules)
		if err := each(all.ProtoReflect(), f.take); err != nil {
			return nil, err
		}
	}
	if !f.required && f.count == (count{}) && f.node == nil && !f.unique && f.key == nil && f.value == nil && f.span == (span{}) {
		return nil, nil
	}
	return f, nil
}

// each calls take with the rules that are set in m, which is rules of one kind.
func each(m protoreflect.Message, take func(name protoreflect.Name, rule protoreflect.Value) error) (err error) {
	m.Range(func(fd protoreflect.FieldDescriptor, rule protoreflect.Value) bool {
		if err = take(fd.Name(), rule); err != nil {
			err = fmt.Errorf("%s: %w", fd.Name(), err)
		}
		return err == nil
	})
	return err
}

// take reads rules of a kind: of messages, or of the type of the field.
func (f *field) take(kind protoreflect.Name, rules protoreflect.Value) (err error) {
	switch kind {
	case "message":
		return each(rules.Message(), f.takeMessage)
	case "any":
		f.node = nil // also where the API says this of another message
		return each(rules.Message(), f.takeMessage)
	case "duration":
		return each(rules.Message(), f.takeDuration)
	case "repeated":
		return each(rules.Message(), f.takeRepeated)
	case "map":
		return each(rules.Message(), f.takeMap)
	default:
		of := f.fd
		if f.wrapped != nil {
			of = f.wrapped
		}
		f.value, err = newChecks(of, rules.Message())
	}
	return err
}

func (f *field) takeMessage(name protoreflect.Name, rule protoreflect.Value) error {
	switch name {
	case "required":
		f.required = rule.Bool()
	case "skip":
		if rule.Bool() {
			f.node = nil
		}
	default:
		return errUnknown
	}
	return nil
}

func (f *field) takeRepeated(name protoreflect.Name, rule protoreflect.Value) (err error) {
	switch name {
	case "min_items":
		f.count.min = rule.Uint()
	case "max_items":
		f.count.max = rule.Uint()
	case "unique":
		if f.unique = rule.Bool(); f.fd.Message() != nil || f.fd.Kind() == protoreflect.BytesKind {
			return errUnknown
		}
	case "items":
		return each(rule.Message(), func(kind protoreflect.Name, rules protoreflect.Value) error {
			switch {
			case kind == "message":
				return each(rules.Message(), f.takeMessage)
			case f.fd.Message() != nil:
				return errUnknown
			}
			f.value, err = newChecks(f.fd, rules.Message())
			return err
		})
	default:
		return errUnknown
	}
	return nil
}

func (f *field) takeMap(name protoreflect.Name, rule protoreflect.Value) error {
	of, into := f.fd.MapKey(), &f.key
	switch name {
	case "min_pairs":
		f.count.min = rule.Uint()
		return nil
	case "max_pairs":
		f.count.max = rule.Uint()
		return nil
	case "keys":
	case "values":
		of, into = f.fd.MapValue(), &f.value
	default:
		return errUnknown
	}
	return each(rule.Message(), func(_ protoreflect.Name, rules protoreflect.Value) (err error) {
		if of.Message() != nil {
			return errUnknown
		}
		*into, err = newChecks(of, rules.Message())
		return err
	})
}
