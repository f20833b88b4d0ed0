package h2

import (
	"encoding/binary"
	"io"

	"golang.org/x/net/http2/hpack"
)

// headers reads a header block to its end and opens or answers a stream.
func (c *Conn) headers(h frameHeader) error {
	if h.stream == 0 {
		return connError(CodeProtocol, "HEADERS on stream 0")
	}
	fields, tooLarge, err := c.headerBlock(h)
	if err != nil {
		return err
	}
	end := h.flags&flagEndStream != 0
	if c.client {
		c.mu.Lock()
		s, idle := c.streams[h.stream], c.isIdleLocked(h.stream)
		c.mu.Unlock()
		if idle {
			return connError(CodeProtocol, "HEADERS on an idle stream")
		}
		if s != nil {
			if tooLarge {
				s.Reset(CodeEnhanceYourCalm)
				return nil
			}
			s.response(fields, end)
		}
		return nil
	}
	if h.stream%2 == 0 {
		return connError(CodeProtocol, "HEADERS on an even stream")
	}
	c.mu.Lock()
	if s := c.streams[h.stream]; s != nil {
		c.mu.Unlock()
		if !end { // trailers end a stream
			return connError(CodeProtocol, "second HEADERS without END_STREAM")
		}
		s.endOfInput()
		return nil
	}
	if h.stream <= c.lastPeerID {
		c.mu.Unlock()
		return connError(CodeStreamClosed, "HEADERS on a closed stream")
	}
	c.lastPeerID = h.stream
	refuse := c.goAway || uint32(len(c.streams)) >= c.config.MaxStreams
	if c.err != nil {
		c.mu.Unlock()
		return nil
	}
	var s *Stream
	if !refuse && !tooLarge {
		s = newStream(c, h.stream)
		s.sendWindow = c.peerStream
		s.fields = fields
		s.gotFields = true
		c.streams[h.stream] = s
	}
	c.mu.Unlock()
	if s == nil {
		if !c.resets.take() {
			return connError(CodeEnhanceYourCalm, "too many streams over the limit")
		}
		code := CodeRefusedStream
		if tooLarge {
			code = CodeEnhanceYourCalm
		}
		return c.writeControl(frameRSTStream, 0, h.stream, binary.BigEndian.AppendUint32(nil, uint32(code)))
	}
	if end {
		s.endOfInput()
	}
	go c.handler(s)
	return nil
}

// headerBlock reads a HEADERS frame and its CONTINUATIONs. The compressed block
// is bounded by twice the list's limit, in however many frames it comes.
func (c *Conn) headerBlock(h frameHeader) (fields []Field, tooLarge bool, err error) {
	size := 0
	limit := int(c.config.MaxHeaderList)
	c.hdec.SetEmitFunc(func(f hpack.HeaderField) {
		if size += len(f.Name) + len(f.Value) + 32; size > limit {
			tooLarge = true
			return
		}
		fields = append(fields, Field{f.Name, f.Value})
	})
	c.hdec.SetEmitEnabled(true)
	total := 0
	strip := true // padding and priority stand in the first frame alone
	for kind := h; ; {
		if total += int(kind.length); total > 2*limit {
			return nil, false, connError(CodeEnhanceYourCalm, "header block of more than %d bytes", 2*limit)
		}
		payload := make([]byte, kind.length)
		if _, err := io.ReadFull(c.br, payload); err != nil {
			return nil, false, readError(err)
		}
		if strip {
			if payload, err = stripHeaders(kind, payload); err != nil {
				return nil, false, err
			}
			strip = false
		}
		if _, err := c.hdec.Write(payload); err != nil {
			return nil, false, connError(CodeCompression, "%v", err)
		}
		if kind.flags&flagEndHeaders != 0 {
			break
		}
		if !c.controls.take() {
			return nil, false, connError(CodeEnhanceYourCalm, "too many CONTINUATION frames")
		}
		var raw [headerLen]byte
		if _, err := io.ReadFull(c.br, raw[:]); err != nil {
			return nil, false, readError(err)
		}
		next := parseFrameHeader(raw[:])
		if next.kind != frameContinuation || next.stream != h.stream {
			return nil, false, connError(CodeProtocol, "header block interrupted")
		}
		if next.length > c.config.MaxFrame {
			return nil, false, connError(CodeFrameSize, "frame of %d bytes", next.length)
		}
		kind = next
	}
	if err := c.hdec.Close(); err != nil {
		return nil, false, connError(CodeCompression, "%v", err)
	}
	return fields, tooLarge, nil
}

func stripHeaders(h frameHeader, payload []byte) ([]byte, error) {
	padding := 0
	if h.flags&flagPadded != 0 {
		if len(payload) < 1 {
			return nil, connError(CodeFrameSize, "padded HEADERS without a length")
		}
		padding, payload = int(payload[0]), payload[1:]
	}
	if h.flags&flagPriority != 0 {
		if len(payload) < 5 {
			return nil, connError(CodeFrameSize, "HEADERS with priority too short")
		}
		payload = payload[5:]
	}
	if padding > len(payload) {
		return nil, connError(CodeProtocol, "padding longer than the frame")
	}
	return payload[:len(payload)-padding], nil
}
