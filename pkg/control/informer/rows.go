package informer

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// key names an object of a kind.
type key struct{ namespace, name string }

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.namespace, o.namespace), cmp.Compare(k.name, o.name))
}

func keyOf(o metav1.Object) key { return key{o.GetNamespace(), o.GetName()} }

// object is a pointer to a kind's Go type.
type object interface {
	comparable
	metav1.Object
}

// rows are the objects of one kind: all that are in force, and those of them that a
// state shows. Both are sorted by namespace and name and never changed once they were
// shown.
type rows[T object] struct {
	all, shown []T
	// changed are those since all was made, with nil for what is gone.
	changed map[key]T
	// show chooses what is shown; nil: everything.
	show func(T) bool
}

// get is the object in force, or nil.
func (r *rows[T]) get(k key) T {
	if o, changed := r.changed[k]; changed {
		return o
	}
	o, _ := find(r.all, k)
	return o
}

func find[T object](in []T, k key) (found T, at int) {
	at, ok := slices.BinarySearchFunc(in, k, func(o T, k key) int { return keyOf(o).compare(k) })
	if ok {
		found = in[at]
	}
	return found, at
}

// put makes an object that of its name, nil: none.
func (r *rows[T]) put(k key, o T) {
	if r.changed == nil {
		r.changed = map[key]T{}
	}
	r.changed[k] = o
}

// latest are all objects in force.
func (r *rows[T]) latest() []T { return with(r.all, r.changed) }

// settle makes what is shown follow from what has changed, and from another choice if
// again.
func (r *rows[T]) settle(again bool) {
	maps.DeleteFunc(r.changed, func(k key, now T) bool { before, _ := find(r.all, k); return before == now })
	if len(r.changed) > 0 {
		r.all = with(r.all, r.changed)
	}
	switch {
	case r.show == nil:
		r.shown = r.all
	case again:
		shown := make([]T, 0, len(r.all))
		for _, o := range r.all {
			if r.show(o) {
				shown = append(shown, o)
			}
		}
		if !slices.Equal(shown, r.shown) {
			r.shown = shown
		}
	default:
		r.settleShown()
	}
	r.changed = nil
}

// settleShown shows what has changed.
func (r *rows[T]) settleShown() {
	var none T
	changed := make(map[key]T, len(r.changed))
	for k, o := range r.changed {
		if o != none && !r.show(o) {
			o = none
		}
		if before, _ := find(r.shown, k); before != o {
			changed[k] = o
		}
	}
	if len(changed) > 0 {
		r.shown = with(r.shown, changed)
	}
}

// few is up to how many changes are put in their places one by one.
const few = 64

// with is a list with changes, nil for what is gone; the list itself stays.
func with[T object](before []T, changed map[key]T) []T {
	var none T
	if len(changed) <= few {
		now := slices.Clone(before)
		for k, o := range changed {
			found, at := find(now, k)
			switch {
			case found != none && o != none:
				now[at] = o
			case found != none:
				now = slices.Delete(now, at, at+1)
			case o != none:
				now = slices.Insert(now, at, o)
			}
		}
		return now
	}
	now := make([]T, 0, len(before)+len(changed))
	for _, o := range before {
		if _, other := changed[keyOf(o)]; !other {
			now = append(now, o)
		}
	}
	for _, o := range changed {
		if o != none {
			now = append(now, o)
		}
	}
	slices.SortFunc(now, func(a, b T) int { return keyOf(a).compare(keyOf(b)) })
	return now
}

// kind is how an informer deals with the objects of a kind, whatever their Go type.
type kind interface {
	// same tells whether an object is the one in force.
	same(k key, now metav1.Object) bool
	// put makes an object, nil: none, the one in force.
	put(k key, now metav1.Object)
	has(k key) bool
	// names are those of all objects in force.
	names() []key
	// settle puts what is shown within a scope into a state, chosen again if so, and
	// tells whether it is another than before.
	settle(into *source.Objects, s scope, again bool) bool
}

// kindOf is a kind with a field of a state.
type kindOf[T object] struct {
	rows  rows[T]
	field func(*source.Objects) *[]T
	// within is the namespace that decides whether an object is in scope; nil: it always
	// is.
	within func(T) string
	// also is what else decides; or nil.
	also func(T) bool
}

func (c *kindOf[T]) same(k key, now metav1.Object) bool {
	var none T
	before := c.rows.get(k)
	return before != none && equality.Semantic.DeepEqual(before, now)
}

func (c *kindOf[T]) put(k key, now metav1.Object) {
	o, _ := now.(T) // nil of none
	c.rows.put(k, o)
}

func (c *kindOf[T]) has(k key) bool {
	var none T
	return c.rows.get(k) != none
}

func (c *kindOf[T]) names() []key {
	var names []key
	for _, o := range c.rows.latest() {
		names = append(names, keyOf(o))
	}
	return names
}

func (c *kindOf[T]) settle(into *source.Objects, s scope, again bool) bool {
	before := c.rows.shown
	c.rows.show = nil
	if c.also != nil || c.within != nil && !s.all {
		c.rows.show = func(o T) bool { return (c.within == nil || s.has(c.within(o))) && (c.also == nil || c.also(o)) }
	}
	c.rows.settle(again)
	*c.field(into) = c.rows.shown
	return !source.Same(before, c.rows.shown)
}
