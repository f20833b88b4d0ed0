package h2

// headers reads a header block to its end and opens or answers a stream.
func (c *Conn) headers(h frameHeader) error {
	if h.stream == 0 {
		return connError(CodeProtocol, "HEADERS on stream 0")
	}
	if !c.client && h.stream%2 == 0 {
		return connError(CodeProtocol, "HEADERS on an even stream")
	}
	selfish, err := c.headerBlock(h)
	if err != nil {
		return err
	}
	end := h.flags&flagEndStream != 0
	c.mu.Lock()
	s, idle, wrong := c.streams[h.stream], c.isIdleLocked(h.stream), c.closed.wrong(h.stream)
	c.mu.Unlock()
	switch {
	case s == nil && !idle:
		if wrong {
			return connError(CodeStreamClosed, "HEADERS on a closed stream")
		}
		if !c.controls.take() {
			return connError(CodeEnhanceYourCalm, "too many HEADERS on streams that were reset")
		}
		return nil
	case s == nil && c.client:
		return connError(CodeProtocol, "HEADERS on an idle stream")
	case s == nil:
		return c.request(h.stream, end, selfish)
	case selfish:
		return c.streamError(h.stream, CodeProtocol)
	}
	switch code := s.more(&c.dec, end); code {
	case CodeNo:
	case CodeStreamClosed: // as if its other end had ended as well, which may be on its way
		return connError(CodeStreamClosed, "HEADERS after the end of a stream")
	default:
		return c.streamError(h.stream, code)
	}
	if end {
		s.endOfInput()
	}
	return nil
}

// request opens a stream of the peer's with the fields that were decoded.
func (c *Conn) request(id uint32, end, selfish bool) error {
	var head head
	code := CodeNo
	if c.dec.tooLarge {
		code = CodeEnhanceYourCalm
	} else {
		var ok bool
		head, ok = requestHead(&c.dec, c.config.ExtendedConnect)
		if !ok || selfish || end && head.length > 0 {
			code = CodeProtocol
		}
	}
	s := newStream(c, id)
	c.mu.Lock()
	if id > c.lastPeerID+2 {
		c.closed.skipped, c.closed.before = c.lastPeerID+1, id
	}
	c.lastPeerID = id
	if c.err != nil {
		c.mu.Unlock()
		return nil
	}
	// Handlers whose streams were reset still work.
	if code == CodeNo && (c.goAway || len(c.streams) >= int(c.config.MaxStreams) || c.handling >= 2*int(c.config.MaxStreams)) {
		code = CodeRefusedStream
	}
	if code == CodeNo {
		s.sendWindow = c.peerStream
		s.fields = withRoom(c.dec.fields)
		s.left, s.headEnd = head.length, end
		c.streams[id] = s
		c.live.Store(int32(len(c.streams)))
		c.handling++
	}
	c.mu.Unlock()
	if code != CodeNo {
		return c.streamError(id, code)
	}
	if end {
		s.endOfInput()
	}
	go c.handle(s)
	return nil
}

// handle serves a stream; what its handler leaves is reset.
func (c *Conn) handle(s *Stream) {
	c.handler(s)
	c.handled(s)
}

// handled is called when a handler has returned, for the last time if it did not park.
func (c *Conn) handled(s *Stream) {
	if s.parks() {
		return
	}
	c.mu.Lock()
	c.handling--
	live := c.streams[s.id] == s
	c.mu.Unlock()
	if live {
		s.abandon()
	}
}

// headerBlock reads a HEADERS frame and its CONTINUATIONs, and decodes them. The
// compressed block is bounded by twice the list's limit, in however many frames it
// comes. It reports whether the stream says that it depends on itself.
func (c *Conn) headerBlock(h frameHeader) (selfish bool, err error) {
	most := 2 * int(c.config.MaxHeaderList)
	c.block = c.block[:0]
	for kind := h; ; {
		if len(c.block)+int(kind.length) > most {
			return false, connError(CodeEnhanceYourCalm, "header block of more than %d bytes", most)
		}
		first := kind.kind == frameHeaders
		if first && kind.flags&flagEndHeaders != 0 && kind.length <= readBuffer { // nearly always
			payload, err := c.in.need(int(kind.length))
			if err != nil {
				return false, err
			}
			block, selfish, err := stripHeaders(h, payload)
			if err == nil {
				err = c.decode(block)
			}
			c.in.skip(int(kind.length))
			return selfish, err
		}
		for rest := int(kind.length); rest > 0; {
			b, err := c.in.some(rest)
			if err != nil {
				return false, err
			}
			c.block = append(c.block, b...)
			rest -= len(b)
			c.in.skip(len(b))
		}
		if first {
			var block []byte
			if block, selfish, err = stripHeaders(h, c.block); err != nil {
				return false, err
			}
			c.block = c.block[:copy(c.block, block)]
		}
		if kind.flags&flagEndHeaders != 0 {
			err := c.decode(c.block)
			if cap(c.block) > minFrameSize {
				c.block = nil
			}
			return selfish, err
		}
		if !c.controls.take() {
			return false, connError(CodeEnhanceYourCalm, "too many CONTINUATION frames")
		}
		raw, err := c.in.need(headerLen)
		if err != nil {
			return false, err
		}
		kind = parseFrameHeader(raw)
		c.in.skip(headerLen)
		if kind.kind != frameContinuation || kind.stream != h.stream {
			return false, connError(CodeProtocol, "header block interrupted")
		}
		if kind.length > c.config.MaxFrame {
			return false, connError(CodeFrameSize, "frame of %d bytes", kind.length)
		}
	}
}

func (c *Conn) decode(block []byte) error {
	if err := c.dec.decode(block); err != nil {
		return &ConnError{Code: CodeCompression, Reason: err.Error()}
	}
	return nil
}

func stripHeaders(h frameHeader, payload []byte) (block []byte, selfish bool, err error) {
	padding := 0
	if h.flags&flagPadded != 0 {
		if len(payload) < 1 {
			return nil, false, connError(CodeFrameSize, "padded HEADERS without a length")
		}
		padding, payload = int(payload[0]), payload[1:]
	}
	if h.flags&flagPriority != 0 {
		if len(payload) < 5 {
			return nil, false, connError(CodeFrameSize, "HEADERS with priority too short")
		}
		selfish = dependsOn(payload) == h.stream
		payload = payload[5:]
	}
	if padding > len(payload) {
		return nil, false, connError(CodeProtocol, "padding longer than the frame")
	}
	return payload[:len(payload)-padding], selfish, nil
}
