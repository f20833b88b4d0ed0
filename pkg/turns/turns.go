// Package turns gives turns to those who ask for them, so many at a time: each key of those
// who wait (an address, a pod) in turn, and those of one key in their order. Strangers who
// ask for all that there is, from as many connections as they like, so hold up nobody for
// longer than a turn of each key that waits.
//
// Who waits costs a goroutine and a few words, and how many wait is bounded, of one key and in
// all. How long one waits is its context's. For whatever has peers do what is dear; it knows
// nothing of what that is.
package turns

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"sync"
)

var (
	// ErrFull says that as many wait as may, of the key or in all.
	ErrFull = errors.New("too many are waiting")
	// ErrClosed says that the queue was closed.
	ErrClosed = errors.New("the server is stopping")
)

// Options of a [Queue].
type Options[K comparable] struct {
	// Most is how many turns there are at the same time. It must be positive.
	Most int
	// Share is how many of them one key may have; 0: all.
	Share int
	// Waiting is how many may wait, and Line how many of one key. Both must be positive.
	// Where all places are taken, the last of the longest line makes room for a key of
	// which nobody waits.
	Waiting, Line int
	// First tells the keys that come before all the others. It may be nil: none does.
	First func(K) bool
	// Memory is how much those who have a turn may make the server hold, in bytes, and
	// Size, asked at the beginning of each, how much one does. Where Memory is less than
	// Most of Size there are fewer turns, but always one. Size may be nil: nothing.
	Memory int64
	Size   func() int64
	// Crowded is told when as many wait as there are turns, and when nobody does any more.
	// It must not block, nor call the queue. It may be nil.
	Crowded func(bool)
}

// Queue gives turns. It may be used by many at once.
type Queue[K comparable] struct {
	o Options[K]

	// mu guards below.
	mu      sync.Mutex
	given   int   // turns that have not ended
	memory  int64 // of those
	waiting int
	crowded bool
	// lines are the keys that wait or have a turn.
	lines map[K]*line[K]
	// first and others are the lines whose next may have a turn, of *line.
	first, others list.List
	// closed closes with the queue.
	closed chan struct{}
}

// line is a key's.
type line[K comparable] struct {
	key   K
	given int       // its turns that have not ended
	list  list.List // of *waiter
	// place is where among the queue's lines it stands, or nil: it is not due.
	in    *list.List
	place *list.Element
}

// waiter is one who waits. given closes with turn set, or with out.
type waiter struct {
	given chan struct{}
	turn  *Turn
	out   bool // it is in no line any more, and has no turn
}

// Turn is somebody's, from when it is given until it ends.
type Turn struct {
	once sync.Once
	end  func()
}

// End ends a turn; once it has ended, nothing happens.
func (t *Turn) End() { t.once.Do(t.end) }

// New returns a queue.
func New[K comparable](o Options[K]) (*Queue[K], error) {
	if o.Most <= 0 || o.Waiting <= 0 || o.Line <= 0 {
		return nil, errors.New("turns: Most, Waiting and Line must be positive")
	}
	o.Share = cmp.Or(o.Share, o.Most)
	return &Queue[K]{o: o, lines: map[K]*line[K]{}, closed: make(chan struct{})}, nil
}

// Take waits for a turn, which must be ended. It fails with ctx's error if that ends before,
// with [ErrFull] if too many wait, and with [ErrClosed].
func (q *Queue[K]) Take(ctx context.Context, key K) (*Turn, error) {
	q.mu.Lock()
	l := q.lines[key]
	if l == nil {
		l = &line[K]{key: key, in: &q.others}
		if q.o.First != nil && q.o.First(key) {
			l.in = &q.first
		}
		q.lines[key] = l
	}
	w := &waiter{given: make(chan struct{})}
	place := l.list.PushBack(w)
	q.waiting++
	q.placeLocked(l)
	q.giveLocked()
	if w.turn == nil && (l.list.Len() > q.o.Line || q.waiting > q.o.Waiting && !q.makeRoomLocked(l)) {
		q.leaveLocked(l, place)
		q.mu.Unlock()
		return nil, ErrFull
	}
	q.noteLocked()
	q.mu.Unlock()
	err := ErrFull
	select {
	case <-w.given:
	case <-ctx.Done():
		err = ctx.Err()
	case <-q.closed:
		err = ErrClosed
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case w.turn != nil: // maybe at the same moment
		return w.turn, nil
	case !w.out:
		q.leaveLocked(l, place)
	}
	return nil, err
}

// makeRoomLocked sends away the last of the longest line for the first of another.
func (q *Queue[K]) makeRoomLocked(l *line[K]) bool {
	if l.list.Len() > 1 {
		return false
	}
	longest := l
	for _, other := range q.lines {
		if other.list.Len() > longest.list.Len() {
			longest = other
		}
	}
	if longest == l {
		return false
	}
	place := longest.list.Back()
	w, _ := place.Value.(*waiter)
	w.out = true
	q.leaveLocked(longest, place)
	close(w.given)
	return true
}

// Close sends away all who wait, and who comes and would have to. It is called once.
func (q *Queue[K]) Close() { close(q.closed) }

// Waiting is how many wait.
func (q *Queue[K]) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// Given is how many have a turn.
func (q *Queue[K]) Given() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.given
}

// giveLocked gives turns while there are any for those who wait.
func (q *Queue[K]) giveLocked() {
	for q.given < q.o.Most {
		next := cmp.Or(q.first.Front(), q.others.Front())
		if next == nil {
			return
		}
		var size int64
		if q.o.Size != nil {
			size = q.o.Size()
		}
		if size > 0 && q.given > 0 && q.memory+size > q.o.Memory {
			return
		}
		l, _ := next.Value.(*line[K])
		place := l.list.Front()
		w, _ := place.Value.(*waiter)
		q.given++
		q.memory += size
		l.given++
		l.in.MoveToBack(next)
		q.leaveLocked(l, place)
		w.turn = &Turn{end: func() { q.end(l, size) }}
		close(w.given)
	}
}

func (q *Queue[K]) end(l *line[K], size int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.given--
	q.memory -= size
	l.given--
	q.placeLocked(l)
	q.giveLocked()
}

// leaveLocked takes one who waits out of a line.
func (q *Queue[K]) leaveLocked(l *line[K], place *list.Element) {
	l.list.Remove(place)
	q.waiting--
	q.placeLocked(l)
	q.noteLocked()
}

// placeLocked has a line stand among those that are due if it is, and forgets it if nobody
// is left of it.
func (q *Queue[K]) placeLocked(l *line[K]) {
	switch due := l.list.Len() > 0 && l.given < q.o.Share; {
	case due && l.place == nil:
		l.place = l.in.PushBack(l)
	case !due && l.place != nil:
		l.in.Remove(l.place)
		l.place = nil
	}
	if l.list.Len() == 0 && l.given == 0 {
		delete(q.lines, l.key)
	}
}

// noteLocked tells who wants to know whether there is a crowd.
func (q *Queue[K]) noteLocked() {
	if now := q.waiting >= q.o.Most || q.crowded && q.waiting > 0; now != q.crowded {
		q.crowded = now
		if q.o.Crowded != nil {
			q.o.Crowded(now)
		}
	}
}
