package probe

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ErrGone says that the prober ended.
var ErrGone = errors.New("the node's prober is gone")

// Client asks a prober. Safe for concurrent use.
type Client struct {
	// mu guards below.
	mu      sync.Mutex
	in      io.WriteCloser
	last    uint64
	waiting map[uint64]chan Answer
	gone    bool
}

// NewClient talks to a prober over its pipes; it reads until out ends.
func NewClient(in io.WriteCloser, out io.Reader) *Client {
	c := &Client{in: in, waiting: map[uint64]chan Answer{}}
	go c.read(out)
	return c
}

// Close ends the prober.
func (c *Client) Close() error { return c.in.Close() }

func (c *Client) read(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var a Answer
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			continue
		}
		c.mu.Lock()
		if w, ok := c.waiting[a.ID]; ok {
			w <- a // has room for one
			delete(c.waiting, a.ID)
		}
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for id, w := range c.waiting {
		close(w)
		delete(c.waiting, id)
	}
}

// Ask returns nil when what it asked is ready.
func (c *Client) Ask(ctx context.Context, r Request) error {
	w, id, err := c.send(r)
	if err != nil {
		return err
	}
	select {
	case a, ok := <-w:
		if !ok {
			return ErrGone
		}
		if a.Problem != "" {
			return errors.New(a.Problem)
		}
		return nil
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
		return ctx.Err()
	}
}

func (c *Client) send(r Request) (<-chan Answer, uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil, 0, ErrGone
	}
	c.last++
	r.ID = c.last
	text, err := json.Marshal(r)
	if err != nil {
		return nil, 0, err
	}
	w := make(chan Answer, 1)
	c.waiting[r.ID] = w
	if _, err := c.in.Write(append(text, '\n')); err != nil {
		delete(c.waiting, r.ID)
		return nil, 0, fmt.Errorf("%w: %w", ErrGone, err)
	}
	return w, r.ID, nil
}
