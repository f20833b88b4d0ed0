package h2

import (
	"encoding/binary"
	"time"
)

func (c *Conn) settings(h frameHeader, payload []byte) error {
	if h.stream != 0 {
		return connError(CodeProtocol, "SETTINGS on a stream")
	}
	if h.flags&flagAck != 0 {
		if len(payload) != 0 {
			return connError(CodeFrameSize, "SETTINGS ACK with a payload")
		}
		return nil
	}
	if len(payload)%6 != 0 {
		return connError(CodeFrameSize, "SETTINGS of %d bytes", len(payload))
	}
	// The writer's lock is held until the acknowledgement is queued: nothing that
	// the new values allow goes out before it.
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	for ; len(payload) > 0; payload = payload[6:] {
		if err := c.settingLocked(binary.BigEndian.Uint16(payload), binary.BigEndian.Uint32(payload[2:])); err != nil {
			return err
		}
	}
	c.mu.Lock()
	first := !c.settingsSeen
	c.settingsSeen = true
	c.wakeBlockedLocked()
	c.mu.Unlock()
	if first {
		_ = c.nc.SetReadDeadline(time.Time{})
	}
	return c.writeControlLocked(frameSettings, flagAck, 0, nil)
}

// settingLocked applies a value. The caller holds the writer's lock.
func (c *Conn) settingLocked(id uint16, value uint32) error {
	if id == settingTableSize {
		c.out.enc.limit(value)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch id {
	case settingPush:
		// A server must not say that it takes pushes (section 6.5.2).
		if value > 1 || value == 1 && c.client {
			return connError(CodeProtocol, "ENABLE_PUSH of %d", value)
		}
	case settingStreams:
		c.peerStreams = value
	case settingWindow:
		if value > maxWindow {
			return connError(CodeFlowControl, "initial window of %d", value)
		}
		delta := int64(value) - c.peerStream
		c.peerStream = int64(value)
		for _, s := range c.streams {
			s.sendWindow += delta
			if s.sendWindow > maxWindow {
				return connError(CodeFlowControl, "a stream's window of %d", s.sendWindow)
			}
		}
	case settingFrameSize:
		if value < minFrameSize || value > maxFrameSize {
			return connError(CodeProtocol, "maximal frame of %d", value)
		}
		c.peerFrame.Store(value)
	case settingConnectProtocol:
		if value > 1 || value == 0 && c.peerConnect {
			return connError(CodeProtocol, "ENABLE_CONNECT_PROTOCOL of %d", value)
		}
		c.peerConnect = value == 1
	}
	return nil
}

func (c *Conn) windowUpdate(h frameHeader, payload []byte) error {
	if len(payload) != 4 {
		return connError(CodeFrameSize, "WINDOW_UPDATE of %d bytes", len(payload))
	}
	n := int64(binary.BigEndian.Uint32(payload) &^ (1 << 31))
	if n == 0 && h.stream == 0 {
		return connError(CodeProtocol, "WINDOW_UPDATE of 0")
	}
	c.mu.Lock()
	if h.stream == 0 {
		c.sendWindow += n
		overflow := c.sendWindow > maxWindow
		c.wakeBlockedLocked()
		c.mu.Unlock()
		if overflow {
			return connError(CodeFlowControl, "connection window overflow")
		}
		return nil
	}
	s, idle := c.streams[h.stream], c.isIdleLocked(h.stream)
	code := CodeNo
	if s != nil {
		s.sendWindow += n
		switch {
		case s.sendWindow > maxWindow:
			code = CodeFlowControl
		case n == 0:
			code = CodeProtocol
		}
		s.writable.Broadcast()
	}
	c.mu.Unlock()
	if idle {
		return connError(CodeProtocol, "WINDOW_UPDATE on an idle stream")
	}
	if code != CodeNo {
		return c.streamError(h.stream, code)
	}
	return nil
}

// wakeBlockedLocked lets those look again who wait for window.
func (c *Conn) wakeBlockedLocked() {
	for _, s := range c.blocked {
		s.blocked = false
		s.writable.Broadcast()
	}
	clear(c.blocked)
	c.blocked = c.blocked[:0]
}
