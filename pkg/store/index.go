package store

import (
	"cmp"
	"slices"
)

// index is a table of short sorted lists: several workloads may share an
// address, several services a hostname. The lists are sorted, so that the first
// is the same one on every node, whatever the order of arrival.
type index[K comparable, V any] = table[K, []V]

// insert adds v to key's list, in the order of order and replacing its equal. A
// list is copied once in a change, however many of its members the change has.
func insert[K comparable, V any](e *editor[K, []V], key K, v V, order func(a, b V) int) {
	list, _ := e.get(key)
	at, found := slices.BinarySearchFunc(list, v, order)
	_, owned := e.owned[key]
	switch {
	case len(list) == 0:
		e.set(key, []V{v}) // most lists stay this short: not worth a note that it is owned
		return
	case found && owned:
		list[at] = v
		return
	case owned:
		e.set(key, slices.Insert(list, at, v))
		return
	}
	next := make([]V, 0, len(list)+1)
	next = append(next, list[:at]...)
	next = append(next, v)
	if found {
		at++
	}
	e.own(key, append(next, list[at:]...))
}

// take removes v from key's list.
func take[K comparable, V any](e *editor[K, []V], key K, v V, order func(a, b V) int) {
	list, _ := e.get(key)
	at, found := slices.BinarySearchFunc(list, v, order)
	if !found {
		return
	}
	if len(list) == 1 {
		e.remove(key)
		return
	}
	if _, owned := e.owned[key]; !owned {
		list = slices.Clone(list)
	}
	e.own(key, slices.Delete(list, at, at+1))
}

// own sets a list that this editor made.
func (e *editor[K, V]) own(key K, v V) {
	e.set(key, v)
	if e.owned == nil {
		e.owned = map[K]struct{}{}
	}
	e.owned[key] = struct{}{}
}

func compareText[T ~string](a, b T) int { return cmp.Compare(a, b) }
