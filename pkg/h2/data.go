package h2

// data hands a DATA frame's payload to its stream as it is read.
func (c *Conn) data(h frameHeader) error {
	if h.stream == 0 {
		return connError(CodeProtocol, "DATA on stream 0")
	}
	left, padding := int(h.length), 0
	if h.flags&flagPadded != 0 {
		if left == 0 {
			return connError(CodeFrameSize, "padded DATA without a length")
		}
		b, err := c.in.need(1)
		if err != nil {
			return err
		}
		padding = int(b[0])
		c.in.skip(1)
		if left--; padding > left {
			return connError(CodeProtocol, "padding longer than the frame")
		}
	}
	left -= padding
	c.mu.Lock()
	s := c.streams[h.stream]
	idle := s == nil && c.isIdleLocked(h.stream)
	wrong := s == nil && c.closed.wrong(h.stream)
	c.mu.Unlock()
	if idle {
		return connError(CodeProtocol, "DATA on an idle stream")
	}
	end := h.flags&flagEndStream != 0
	if (left == 0 && !end || s == nil) && !c.controls.take() {
		return connError(CodeEnhanceYourCalm, "too many DATA frames without a use")
	}
	if c.unacked.Add(int64(h.length)) > int64(c.config.ConnWindow) {
		return connError(CodeFlowControl, "more than the connection's window")
	}
	code := CodeNo
	if s != nil {
		if code = s.admit(int64(h.length), int64(left), end); code == CodeFlowControl {
			return connError(CodeFlowControl, "more than the stream's window")
		}
	} else if wrong {
		code = CodeStreamClosed
	}
	if code != CodeNo {
		if err := c.streamError(h.stream, code); err != nil {
			return err
		}
		s = nil
	}
	for rest := left; rest > 0; {
		// What is buffered goes on in place; the reader's buffer is the only copy.
		b, err := c.in.some(rest)
		if err != nil {
			return err
		}
		if s != nil {
			s.deliver(b)
		}
		rest -= len(b)
		c.in.skip(len(b))
	}
	if err := c.in.discard(padding); err != nil {
		return err
	}
	if s != nil {
		if extra := int64(h.length) - int64(left); extra > 0 {
			s.credit(extra)
		}
		if end {
			s.endOfInput()
		}
	}
	return c.giveBack()
}

// giveBack gives the connection's window back, unless streams hold too much.
func (c *Conn) giveBack() error {
	if c.unacked.Load() < int64(c.config.ConnWindow)/4 || c.buffered.Load() > int64(c.config.MaxBuffered) {
		return nil
	}
	n := uint32(c.unacked.Swap(0))
	if n == 0 {
		return nil
	}
	return c.writeWindow(0, n)
}
