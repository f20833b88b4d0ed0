package lab

import "sync"

// mailbox holds the newest of what was put in; older ones are forgotten.
type mailbox[T any] struct{ slot chan T }

func newMailbox[T any]() *mailbox[T] { return &mailbox[T]{make(chan T, 1)} }

// put replaces what waits. One goroutine puts.
func (m *mailbox[T]) put(v T) {
	select {
	case <-m.slot:
	default:
	}
	m.slot <- v
}

// epoch is something that ends and begins anew, and a way to wait for it.
type epoch struct {
	mu      sync.Mutex
	changed chan struct{}
}

func newEpoch() *epoch { return &epoch{changed: make(chan struct{})} }

// bump ends the epoch.
func (e *epoch) bump() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.changed)
	e.changed = make(chan struct{})
}

// now closes when the epoch ends.
func (e *epoch) now() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}
