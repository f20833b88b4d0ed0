package translate

import (
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// routingKinds are the fields of source.Objects of which nothing here depends:
// they are read by the translation for waypoints alone. So are the two that say
// when and where objects were read.
var routingKinds = map[string]bool{
	"VirtualServices": true, "DestinationRules": true, "HTTPRoutes": true, "GRPCRoutes": true, "TCPRoutes": true, "TLSRoutes": true,
	"ReferenceGrants": true, "Generation": true,
}

// Translator translates one state after another. What of a state is as it was in
// the last is used again: a route that changes costs nothing here, a pod what it is
// itself, a Service what it and the pods that it selects are.
type Translator struct {
	opts Options
	in   *source.Objects // or nil: none yet
	out  Output
	pods *pods // or nil: pods and Services are not translated one by one
}

// NewTranslator returns one that has translated nothing.
func NewTranslator(opts Options) *Translator { return &Translator{opts: opts} }

// Translate is [Translate], and says what has changed since the last output. Nothing
// in an output may be changed.
func (t *Translator) Translate(in *source.Objects) (Output, error) {
	if t.in != nil {
		few, more := differences(t.in, in)
		switch {
		case more:
		case !few:
			m := *t.out.Model
			m.Objects = in
			t.in, t.out.Model, t.out.Changes = in, &m, &Changes{}
			return t.out, nil
		case t.pods != nil:
			if out, ok := t.pods.change(t.out, t.in, in); ok {
				t.in, t.out = in, out
				return t.out, nil
			}
		}
	}
	var err error
	if t.out, t.pods, err = translate(in, t.opts); err != nil {
		t.in = nil
		return Output{}, err
	}
	t.in = in
	return t.out, nil
}

// differences tells whether two states have other pods or Services, and other objects
// that are neither these nor routes. An object that was read again counts as another.
func differences(a, b *source.Objects) (few, more bool) {
	if a.Mesh != b.Mesh && !proto.Equal(a.Mesh, b.Mesh) {
		return false, true
	}
	va, vb := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for i := range va.NumField() {
		switch name := va.Type().Field(i).Name; {
		case name == "Mesh" || routingKinds[name] || same(va.Field(i), vb.Field(i)):
		case name == "Pods" || name == "Services":
			few = true
		default:
			return few, true
		}
	}
	return few, false
}

func same(a, b reflect.Value) bool {
	if a.Kind() != reflect.Slice {
		return reflect.DeepEqual(a.Interface(), b.Interface())
	}
	if a.Len() != b.Len() {
		return false
	}
	if a.Len() == 0 || a.Pointer() == b.Pointer() {
		return true
	}
	if a.Type().Elem().Kind() != reflect.Pointer {
		return reflect.DeepEqual(a.Interface(), b.Interface())
	}
	for i := range a.Len() {
		if a.Index(i).Pointer() != b.Index(i).Pointer() {
			return false
		}
	}
	return true
}
