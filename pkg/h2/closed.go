package h2

import "slices"

// closedStreams remembers how streams ended, as far as frames for them must be
// told apart (RFC 9113 section 5.1). Those that are in no list were reset by us:
// the peer may not know it yet, and its frames are ignored.
type closedStreams struct {
	// ended are the last streams that the peer itself ended or reset.
	ended [32]uint32
	next  int
	// The last streams that the peer passed over are skipped to before.
	skipped, before uint32
}

func (c *closedStreams) add(id uint32) {
	c.ended[c.next] = id
	c.next = (c.next + 1) % len(c.ended)
}

// wrong reports whether a stream may not be used any more.
func (c *closedStreams) wrong(id uint32) bool {
	if id >= c.skipped && id < c.before {
		return true
	}
	for _, e := range c.ended {
		if e == id {
			return true
		}
	}
	return false
}

// isIdleLocked reports whether the stream was never opened.
func (c *Conn) isIdleLocked(id uint32) bool {
	if c.client == (id%2 == 1) { // ours
		return !c.client || id >= c.nextID
	}
	return id > c.lastPeerID
}

// forgetLocked takes s out of the table, and reports whether it was there.
func (c *Conn) forgetLocked(s *Stream) bool {
	if c.streams[s.id] != s {
		return false
	}
	delete(c.streams, s.id)
	c.live.Store(int32(len(c.streams)))
	if s.blocked {
		s.blocked = false
		i := slices.Index(c.blocked, s)
		c.blocked = slices.Delete(c.blocked, i, i+1)
	}
	s.writable.Broadcast()
	return true
}

// remove takes s out of the table; peer says that the peer ended it.
func (c *Conn) remove(s *Stream, peer bool) {
	c.mu.Lock()
	if c.forgetLocked(s) && peer {
		c.closed.add(s.id)
	}
	c.mu.Unlock()
	c.settle()
}

// settle ends a connection that takes no streams and has none.
func (c *Conn) settle() {
	c.mu.Lock()
	last := c.goAway && len(c.streams) == 0 && c.err == nil
	c.mu.Unlock()
	if last {
		c.fail(&ConnError{Code: CodeNo, Reason: "drained"})
	}
}
