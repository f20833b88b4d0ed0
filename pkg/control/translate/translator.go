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

// Translator translates one state after another. Where a state differs from the
// last in routes alone, what the last came to is used again: a route that changes
// costs nothing here.
type Translator struct {
	opts Options
	in   *source.Objects // or nil: none yet
	out  Output
}

// NewTranslator returns one that has translated nothing.
func NewTranslator(opts Options) *Translator { return &Translator{opts: opts} }

// Translate is [Translate]. again is true for an output that is the last one's,
// but for the objects in its model. Nothing in an output may be changed.
func (t *Translator) Translate(in *source.Objects) (out Output, again bool, err error) {
	if t.in != nil && sameButRoutes(t.in, in) {
		t.in = in
		m := *t.out.Model
		m.Objects = in
		out = t.out
		out.Model = &m
		return out, true, nil
	}
	if t.out, err = Translate(in, t.opts); err != nil {
		t.in = nil
		return Output{}, false, err
	}
	t.in = in
	return t.out, false, nil
}

// sameButRoutes tells whether two states have the same objects but for routes. An
// object that was read again counts as another.
func sameButRoutes(a, b *source.Objects) bool {
	if a.Mesh != b.Mesh && !proto.Equal(a.Mesh, b.Mesh) {
		return false
	}
	va, vb := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for i := range va.NumField() {
		name := va.Type().Field(i).Name
		if name == "Mesh" || routingKinds[name] {
			continue
		}
		fa, fb := va.Field(i), vb.Field(i)
		if fa.Kind() == reflect.Slice && fa.Len() == fb.Len() && (fa.Len() == 0 || fa.Pointer() == fb.Pointer()) {
			continue
		}
		if fa.Kind() != reflect.Slice || fa.Type().Elem().Kind() != reflect.Pointer {
			if !reflect.DeepEqual(fa.Interface(), fb.Interface()) {
				return false
			}
			continue
		}
		if fa.Len() != fb.Len() {
			return false
		}
		for j := range fa.Len() {
			if fa.Index(j).Pointer() != fb.Index(j).Pointer() {
				return false
			}
		}
	}
	return true
}
