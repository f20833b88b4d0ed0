package door

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/turns"
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

// Options of a [Door].
type Options struct {
	// Turns is how many there are at the same time. It must be positive.
	Turns int
	// Memory, Size and Crowded are those of [turns.Options].
	Memory  int64
	Size    func() int64
	Crowded func(bool)
}

// Door gives turns: to streams of connections that are in before it lets in others, to
// the addresses in turn, and to those of one address in their order.
type Door struct{ queue *turns.Queue[who] }

// who waits: streams of connections that are in, or connections, from an address.
type who struct {
	inside bool
	from   netip.Addr
}

// New returns a door.
func New(o Options) (*Door, error) {
	queue, err := turns.New(turns.Options[who]{
		Most: o.Turns, Waiting: maxWaiting, Line: maxWaiting / 2, First: func(w who) bool { return w.inside },
		Memory: o.Memory, Size: o.Size, Crowded: o.Crowded,
	})
	if err != nil {
		return nil, err
	}
	return &Door{queue}, nil
}

// wait waits for a turn, which must be ended.
func (d *Door) wait(ctx context.Context, w who) (*Turn, error) {
	turn, err := d.queue.Take(ctx, w)
	if err != nil {
		return nil, err
	}
	return &Turn{Turn: turn}, nil
}

// Close sends away all who wait or come. It is called once.
func (d *Door) Close() { d.queue.Close() }

// Waiting is how many wait.
func (d *Door) Waiting() int { return d.queue.Waiting() }

// Turn is a connection's until one of its streams claims it, and then that stream's.
type Turn struct {
	*turns.Turn
	claimed atomic.Bool
}

// claim makes a connection's turn that of a stream, if it has not ended.
func (t *Turn) claim() bool { return t.claimed.CompareAndSwap(false, true) }

// abandon ends a turn that no stream has claimed.
func (t *Turn) abandon() {
	if t.claim() {
		t.End()
	}
}
