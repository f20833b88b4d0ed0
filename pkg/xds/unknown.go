package xds

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// unknownFields reports a field that this build does not know, anywhere in m: a
// newer control plane may have put a condition there.
func unknownFields(m proto.Message) error { return walk(m.ProtoReflect()) }

func walk(m protoreflect.Message) (err error) {
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%s has a field that this version does not know", m.Descriptor().Name())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind || fd.IsMap() {
			return true
		}
		if !fd.IsList() {
			err = walk(v.Message())
			return err == nil
		}
		for i := range v.List().Len() {
			if err = walk(v.List().Get(i).Message()); err != nil {
				return false
			}
		}
		return true
	})
	return err
}
