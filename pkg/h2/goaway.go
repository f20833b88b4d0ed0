package h2

import (
	"encoding/binary"
	"strings"
	"time"
)

// lastStream is what the first of two GOAWAYs names: all that come are taken.
const lastStream = 1<<31 - 1

// goAwayWait bounds the wait for the answer to the PING behind the first GOAWAY. A
// peer that has not answered may have streams on their way, which are lost then: it
// is given as long as a machine may be busy.
const goAwayWait = 10 * time.Second

func goAwayPayload(last uint32, code Code) []byte {
	payload := binary.BigEndian.AppendUint32(nil, last)
	return binary.BigEndian.AppendUint32(payload, uint32(code))
}

// GoAway takes no new streams; the connection ends when the last one does. A
// server says so twice: streams that were on their way before the peer heard of it
// are served (RFC 9113 section 6.8).
func (c *Conn) GoAway() {
	c.mu.Lock()
	already := c.draining || c.goAway || c.err != nil
	c.draining = true
	c.mu.Unlock()
	if already {
		return
	}
	if c.client {
		c.refuseStreams()
		return
	}
	err := c.writeControl(frameGoAway, 0, 0, goAwayPayload(lastStream, CodeNo))
	if err == nil {
		err = c.writeControl(framePing, 0, 0, []byte(drained))
	}
	if err != nil {
		c.fail(err)
		return
	}
	time.AfterFunc(goAwayWait, c.refuseStreams)
}

// refuseStreams takes no more streams from now on.
func (c *Conn) refuseStreams() {
	c.mu.Lock()
	already := c.goAway || c.err != nil
	c.goAway = true
	last, empty := c.lastPeerID, len(c.streams) == 0
	c.mu.Unlock()
	if already {
		return
	}
	if empty { // whose end tells the peer the same
		c.fail(&ConnError{Code: CodeNo, Reason: "drained"})
		return
	}
	if err := c.writeControl(frameGoAway, 0, 0, goAwayPayload(last, CodeNo)); err != nil {
		c.fail(err)
	}
}

// peerGoAway: streams after the last that the peer names were not worked on.
func (c *Conn) peerGoAway(h frameHeader, payload []byte) error {
	if h.stream != 0 {
		return connError(CodeProtocol, "GOAWAY on a stream")
	}
	if len(payload) < 8 {
		return connError(CodeFrameSize, "GOAWAY of %d bytes", len(payload))
	}
	last, code := binary.BigEndian.Uint32(payload)&^(1<<31), Code(binary.BigEndian.Uint32(payload[4:]))
	c.mu.Lock()
	c.goAway = true
	var refused []*Stream
	if c.client {
		for id, s := range c.streams {
			if id > last {
				refused = append(refused, s)
				c.forgetLocked(s)
			}
		}
	}
	empty := len(c.streams) == 0
	c.wakeBlockedLocked()
	c.mu.Unlock()
	for _, s := range refused {
		s.end(&StreamError{Code: CodeRefusedStream, Remote: true})
	}
	// A client that says so closes the connection itself: what it still reads of
	// answers would be lost if it were closed here, with its frames unread.
	if code != CodeNo && c.client {
		return &ConnError{Code: code, Reason: strings.ToValidUTF8(string(payload[8:min(len(payload), 8+200)]), "?"), Remote: true}
	}
	if empty && c.client {
		return &ConnError{Code: CodeNo, Reason: "GOAWAY", Remote: true}
	}
	return nil
}
