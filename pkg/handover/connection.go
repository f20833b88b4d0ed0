package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Connection is one that is carried by an agent and can be by the next.
type Connection struct {
	// Cookie is that of the pod's network namespace.
	Cookie uint64
	// State is what the agents tell each other of it, less than 2 KiB.
	State json.RawMessage
	// FDs are its sockets. They are closed once they are sent.
	FDs []int
}

// connection announces one. Its number is the answer's.
type connection struct {
	Number uint64          `json:"number"`
	Cookie uint64          `json:"cookie"`
	State  json.RawMessage `json:"state"`
}

// answer says who has a connection from now on: whoever reads it there, or has sent
// it, may count on it. The next agent does not touch one before its answer is sent,
// the first one does not after it is.
type answer struct {
	Number uint64 `json:"number"`
	Taken  bool   `json:"taken"`
}

// answering bounds how long the next agent may take for one connection, which stands
// still meanwhile.
const answering = 5 * time.Second

// Giver hands connections to the next agent.
type Giver struct {
	conn *net.UnixConn

	// mu guards below.
	mu      sync.Mutex
	number  uint64
	waiting map[uint64]chan bool
	over    bool // no answer comes any more
}

// newGiver returns one that ends with the next agent, or Close.
func newGiver(c *net.UnixConn) *Giver {
	g := &Giver{conn: c, waiting: map[uint64]chan bool{}}
	_ = c.SetDeadline(time.Time{})
	go g.listen()
	return g
}

// listen hears the answers until the last. When it ends nothing that was not answered
// is the next agent's: it cannot answer any more.
func (g *Giver) listen() {
	for {
		m, files, err := receive(g.conn)
		for _, f := range files {
			_ = f.Close() // nothing that we know
		}
		if errors.Is(err, errGone) || errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			// Such as that the other died with something unread: its last answers may
			// be here nevertheless, and are heard before the end is.
			g.Close()
			continue
		}
		g.answered(m.Answer)
	}
	_ = g.conn.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	for _, w := range g.waiting {
		w <- false
	}
	clear(g.waiting)
}

func (g *Giver) answered(a *answer) {
	if a == nil {
		return // of a later version
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.waiting[a.Number]; w != nil {
		w <- a.Taken
		delete(g.waiting, a.Number)
	}
}

// Give reports whether the next agent has taken the connection, which is its own then.
// It may be called by many at once: each has two sockets on their way at most.
func (g *Giver) Give(c Connection) bool {
	w := make(chan bool, 1)
	g.mu.Lock()
	over, number := g.over, g.number
	if !over {
		g.number++
		g.waiting[number] = w
	}
	g.mu.Unlock()
	var err error
	if !over {
		// It waits where the other reads slowly, and Close ends that.
		err = send(g.conn, message{Connection: &connection{number, c.Cookie, c.State}}, c.FDs)
	}
	for _, fd := range c.FDs {
		_ = unix.Close(fd)
	}
	if over {
		return false
	}
	if err != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.waiting, number) // it was not sent: no answer comes
		return false
	}
	timer := time.NewTimer(answering)
	defer timer.Stop()
	select {
	case taken := <-w:
		return taken
	case <-timer.C:
		g.Close()
		return <-w
	}
}

// Over reports whether no more can be given.
func (g *Giver) Over() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.over
}

// Close gives no more. Connections that are not answered for stay: the kernel takes no
// answer from now on, and those that it has are heard.
func (g *Giver) Close() {
	_ = g.conn.CloseWrite()
	_ = g.conn.CloseRead()
}

// Resumption is a connection that the next agent can go on with.
type Resumption interface {
	// Begin goes on with it.
	Begin()
	// Drop forgets it without a trace: it is the first agent's still.
	Drop()
}

// Connections receives the connections that the first agent hands over, until it has
// no more or ctx ends. It calls take for each with its sockets, which are take's to
// close; an error leaves the connection to the first agent. It must not wait.
func (t *Taker) Connections(ctx context.Context, take func(cookie uint64, state json.RawMessage, files []*os.File) (Resumption, error)) error {
	defer t.Abandon()
	if !t.gives {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = t.conn.Close() })
	defer stop()
	_ = t.conn.SetDeadline(time.Time{})
	for {
		m, files, err := receive(t.conn)
		if err == nil && m.Connection != nil {
			err = t.connection(m.Connection, files, take)
		} else {
			for _, f := range files {
				_ = f.Close()
			}
		}
		if errors.Is(err, errGone) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("connections of the agent before: %w", err)
		}
	}
}

func (t *Taker) connection(c *connection, files []*os.File, take func(uint64, json.RawMessage, []*os.File) (Resumption, error)) error {
	r, err := take(c.Cookie, c.State, files)
	if err != nil {
		return send(t.conn, message{Answer: &answer{c.Number, false}}, nil)
	}
	if err := send(t.conn, message{Answer: &answer{c.Number, true}}, nil); err != nil {
		r.Drop()
		return err
	}
	r.Begin()
	return nil
}
