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
	return check(m.ProtoReflect(), "")
}

func check(m protoreflect.Message, at string) (err error) {
	if len(m.GetUnknown()) > 0 {
		if at == "" {
			at = string(m.Descriptor().Name())
		}
		return fmt.Errorf("%s has fields that are not known here", at)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := string(f.Name())
		if at != "" {
			name = at + "." + name
		}
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				err = check(v.Message(), fmt.Sprintf("%s[%s]", name, k.String()))
				return err == nil
			})
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				if err = check(v.List().Get(i).Message(), fmt.Sprintf("%s[%d]", name, i)); err != nil {
					return false
				}
			}
		default:
			err = check(v.Message(), name)
		}
		return err == nil
	})
	return err
}
