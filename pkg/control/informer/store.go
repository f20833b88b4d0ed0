package informer

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// item is an object as an informer keeps it, read out of what the API server sent.
type item struct {
	metav1.ObjectMeta // name and namespace alone
	reading           source.Reading
	sum               [32]byte // of the text it was read from, if it was text
}

// store takes the objects of one resource from a reflector.
type store struct {
	informer *Informer
	// what it is called in messages.
	name string
	// read makes an item of what the API server sent.
	read func(sent metav1.Object) *item
	kind kind // or nil: only the readings count

	// The informer's mu guards below.

	whole bool // all objects have been listed
	// wrong are the readings of objects with problems, and of the mesh's configuration.
	wrong map[key]source.Reading
	sums  map[key][32]byte
}

var _ cache.TransformingStore = (*store)(nil)

// Transformer implements [cache.TransformingStore]: a list is stripped while it comes.
func (s *store) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		if _, done := o.(*item); done {
			return o, nil
		}
		sent, ok := o.(metav1.Object)
		if !ok {
			return nil, fmt.Errorf("%s: a %T is no object", s.name, o)
		}
		return s.item(sent), nil
	}
}

func (s *store) item(sent metav1.Object) *item {
	i := s.read(sent)
	i.Namespace, i.Name = sent.GetNamespace(), sent.GetName()
	return i
}

// Add implements [cache.ReflectorStore].
func (s *store) Add(o any) error { return s.Update(o) }

// Update implements [cache.ReflectorStore].
func (s *store) Update(o any) error {
	read, err := s.Transformer()(o)
	if err != nil {
		return err
	}
	s.informer.change(func() bool { return s.takeLocked(read.(*item)) })
	return nil
}

// Delete implements [cache.ReflectorStore].
func (s *store) Delete(o any) error {
	gone, ok := o.(metav1.Object)
	if !ok {
		return fmt.Errorf("%s: a %T is no object", s.name, o)
	}
	k := keyOf(gone)
	s.informer.change(func() bool { return s.dropLocked(k) })
	return nil
}

// Replace implements [cache.ReflectorStore]: those are all objects.
func (s *store) Replace(all []any, _ string) error {
	items := make([]*item, 0, len(all))
	for _, o := range all {
		read, err := s.Transformer()(o)
		if err != nil {
			return err
		}
		items = append(items, read.(*item))
	}
	s.informer.change(func() bool {
		changed := !s.whole
		s.whole = true
		stays := make(map[key]bool, len(items))
		for _, i := range items {
			stays[keyOf(i)] = true
			changed = s.takeLocked(i) || changed
		}
		for _, k := range s.keysLocked() {
			if !stays[k] {
				changed = s.dropLocked(k) || changed
			}
		}
		return changed
	})
	return nil
}

// Resync implements [cache.ReflectorStore].
func (s *store) Resync() error { return nil }

// clear forgets all objects: their definition is gone.
func (s *store) clear() {
	s.informer.change(func() bool {
		changed := false
		for _, k := range s.keysLocked() {
			changed = s.dropLocked(k) || changed
		}
		s.whole = false
		return changed
	})
}

func (s *store) keysLocked() []key {
	var all []key
	if s.kind != nil {
		all = s.kind.names()
	}
	for k := range s.wrong {
		if s.kind == nil || !s.kind.has(k) {
			all = append(all, k)
		}
	}
	return all
}

// takeLocked makes an object what was read, or leaves its last good form in force. It
// tells whether that changed anything.
func (s *store) takeLocked(i *item) bool {
	k, r := keyOf(i), i.reading
	if i.sum != ([32]byte{}) {
		if s.sums[k] == i.sum {
			return false
		}
		s.sums[k] = i.sum
	}
	if r.Object == nil && r.Mesh == nil {
		r = s.lastGoodLocked(k, r)
	}
	changed := s.noteLocked(k, r)
	if r.Object == nil || s.kind == nil || s.kind.same(k, r.Object) {
		return changed
	}
	s.kind.put(k, r.Object)
	return true
}

// lastGoodLocked is a reading that was not taken, with what is in force instead.
func (s *store) lastGoodLocked(k key, r source.Reading) source.Reading {
	before := s.wrong[k]
	if before.Mesh == nil && (s.kind == nil || !s.kind.has(k)) {
		return r
	}
	r.Mesh, r.Settings, r.Refused = before.Mesh, before.Settings, nil
	r.Problems = slices.Clone(r.Problems)
	for i := range r.Problems {
		if r.Problems[i].Severity == source.Error && !r.Problems[i].NotServed {
			r.Problems[i].Message += " (what it was before stays in force)"
		}
	}
	return r
}

func (s *store) dropLocked(k key) bool {
	delete(s.sums, k)
	changed := s.noteLocked(k, source.Reading{})
	if s.kind == nil || !s.kind.has(k) {
		return changed
	}
	s.kind.put(k, nil)
	return true
}

// noteLocked keeps what a reading says beside its object.
func (s *store) noteLocked(k key, r source.Reading) bool {
	_, before := s.wrong[k]
	r.Object = nil
	if len(r.Problems) == 0 && r.Refused == nil && r.Mesh == nil {
		delete(s.wrong, k)
	} else {
		s.wrong[k] = r
	}
	_, now := s.wrong[k]
	s.informer.aside = s.informer.aside || before || now
	return before || now
}
