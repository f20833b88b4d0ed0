package h2

import (
	"encoding/binary"
	"errors"
	"io"
	"time"
)

// readLoop reads frames until the connection is over.
func (c *Conn) readLoop() {
	if !c.client {
		// The preface is here; settings must follow.
		_ = c.nc.SetReadDeadline(time.Now().Add(c.config.PrefaceTimeout))
	}
	for {
		raw, err := c.in.need(headerLen)
		if err == nil {
			h := parseFrameHeader(raw)
			c.in.skip(headerLen)
			if h.length > c.config.MaxFrame {
				err = connError(CodeFrameSize, "frame of %d bytes, limit %d", h.length, c.config.MaxFrame)
			} else {
				err = c.frame(h)
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = &ConnError{Code: CodeNo, Reason: "connection closed", Remote: true}
			}
			c.fail(err)
			c.in.release()
			return
		}
	}
}

func (c *Conn) frame(h frameHeader) error {
	if !c.firstSeen && (h.kind != frameSettings || h.flags&flagAck != 0) {
		return connError(CodeProtocol, "first frame is not SETTINGS")
	}
	c.firstSeen = true
	switch h.kind {
	case frameData:
		return c.data(h)
	case frameHeaders:
		return c.headers(h)
	case frameContinuation:
		return connError(CodeProtocol, "CONTINUATION without HEADERS")
	case framePushPromise:
		return connError(CodeProtocol, "PUSH_PROMISE is off")
	case frameWindowUpdate, frameRSTStream: // counted elsewhere, or harmless
	default:
		if !c.controls.take() {
			return connError(CodeEnhanceYourCalm, "too many control frames")
		}
	}
	if h.kind > frameContinuation {
		return c.in.discard(int(h.length)) // section 4.1
	}
	if h.length > minFrameSize {
		return connError(CodeFrameSize, "control frame of %d bytes", h.length)
	}
	payload, err := c.in.need(int(h.length))
	if err != nil {
		return err
	}
	err = c.control(h, payload)
	c.in.skip(int(h.length))
	return err
}

func (c *Conn) control(h frameHeader, payload []byte) error {
	switch h.kind {
	case frameSettings:
		return c.settings(h, payload)
	case framePing:
		return c.ping(h, payload)
	case frameWindowUpdate:
		return c.windowUpdate(h, payload)
	case frameRSTStream:
		return c.rstStream(h, payload)
	case frameGoAway:
		return c.peerGoAway(h, payload)
	}
	return c.priority(h, payload)
}

func (c *Conn) ping(h frameHeader, payload []byte) error {
	if len(payload) != 8 {
		return connError(CodeFrameSize, "PING of %d bytes", len(payload))
	}
	if h.stream != 0 {
		return connError(CodeProtocol, "PING on a stream")
	}
	if h.flags&flagAck == 0 {
		return c.writeControl(framePing, flagAck, 0, payload)
	}
	switch string(payload) {
	case keepalive:
		c.pingSent.Store(0)
	case drained:
		c.refuseStreams()
	}
	return nil
}

// priority is checked, and has no other effect (section 5.3.2).
func (c *Conn) priority(h frameHeader, payload []byte) error {
	if h.stream == 0 {
		return connError(CodeProtocol, "PRIORITY on stream 0")
	}
	if len(payload) != 5 {
		return c.streamError(h.stream, CodeFrameSize)
	}
	if dependsOn(payload) == h.stream {
		return c.streamError(h.stream, CodeProtocol)
	}
	return nil
}

func dependsOn(priority []byte) uint32 { return binary.BigEndian.Uint32(priority) &^ (1 << 31) }

func (c *Conn) rstStream(h frameHeader, payload []byte) error {
	if len(payload) != 4 {
		return connError(CodeFrameSize, "RST_STREAM of %d bytes", len(payload))
	}
	c.mu.Lock()
	idle := h.stream == 0 || c.isIdleLocked(h.stream)
	s := c.streams[h.stream]
	c.mu.Unlock()
	if idle {
		return connError(CodeProtocol, "RST_STREAM on an idle stream")
	}
	// A stream that is reset before it was answered is work for nothing.
	if !c.client && (s == nil || !s.answered.Load()) && !c.resets.take() {
		return connError(CodeEnhanceYourCalm, "too many resets")
	}
	if s != nil {
		c.remove(s, true)
		s.end(&StreamError{Code: Code(binary.BigEndian.Uint32(payload)), Remote: true})
	}
	return nil
}

// streamError resets a stream whose peer broke the protocol, if it ever was one.
// Resets that a peer provokes are as costly as its own.
func (c *Conn) streamError(id uint32, code Code) error {
	if !c.resets.take() {
		return connError(CodeEnhanceYourCalm, "too many stream errors, the last one %v", code)
	}
	c.mu.Lock()
	s, idle := c.streams[id], c.isIdleLocked(id)
	if s != nil {
		c.forgetLocked(s)
	}
	c.mu.Unlock()
	if idle {
		return connError(code, "on an idle stream")
	}
	if err := c.writeReset(id, code); err != nil {
		return err
	}
	if s != nil {
		s.end(&StreamError{Code: code})
		c.settle()
	}
	return nil
}

func (c *Conn) writeReset(id uint32, code Code) error {
	var payload [4]byte
	binary.BigEndian.PutUint32(payload[:], uint32(code))
	return c.writeControl(frameRSTStream, 0, id, payload[:])
}
