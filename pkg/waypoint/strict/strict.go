// Package strict finds fields that this build does not know in configuration whose
// meaning must not be guessed: policies and TLS.
package strict

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Check is an error that names the first message of m that has fields this build does
// not know.
func Check(m proto.Message) error {
	at, found := check(m.ProtoReflect())
	if !found {
		return nil
	}
	if at == "" {
		at = "." + string(m.ProtoReflect().Descriptor().Name())
	}
	return fmt.Errorf("%s has fields that are not known here", at[1:])
}

// check finds such a message within m. Its place, as in ".rules[2].from", is only put
// together once it is found: nearly all that is looked at is as it should be.
func check(m protoreflect.Message) (at string, found bool) {
	if len(m.GetUnknown()) > 0 {
		return "", true
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				if at, found = check(v.Message()); found {
					at = fmt.Sprintf("[%s]%s", k.String(), at)
				}
				return !found
			})
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				if at, found = check(v.List().Get(i).Message()); found {
					at = fmt.Sprintf("[%d]%s", i, at)
					break
				}
			}
		default:
			at, found = check(v.Message())
		}
		if found {
			at = "." + string(f.Name()) + at
		}
		return !found
	})
	return at, found
}
