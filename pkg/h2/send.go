package h2

import (
	"encoding/binary"
	"errors"
)

// Mode is how something is sent.
type Mode uint8

// The modes; they may be joined.
const (
	// End: nothing follows.
	End Mode = 1 << iota
	// More: the caller sends more at once, which this waits for (as MSG_MORE). Who
	// finds that there is nothing more calls Flush.
	More
)

// Mistakes of ours, not of the peer's.
var (
	errSent  = errors.New("stream: sent after the end")
	errEarly = errors.New("stream: sent before the response's head")
)

// Open begins a stream with a request's fields. The connection must be a client's.
func (c *Conn) Open(fields []Field, mode Mode) (*Stream, error) {
	// The writer's lock is held from the number's choice to the frame, since
	// streams must begin in order (section 5.1.1).
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if err := c.waitRoomLocked(); err != nil {
		return nil, errors.Join(ErrNoStream, err)
	}
	c.mu.Lock()
	if c.err != nil || c.goAway || len(c.streams) >= int(c.peerStreams) || c.nextID > maxWindow-2 {
		err := errors.Join(ErrNoStream, c.err)
		c.mu.Unlock()
		return nil, err
	}
	s := newStream(c, c.nextID)
	s.sentEnd = mode&End != 0
	for i := range fields {
		if fields[i].Name == ":method" {
			s.method = method(fields[i].Value)
			break
		}
	}
	c.nextID += 2
	s.sendWindow = c.peerStream
	c.streams[s.id] = s
	c.live.Store(int32(len(c.streams)))
	c.mu.Unlock()
	c.out.head(s.id, fields, mode&End != 0, int(c.peerFrame.Load()))
	if err := c.flushLocked(mode); err != nil {
		go c.fail(err)
		return nil, err
	}
	return s, nil
}

// method keeps what is known of a method beyond the caller's memory.
func method(m string) string {
	switch m {
	case "HEAD":
		return "HEAD"
	case "CONNECT":
		return "CONNECT"
	}
	return "other"
}

// Respond sends a head of the response: informational ones, then the response's.
func (s *Stream) Respond(fields []Field, mode Mode) error {
	if len(fields) > 0 && fields[0].Name == ":status" && (len(fields[0].Value) == 0 || fields[0].Value[0] != '1') {
		s.answered.Store(true)
	}
	return s.sendFields(fields, mode)
}

func (s *Stream) sendFields(fields []Field, mode Mode) error {
	if err := s.begin(); err != nil {
		return err
	}
	c := s.c
	c.out.mu.Lock()
	err := c.waitRoomLocked()
	if err == nil {
		c.out.head(s.id, fields, mode&End != 0, int(c.peerFrame.Load()))
		err = c.flushLocked(mode)
	}
	c.out.mu.Unlock()
	return s.sent(mode, err)
}

// begin reports why nothing may be sent.
func (s *Stream) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if s.sentEnd {
		return errSent
	}
	return nil
}

// sent notes what came of sending.
func (s *Stream) sent(mode Mode, err error) error {
	if err != nil {
		s.c.fail(err)
		return err
	}
	if mode&End != 0 {
		s.ended()
	}
	return nil
}

// ended notes that we sent the end; a stream whose both ends ended is gone.
func (s *Stream) ended() {
	s.mu.Lock()
	s.sentEnd = true
	done := s.eof
	s.mu.Unlock()
	if done {
		s.c.remove(s, true)
	}
}

// Write implements [io.Writer].
func (s *Stream) Write(b []byte) (int, error) {
	total := len(b)
	if total == 0 {
		return 0, nil
	}
	n, err := s.send(b, 0)
	return n, err
}

// Send sends bytes, as the peer's windows allow.
func (s *Stream) Send(b []byte, mode Mode) error {
	_, err := s.send(b, mode)
	return err
}

// maxPiece is what a writer leaves behind at once.
const maxPiece = largeBuffer - headerLen

func (s *Stream) send(b []byte, mode Mode) (written int, err error) {
	if err := s.begin(); err != nil {
		return 0, err
	}
	c := s.c
	if !c.client && !s.answered.Load() {
		return 0, errEarly
	}
	for {
		n := 0
		if written < len(b) {
			if n, err = s.takeWindow(min(len(b)-written, maxPiece)); err != nil {
				return written, err
			}
		}
		last := written+n == len(b)
		now, flags := mode, byte(0)
		if !last {
			now = More
		} else if mode&End != 0 {
			flags = flagEndStream
		}
		c.out.mu.Lock()
		err := c.waitRoomLocked()
		if err == nil {
			c.out.frame(frameData, flags, s.id, b[written:written+n])
			err = c.flushLocked(now)
		}
		c.out.mu.Unlock()
		if err = s.sent(now, err); err != nil {
			return written, err
		}
		if written += n; last {
			return written, nil
		}
	}
}

// Flush sends what was to wait for more.
func (s *Stream) Flush() error {
	s.c.out.mu.Lock()
	err := s.c.flushLocked(0)
	s.c.out.mu.Unlock()
	return s.sent(0, err)
}

// Finish ends the output, with trailers if there are any.
func (s *Stream) Finish(trailers []Field) error {
	if len(trailers) == 0 {
		return s.Send(nil, End)
	}
	return s.sendFields(trailers, End)
}

// CloseWrite says that nothing more is sent.
func (s *Stream) CloseWrite() error { return s.Finish(nil) }

// writeFrames sends the payload that stands in b after room for a frame's
// header, as windows allow. A further frame's header is written over the end of
// the payload before it.
func (s *Stream) writeFrames(b []byte) error {
	for payload := len(b) - headerLen; payload > 0; {
		n, err := s.takeWindow(payload)
		if err != nil {
			return err
		}
		putFrameHeader(b, n, frameData, 0, s.id)
		s.c.out.mu.Lock()
		err = s.c.writeLocked(b[:headerLen+n])
		s.c.out.mu.Unlock()
		if err := s.sent(0, err); err != nil {
			return err
		}
		b, payload = b[n:], payload-n
	}
	return nil
}

// takeWindow waits for window and takes up to want of it.
func (s *Stream) takeWindow(want int) (int, error) {
	c := s.c
	c.mu.Lock()
	for flushed := false; ; {
		if c.err != nil || c.streams[s.id] != s {
			err := c.err
			c.mu.Unlock()
			if serr := s.Err(); serr != nil {
				return 0, serr
			}
			if err == nil {
				err = &StreamError{Code: CodeStreamClosed}
			}
			return 0, err
		}
		if n := min(int64(want), c.sendWindow, s.sendWindow, int64(c.peerFrame.Load())); n > 0 && c.settingsSeen {
			c.sendWindow -= n
			s.sendWindow -= n
			c.mu.Unlock()
			return int(n), nil
		}
		if !flushed { // what the peer waits for may be held back
			flushed = true
			c.mu.Unlock()
			if err := s.Flush(); err != nil {
				return 0, err
			}
			c.mu.Lock()
			continue
		}
		if !s.blocked {
			s.blocked = true
			c.blocked = append(c.blocked, s)
		}
		if err := waitUntil(&s.writable, s.writeBy); err != nil {
			c.mu.Unlock()
			return 0, err
		}
	}
}

// writeWindow gives n bytes of window to the peer.
func (c *Conn) writeWindow(stream, n uint32) error {
	var payload [4]byte
	binary.BigEndian.PutUint32(payload[:], n)
	return c.writeControl(frameWindowUpdate, 0, stream, payload[:])
}
