package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Taker is the next agent's end of a handover.
type Taker struct {
	// Listeners are the pods', by cookie. Whoever uses some closes them.
	Listeners map[uint64][]*os.File

	conn  *net.UnixConn
	gives bool // the first agent hands connections over
}

// asking bounds how long the first agent may take to hand out the listeners.
const asking = 30 * time.Second

// Take asks the agent that listens at path for the node.
func Take(path string) (*Taker, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("take over from the agent that owns the node: %w", err)
	}
	if err := trusted(c); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("take over from the agent that owns the node: %w", err)
	}
	t := &Taker{Listeners: map[uint64][]*os.File{}, conn: c}
	_ = c.SetDeadline(time.Now().Add(asking))
	for {
		m, files, err := receive(c)
		if err == nil && m.Error != "" {
			err = errors.New(m.Error)
		}
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
			t.Abandon()
			return nil, fmt.Errorf("take over from the agent that owns the node: %w", err)
		}
		if m.Last {
			return t, nil
		}
		if len(files) == 0 {
			continue // of a later version
		}
		t.Listeners[m.Cookie] = files
	}
}

// ErrKept says that the first agent goes on: it has waited long enough.
var ErrKept = errors.New("the agent before keeps the node")

// Serving tells the first agent that this one is ready for all pods, and returns when it
// has let go of the node, or ErrKept. Connections follows, or Abandon. Any other error
// leaves open what the first does: the lock says it.
func (t *Taker) Serving() error {
	defer t.closeListeners()
	_ = t.conn.SetDeadline(time.Now().Add(asking))
	unsent := send(t.conn, message{Taken: true, Connections: true}, nil)
	m, err := t.verdict()
	if err == nil && m.Error != "" {
		return fmt.Errorf("handover: %w: %s", ErrKept, m.Error)
	}
	if unsent != nil {
		return fmt.Errorf("handover: %w", unsent)
	}
	if err == nil && !m.Bye {
		err = errors.New("it says something else")
	}
	if err != nil {
		return fmt.Errorf("handover: the first agent does not say that it has let go: %w", err)
	}
	t.gives = m.Connections
	return nil
}

// verdict is what the first agent says. One that ends with something unread resets the
// connection, which is told first; what it said before is to be read still.
func (t *Taker) verdict() (message, error) {
	m, _, err := receive(t.conn)
	if errors.Is(err, unix.ECONNRESET) {
		m, _, err = receive(t.conn)
	}
	return m, err
}

// Abandon leaves the node to the first agent, unless Serving was called: then it
// leaves it the connections that it has still.
func (t *Taker) Abandon() {
	_ = t.conn.Close()
	t.closeListeners()
}

func (t *Taker) closeListeners() {
	for _, files := range t.Listeners {
		for _, f := range files {
			_ = f.Close() // those in use have descriptors of their own
		}
	}
}
