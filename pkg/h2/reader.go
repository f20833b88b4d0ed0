package h2

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"time"
)

// readLoop reads frames until the connection is over.
func (c *Conn) readLoop() {
	if !c.client {
		// The preface is here; settings must follow.
		_ = c.nc.SetReadDeadline(time.Now().Add(c.config.PrefaceTimeout))
	}
	var raw [headerLen]byte
	for {
		if err := c.await(); err != nil {
			c.fail(readError(err))
			return
		}
		if _, err := io.ReadFull(c.br, raw[:]); err != nil {
			c.fail(readError(err))
			return
		}
		h := parseFrameHeader(raw[:])
		if h.length > c.config.MaxFrame {
			c.fail(connError(CodeFrameSize, "frame of %d bytes, limit %d", h.length, c.config.MaxFrame))
			return
		}
		if err := c.frame(h); err != nil {
			c.fail(err)
			return
		}
	}
}

func readError(err error) error {
	if errors.Is(err, io.EOF) {
		return &ConnError{Code: CodeNo, Reason: "connection closed", Remote: true}
	}
	return err
}

func (c *Conn) frame(h frameHeader) error {
	c.mu.Lock()
	seen := c.settingsSeen
	c.mu.Unlock()
	if !seen && h.kind != frameSettings {
		return connError(CodeProtocol, "first frame is not SETTINGS")
	}
	switch h.kind {
	case frameData:
		return c.data(h)
	case frameHeaders:
		return c.headers(h)
	case frameContinuation:
		return connError(CodeProtocol, "CONTINUATION without HEADERS")
	case framePushPromise:
		return connError(CodeProtocol, "PUSH_PROMISE is off")
	}
	if h.length > minFrameSize {
		return connError(CodeFrameSize, "control frame of %d bytes", h.length)
	}
	payload := make([]byte, h.length)
	if _, err := io.ReadFull(c.br, payload); err != nil {
		return readError(err)
	}
	if h.kind != frameWindowUpdate && !c.controls.take() {
		return connError(CodeEnhanceYourCalm, "too many control frames")
	}
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
		return c.peerGoAway(payload)
	}
	return nil // PRIORITY and unknown types (section 4.1)
}

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
	for ; len(payload) > 0; payload = payload[6:] {
		if err := c.setting(binary.BigEndian.Uint16(payload), binary.BigEndian.Uint32(payload[2:])); err != nil {
			return err
		}
	}
	c.mu.Lock()
	first := !c.settingsSeen
	c.settingsSeen = true
	c.windowChanged.Broadcast()
	c.mu.Unlock()
	if first {
		_ = c.nc.SetReadDeadline(time.Time{})
	}
	return c.writeControl(frameSettings, flagAck, 0, nil)
}

func (c *Conn) setting(id uint16, value uint32) error {
	if id == 1 { // header table
		c.out.mu.Lock()
		c.out.henc.SetMaxDynamicTableSizeLimit(min(value, 4096))
		c.out.mu.Unlock()
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch id {
	case 3:
		c.peerStreams = value
	case 4:
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
	case 5:
		if value < minFrameSize || value > maxFrameSize {
			return connError(CodeProtocol, "maximal frame of %d", value)
		}
		c.peerFrame.Store(value)
	}
	return nil
}

func (c *Conn) ping(h frameHeader, payload []byte) error {
	if len(payload) != 8 {
		return connError(CodeFrameSize, "PING of %d bytes", len(payload))
	}
	if h.stream != 0 {
		return connError(CodeProtocol, "PING on a stream")
	}
	if h.flags&flagAck != 0 {
		c.pingSent.Store(0)
		return nil
	}
	return c.writeControl(framePing, flagAck, 0, payload)
}

func (c *Conn) windowUpdate(h frameHeader, payload []byte) error {
	if len(payload) != 4 {
		return connError(CodeFrameSize, "WINDOW_UPDATE of %d bytes", len(payload))
	}
	n := int64(binary.BigEndian.Uint32(payload) &^ (1 << 31))
	if n == 0 {
		return connError(CodeProtocol, "WINDOW_UPDATE of 0")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.stream == 0 {
		if c.sendWindow += n; c.sendWindow > maxWindow {
			return connError(CodeFlowControl, "connection window overflow")
		}
	} else if s := c.streams[h.stream]; s != nil {
		if s.sendWindow += n; s.sendWindow > maxWindow {
			return connError(CodeFlowControl, "stream window overflow")
		}
	} else if c.isIdleLocked(h.stream) {
		return connError(CodeProtocol, "WINDOW_UPDATE on an idle stream")
	}
	c.windowChanged.Broadcast()
	return nil
}

// isIdleLocked reports whether the stream was never opened.
func (c *Conn) isIdleLocked(id uint32) bool {
	if c.client == (id%2 == 1) { // ours
		return !c.client || id >= c.nextID
	}
	return id > c.lastPeerID
}

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
		c.remove(s)
		s.end(&StreamError{Code: Code(binary.BigEndian.Uint32(payload)), Remote: true})
	}
	return nil
}

func (c *Conn) peerGoAway(payload []byte) error {
	if len(payload) < 8 {
		return connError(CodeFrameSize, "GOAWAY of %d bytes", len(payload))
	}
	last, code := binary.BigEndian.Uint32(payload)&^(1<<31), Code(binary.BigEndian.Uint32(payload[4:]))
	if code != CodeNo {
		return &ConnError{Code: code, Reason: strings.ToValidUTF8(string(payload[8:min(len(payload), 8+200)]), "?"), Remote: true}
	}
	c.mu.Lock()
	c.goAway = true
	var refused []*Stream
	if c.client {
		for id, s := range c.streams {
			if id > last {
				refused = append(refused, s)
				delete(c.streams, id)
			}
		}
	}
	empty := len(c.streams) == 0
	c.mu.Unlock()
	for _, s := range refused {
		s.end(&StreamError{Code: CodeRefusedStream, Remote: true})
	}
	if empty && c.client {
		return &ConnError{Code: CodeNo, Reason: "GOAWAY", Remote: true}
	}
	return nil
}

// remove takes s out of the table; the connection ends with its last stream if
// no new ones are taken.
func (c *Conn) remove(s *Stream) {
	c.mu.Lock()
	if c.streams[s.id] == s {
		delete(c.streams, s.id)
	}
	last := c.goAway && len(c.streams) == 0 && c.err == nil
	c.windowChanged.Broadcast()
	c.mu.Unlock()
	if last {
		c.fail(&ConnError{Code: CodeNo, Reason: "drained"})
	}
}

// data hands a DATA frame's payload to its stream as it is read.
func (c *Conn) data(h frameHeader) error {
	if h.stream == 0 {
		return connError(CodeProtocol, "DATA on stream 0")
	}
	left := int(h.length)
	padding := 0
	if h.flags&flagPadded != 0 {
		if left == 0 {
			return connError(CodeFrameSize, "padded DATA without a length")
		}
		b, err := c.br.ReadByte()
		if err != nil {
			return readError(err)
		}
		padding = int(b)
		if left--; padding > left {
			return connError(CodeProtocol, "padding longer than the frame")
		}
	}
	c.mu.Lock()
	s := c.streams[h.stream]
	idle := s == nil && c.isIdleLocked(h.stream)
	c.mu.Unlock()
	if idle {
		return connError(CodeProtocol, "DATA on an idle stream")
	}
	if h.length == 0 && h.flags&flagEndStream == 0 && !c.controls.take() {
		return connError(CodeEnhanceYourCalm, "too many empty DATA frames")
	}
	if c.unacked.Add(int64(h.length)) > int64(c.config.ConnWindow) {
		return connError(CodeFlowControl, "more than the connection's window")
	}
	if s != nil && !s.admit(int64(h.length)) {
		return connError(CodeFlowControl, "more than the stream's window")
	}
	for left -= padding; left > 0; {
		// What is buffered goes on in place; the reader's buffer is the only copy.
		if c.br.Buffered() == 0 {
			if _, err := c.br.Peek(1); err != nil {
				return readError(err)
			}
		}
		b, _ := c.br.Peek(min(left, c.br.Buffered()))
		if s != nil {
			s.deliver(b)
		}
		_, _ = c.br.Discard(len(b))
		left -= len(b)
	}
	if _, err := c.br.Discard(padding); err != nil {
		return readError(err)
	}
	if s != nil {
		if extra := int64(h.length) - int64(int(h.length)-padding-padFieldLen(h)); extra > 0 {
			s.credit(extra)
		}
		if h.flags&flagEndStream != 0 {
			s.endOfInput()
		}
	}
	return c.giveBack()
}

func padFieldLen(h frameHeader) int {
	if h.flags&flagPadded != 0 {
		return 1
	}
	return 0
}

// maxBuffered bounds what the streams of one connection may hold for slow
// sockets, in bytes. Below it the connection's window is given back at once, so
// that a few slow streams do not stop the others.
const maxBuffered = 32 << 20

func (c *Conn) giveBack() error {
	if c.unacked.Load() < int64(c.config.ConnWindow)/4 || c.buffered.Load() > maxBuffered {
		return nil
	}
	n := uint32(c.unacked.Swap(0))
	if n == 0 {
		return nil
	}
	return c.writeControl(frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, n))
}
