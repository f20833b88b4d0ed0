// Package live knows connections that go on for long and what allows each, so that one
// that a new policy refuses ends: TCP connections and protocols after an upgrade.
// Requests are asked for one by one and are not here.
package live

import "sync"

// Set is the connections that are open. Its zero value is ready; a nil one keeps none.
type Set struct {
	mu   sync.Mutex
	open map[*entry]struct{}
}

type entry struct {
	allowed func() error
	end     func()
}

// Add keeps a connection until remove is called. allowed is asked at once, as what it
// looks at may have changed since it was last asked, and at each Review; end is called
// when it refuses, at most once and not after remove, and must not wait. An error is
// the refusal.
func (s *Set) Add(allowed func() error, end func()) (remove func(), err error) {
	if s == nil {
		return func() {}, nil
	}
	e := &entry{allowed, end}
	s.mu.Lock()
	if s.open == nil {
		s.open = map[*entry]struct{}{}
	}
	s.open[e] = struct{}{}
	s.mu.Unlock()
	remove = func() {
		s.mu.Lock()
		delete(s.open, e)
		s.mu.Unlock()
	}
	if err := allowed(); err != nil {
		remove()
		return func() {}, err
	}
	return remove, nil
}

// Review ends what is no longer allowed, and returns how many that were.
func (s *Set) Review() (ended int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range s.open {
		if e.allowed() != nil {
			delete(s.open, e)
			e.end()
			ended++
		}
	}
	return ended
}
