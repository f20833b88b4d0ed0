package door

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxWaiting bounds those who wait for a turn; one address may have half of the
	// places.
	maxWaiting = 16 << 10
	// longestHandshake bounds a handshake, from the beginning of its turn.
	longestHandshake = 10 * time.Second
	// longestSilence is how long a connection has its turn without a stream that it
	// belongs to: who has proved nothing does not hold up the others.
	longestSilence = 2 * time.Second
	// longestQueue bounds the wait of a connection, after which its peer has given up.
	longestQueue = 30 * time.Second
)

var (
	errFull   = errors.New("too many connections are waiting")
	errClosed = errors.New("the server is stopping")
)

// Options of a [Door].
type Options struct {
	// Turns is how many there are at the same time. It must be positive.
	Turns int
	// Memory is how much those who have a turn may make the server hold, in bytes, and
	// Size, asked at the beginning of each, how much one does. Where Memory is less than
	// Turns of Size there are fewer turns, but always one. Size may be nil.
	Memory int64
	Size   func() int64
	// Crowded is told when as many wait as there are turns, and when nobody does any more.
	// It must not block, nor call the door. It may be nil.
	Crowded func(bool)
}

// Door gives turns: to streams of connections that are in before it lets in others, to
// the addresses in turn, and to those of one address in their order.
type Door struct {
	o Options

	// mu guards below.
	mu     sync.Mutex
	turns  int   // that were given and have not ended
	memory int64 // of those
	// outside are connections that wait, inside are streams.
	outside, inside lines
	count           int
	crowded         bool
	// closed closes with the door.
	closed chan struct{}
}

// lines are those who wait, by address; order are the addresses with a line.
type lines struct {
	by    map[netip.Addr]*line
	order list.List // of *line
}

// line are those who wait from one address.
type line struct {
	from  netip.Addr
	list  list.List // of *waiter
	place *list.Element
}

// waiter is one who waits. given closes with turn set.
type waiter struct {
	given chan struct{}
	turn  *Turn
}

// New returns a door.
func New(o Options) (*Door, error) {
	if o.Turns <= 0 {
		return nil, errors.New("door: Turns must be positive")
	}
	return &Door{o: o, outside: lines{by: map[netip.Addr]*line{}}, inside: lines{by: map[netip.Addr]*line{}}, closed: make(chan struct{})}, nil
}

// Turn is somebody's, from when it is given until it ends.
type Turn struct {
	door *Door
	size int64

	// mu guards below.
	mu      sync.Mutex
	ended   bool
	claimed bool
}

// wait waits for a turn, which must be ended, in one of the door's lines. It fails if ctx
// ends before, or if too many wait.
func (d *Door) wait(ctx context.Context, in *lines, from netip.Addr) (*Turn, error) {
	d.mu.Lock()
	l := in.by[from]
	if d.count >= maxWaiting || l != nil && l.list.Len() >= maxWaiting/2 {
		d.mu.Unlock()
		return nil, errFull
	}
	if l == nil {
		l = &line{from: from}
		l.place = in.order.PushBack(l)
		in.by[from] = l
	}
	w := &waiter{given: make(chan struct{})}
	place := l.list.PushBack(w)
	d.count++
	d.noteLocked()
	d.giveLocked()
	d.mu.Unlock()
	select {
	case <-w.given:
		return w.turn, nil
	case <-ctx.Done():
	case <-d.closed:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if w.turn != nil { // it came at the same moment
		return w.turn, nil
	}
	d.leaveLocked(in, l, place)
	return nil, cmp.Or(ctx.Err(), errClosed)
}

// Close sends away all who wait or come. It is called once.
func (d *Door) Close() { close(d.closed) }

// giveLocked gives turns while there are any.
func (d *Door) giveLocked() {
	for d.count > 0 && d.turns < d.o.Turns {
		var size int64
		if d.o.Size != nil {
			size = d.o.Size()
		}
		if d.turns > 0 && d.memory+size > d.o.Memory {
			return
		}
		in := &d.inside
		if in.order.Len() == 0 {
			in = &d.outside
		}
		next := in.order.Front()
		l, _ := next.Value.(*line)
		place := l.list.Front()
		w, _ := place.Value.(*waiter)
		in.order.MoveToBack(next)
		d.leaveLocked(in, l, place)
		d.turns++
		d.memory += size
		w.turn = &Turn{door: d, size: size}
		close(w.given)
	}
}

// leaveLocked takes one out of a line.
func (d *Door) leaveLocked(in *lines, l *line, place *list.Element) {
	l.list.Remove(place)
	d.count--
	if l.list.Len() == 0 {
		in.order.Remove(l.place)
		delete(in.by, l.from)
	}
	d.noteLocked()
}

// noteLocked tells who wants to know whether there is a crowd.
func (d *Door) noteLocked() {
	if now := d.count >= d.o.Turns || d.crowded && d.count > 0; now != d.crowded {
		d.crowded = now
		if d.o.Crowded != nil {
			d.o.Crowded(now)
		}
	}
}

// Waiting is how many wait.
func (d *Door) Waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

// End ends a turn; once it has ended, nothing happens.
func (t *Turn) End() {
	t.mu.Lock()
	ended := t.ended
	t.ended = true
	t.mu.Unlock()
	if ended {
		return
	}
	t.door.mu.Lock()
	defer t.door.mu.Unlock()
	t.door.turns--
	t.door.memory -= t.size
	t.door.giveLocked()
}

// claim makes a connection's turn that of a stream, if it has not ended.
func (t *Turn) claim() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.claimed {
		return false
	}
	t.claimed = true
	return true
}

// abandon ends a turn that no stream has claimed.
func (t *Turn) abandon() {
	t.mu.Lock()
	claimed := t.claimed
	t.claimed = true
	t.mu.Unlock()
	if !claimed {
		t.End()
	}
}
