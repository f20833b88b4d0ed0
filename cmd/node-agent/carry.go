package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/handover"
	"github.com/fairlead-mesh/fairlead/pkg/ztunnel"
)

const (
	// carriers is how many connections are handed over at once: each has two sockets
	// on their way, of the 253 that a message could hold.
	carriers = 64
	// restPatience is how long a connection may take to come to rest, and once more
	// with a larger socket for its receiver.
	restPatience = 100 * time.Millisecond
	// What does not come to rest is tried again, and what was being set up.
	firstRetry, lastRetry = time.Second, 15 * time.Second
)

// giving is what the next agent is given.
type giving struct {
	cookie uint64
	*ztunnel.Plaintext
}

// carry hands what the retired proxies relay in plain text over to the next agent,
// until nothing is left, the next agent takes no more, or this one's time is over.
func (e *enroller) carry(g *handover.Giver) {
	e.work.Go(func() {
		defer g.Close()
		// Once more when nothing is left: the last that were accepted here may come late.
		for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
			given, left := e.giveAll(g)
			if given > 0 {
				e.log.Info("connections go on with the next agent", "handedOver", given, "left", left)
			}
			if left == 0 && wait > firstRetry || g.Over() {
				return
			}
			select {
			case <-time.After(wait):
			case <-e.leaving.Done():
				return
			}
		}
	})
}

// giveAll tries each connection once. left are those that stay, with those that are
// being set up.
func (e *enroller) giveAll(g *handover.Giver) (given, left int64) {
	e.mu.Lock()
	retired := e.retired
	e.mu.Unlock()
	var taken, kept atomic.Int64
	var group sync.WaitGroup
	connections := make(chan giving)
	for range carriers {
		group.Go(func() {
			for c := range connections {
				if give(g, c) {
					taken.Add(1)
				} else {
					kept.Add(1)
				}
			}
		})
	}
	for _, p := range retired {
		all, expected := p.proxy.Plaintexts()
		if expected {
			kept.Add(1)
		}
		for _, c := range all {
			connections <- giving{p.pod.Cookie(), c}
		}
	}
	close(connections)
	group.Wait()
	return taken.Load(), kept.Load()
}

// give reports whether the next agent has the connection; else it goes on here.
func give(g *handover.Giver, c giving) bool {
	if g.Over() {
		return false
	}
	carried, fds, ok := c.Rest(restPatience)
	if !ok {
		return false
	}
	state, err := json.Marshal(carried)
	if err != nil {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	} else if g.Give(handover.Connection{Cookie: c.cookie, State: state, FDs: fds}) {
		c.Leave()
		return true
	}
	c.GoOn()
	return false
}

// resume goes on with a connection of the agent before.
func (e *enroller) resume(cookie uint64, state json.RawMessage, files []*os.File) (r handover.Resumption, err error) {
	defer func() {
		for _, f := range files {
			_ = f.Close() // connections have descriptors of their own
		}
	}()
	var carried ztunnel.Carried
	if err := json.Unmarshal(state, &carried); err != nil {
		return nil, fmt.Errorf("connection of the agent before: %w", err)
	}
	if len(files) != 2 {
		return nil, fmt.Errorf("connection of the agent before: %d sockets, want 2", len(files))
	}
	proxy := e.serving(cookie)
	if proxy == nil {
		return nil, errors.New("connection of the agent before: of a pod that is not enrolled")
	}
	var ends [2]*net.TCPConn
	defer func() {
		for _, c := range ends {
			if err != nil && c != nil {
				_ = c.Close()
			}
		}
	}()
	for i, f := range files {
		c, err := net.FileConn(f)
		if err != nil {
			return nil, fmt.Errorf("connection of the agent before: %w", err)
		}
		var ok bool
		if ends[i], ok = c.(*net.TCPConn); !ok {
			return nil, errors.Join(errors.New("connection of the agent before: it is not of TCP"), c.Close())
		}
	}
	return proxy.Resume(carried, ends[0], ends[1])
}

// serving is the proxy of the pod with that cookie, or nil.
func (e *enroller) serving(cookie uint64) *ztunnel.Proxy {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.pods {
		if p.pod.Cookie() == cookie {
			return p.proxy
		}
	}
	return nil
}

// Carry implements [handover.Owner].
func (t *tenure) Carry(g *handover.Giver) { t.pods.carry(g) }

// inherit goes on with what the agent before hands over, for as long as that takes.
func (t *tenure) inherit(ctx context.Context) error {
	if t.taker != nil {
		if err := t.taker.Connections(ctx, t.pods.resume); err != nil {
			t.log.Warn("what the agent before carries still ends with it", "err", err)
		}
	}
	<-ctx.Done()
	return nil
}
