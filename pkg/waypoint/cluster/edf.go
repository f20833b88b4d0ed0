package cluster

import (
	"container/heap"
	"sync"
)

// scheduler is earliest deadline first: each entry comes up in proportion to its
// weight, spread evenly, and at a weight that may change from pick to pick.
type scheduler[T any] struct {
	// mu guards below.
	mu      sync.Mutex
	entries deadlines[T]
	order   uint64
	now     float64
	weight  func(T) float64
}

type deadline[T any] struct {
	at    float64
	order uint64
	entry T
}

// newScheduler begins at a point that seed says, so that replicas do not go in step.
func newScheduler[T any](entries []T, weight func(T) float64, seed uint64) *scheduler[T] {
	s := &scheduler[T]{weight: weight, entries: make(deadlines[T], 0, len(entries))}
	for _, e := range entries {
		s.addLocked(e, weight(e))
	}
	for range seed % uint64(len(entries)) {
		s.next(weight)
	}
	return s
}

func (s *scheduler[T]) addLocked(e T, weight float64) {
	s.order++
	heap.Push(&s.entries, deadline[T]{s.now + 1/max(weight, 1e-9), s.order, e})
}

// next is the entry whose turn it is; it comes again by what weight says now.
func (s *scheduler[T]) next(weight func(T) float64) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	top := &s.entries[0]
	e := top.entry
	s.now = top.at
	s.order++
	top.at, top.order = s.now+1/max(weight(e), 1e-9), s.order
	heap.Fix(&s.entries, 0)
	return e
}

type deadlines[T any] []deadline[T]

func (d deadlines[T]) Len() int { return len(d) }
func (d deadlines[T]) Less(i, j int) bool {
	return d[i].at < d[j].at || d[i].at == d[j].at && d[i].order < d[j].order
}
func (d deadlines[T]) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *deadlines[T]) Push(x any)   { *d = append(*d, x.(deadline[T])) }
func (d *deadlines[T]) Pop() any {
	old := *d
	last := old[len(old)-1]
	*d = old[:len(old)-1]
	return last
}
