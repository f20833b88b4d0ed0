package store

import (
	"cmp"
	"slices"
)

// index is a table of short sorted lists: several workloads may share an
// address, several services a hostname. The lists are sorted, so that the first
// is the same one on every node, whatever the order of arrival.
type index[K comparable, V any] = table[K, []V]

// insert adds v to key's list, in the order of less and replacing its equal.
func insert[K comparable, V any](e *editor[K, []V], key K, v V, order func(a, b V) int) {
	old, _ := e.get(key)
	at, found := slices.BinarySearchFunc(old, v, order)
	next := make([]V, 0, len(old)+1)
	next = append(next, old[:at]...)
	next = append(next, v)
	if found {
		at++
	}
	e.set(key, append(next, old[at:]...))
}

// take removes v from key's list.
func take[K comparable, V any](e *editor[K, []V], key K, v V, order func(a, b V) int) {
	old, _ := e.get(key)
	at, found := slices.BinarySearchFunc(old, v, order)
	if !found {
		return
	}
	if len(old) == 1 {
		e.remove(key)
		return
	}
	e.set(key, slices.Delete(slices.Clone(old), at, at+1))
}

func compareText[T ~string](a, b T) int { return cmp.Compare(a, b) }
