package h2

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// Stream is one request and its response. One goroutine may write and another
// read or relay.
type Stream struct {
	// Constant.
	c  *Conn
	id uint32
	// ready closes when the fields are here, or the stream is over. It is nil on a
	// server.
	ready chan struct{}

	answered atomic.Bool // the response was sent

	// Guarded by the Conn's mu.
	sendWindow int64

	// mu guards below.
	mu         sync.Mutex
	readable   sync.Cond // on mu
	fields     []Field
	gotFields  bool
	pending    chunks  // received and not passed on
	recvWindow int64   // what the peer may still send
	owed       int64   // passed on and not given back
	eof        bool    // no more input will come
	err        error   // the stream is over
	sink       *socket // where input goes; nil: to Read
	flushing   bool    // a goroutine writes pending to sink
	isOver     bool    // nothing more will come: the end of input has been passed on, or the stream failed
	sentEnd    bool
}

func newStream(c *Conn, id uint32) *Stream {
	s := &Stream{c: c, id: id, recvWindow: int64(c.config.StreamWindow)}
	s.readable.L = &s.mu
	if c.client {
		s.ready = make(chan struct{})
	}
	return s
}

// Open begins a stream with a request's fields. The connection must be a client's.
func (c *Conn) Open(fields []Field) (*Stream, error) {
	// The writer's lock is held from the number's choice to the frame, since
	// streams must begin in order (section 5.1.1).
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.mu.Lock()
	if c.err != nil || c.goAway || len(c.streams) >= int(c.peerStreams) || c.nextID > maxWindow-2 {
		err := errors.Join(ErrNoStream, c.err)
		c.mu.Unlock()
		return nil, err
	}
	s := newStream(c, c.nextID)
	c.nextID += 2
	s.sendWindow = c.peerStream
	c.streams[s.id] = s
	c.mu.Unlock()
	if err := c.writeHeadersLocked(s.id, fields, false); err != nil {
		go c.fail(err)
		return nil, err
	}
	return s, nil
}

// ErrNoStream: the connection takes no new streams; another one is needed.
var ErrNoStream = errors.New("no stream to be had on this connection")

// Fields are the request's, on a server.
func (s *Stream) Fields() []Field {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fields
}

// Response waits for the response's fields, on a client.
func (s *Stream) Response(ctx context.Context) ([]Field, error) {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.gotFields {
		return nil, s.err
	}
	return s.fields, nil
}

// Respond sends the response's fields; end says that nothing follows.
func (s *Stream) Respond(fields []Field, end bool) error {
	s.answered.Store(true)
	s.c.out.mu.Lock()
	err := s.c.writeHeadersLocked(s.id, fields, end)
	s.c.out.mu.Unlock()
	if err != nil {
		s.c.fail(err)
		return err
	}
	if end {
		s.ended()
	}
	return nil
}

// response takes the peer's fields; a second list is trailers.
func (s *Stream) response(fields []Field, end bool) {
	s.mu.Lock()
	if !s.gotFields && s.err == nil && !informational(fields) {
		s.fields, s.gotFields = fields, true
		close(s.ready)
	}
	s.mu.Unlock()
	if end {
		s.endOfInput()
	}
}

func informational(fields []Field) bool {
	return len(fields) > 0 && fields[0].Name == ":status" && len(fields[0].Value) == 3 && fields[0].Value[0] == '1'
}

// Err is why the stream is over, or nil.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// admit takes n bytes from the window that the peer was given.
func (s *Stream) admit(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recvWindow -= n
	return s.recvWindow >= 0
}

// deliver passes b on: to the sink if it takes it at once, else into memory,
// which the window bounds. It never blocks.
func (s *Stream) deliver(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.eof {
		s.creditLocked(int64(len(b)))
		return
	}
	if s.sink != nil && s.pending.len == 0 && !s.flushing {
		n, err := s.sink.writeNow(b)
		s.creditLocked(int64(n))
		if err != nil {
			go s.Reset(CodeConnect)
			return
		}
		b = b[n:]
	}
	if len(b) == 0 {
		return
	}
	s.pending.append(b)
	s.c.buffered.Add(int64(len(b)))
	s.passOnLocked()
}

// passOnLocked sees to it that someone takes what is pending.
func (s *Stream) passOnLocked() {
	if s.sink == nil {
		s.readable.Broadcast()
		return
	}
	if !s.flushing && s.pending.len > 0 {
		s.flushing = true
		go s.flush()
	}
}

// flush writes pending to the sink until there is nothing left.
func (s *Stream) flush() {
	for {
		s.mu.Lock()
		if s.pending.len == 0 || s.err != nil {
			s.flushing = false
			s.dropLocked()
			s.finishInputLocked()
			s.mu.Unlock()
			return
		}
		batch := s.pending
		s.pending = chunks{}
		s.mu.Unlock()
		if err := s.flushBatch(&batch); err != nil {
			s.mu.Lock()
			s.flushing = false
			s.dropLocked()
			s.mu.Unlock()
			s.Reset(CodeConnect)
			return
		}
	}
}

func (s *Stream) flushBatch(batch *chunks) error {
	defer func() {
		s.c.buffered.Add(-int64(batch.len))
		batch.drop()
	}()
	for batch.len > 0 {
		b := batch.first()
		n, err := s.sink.write(b)
		s.c.buffered.Add(-int64(len(b)))
		batch.took(len(b))
		s.credit(int64(n))
		if err != nil {
			return err
		}
		if err := s.c.giveBack(); err != nil {
			s.c.fail(err)
		}
	}
	return nil
}

// dropLocked forgets what is pending.
func (s *Stream) dropLocked() {
	s.c.buffered.Add(-int64(s.pending.len))
	s.pending.drop()
}

// credit gives n bytes of window back to the peer, in batches.
func (s *Stream) credit(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creditLocked(n)
}

func (s *Stream) creditLocked(n int64) {
	if s.owed += n; s.owed < int64(s.c.config.StreamWindow)/4 || s.eof || s.err != nil {
		return
	}
	s.recvWindow += s.owed
	increment := uint32(s.owed)
	s.owed = 0
	if err := s.c.writeControl(frameWindowUpdate, 0, s.id, binary.BigEndian.AppendUint32(nil, increment)); err != nil {
		go s.c.fail(err)
	}
}

// endOfInput: the peer sends nothing more.
func (s *Stream) endOfInput() {
	s.mu.Lock()
	s.eof = true
	if !s.gotFields && s.c.client {
		s.mu.Unlock()
		s.Reset(CodeProtocol)
		return
	}
	if !s.flushing {
		s.finishInputLocked()
	}
	s.readable.Broadcast()
	done := s.sentEnd
	s.mu.Unlock()
	if done {
		s.c.remove(s)
	}
}

// finishInputLocked passes the end of input on, once all before it has been.
func (s *Stream) finishInputLocked() {
	if !s.eof || s.sink == nil || s.isOver || s.pending.len > 0 {
		return
	}
	if !s.sink.pumped { // else the socket is closed right away
		s.sink.closeWrite()
	}
	s.isOver = true
	s.sink.overLocked(nil)
}

// end ends the stream with an error.
func (s *Stream) end(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	s.dropLocked()
	if !s.gotFields && s.ready != nil {
		close(s.ready)
	}
	s.readable.Broadcast()
	s.isOver = true
	if s.sink != nil {
		s.sink.interrupt()
		s.sink.overLocked(err)
	}
	s.mu.Unlock()
}

// Reset ends the stream abruptly.
func (s *Stream) Reset(code Code) {
	s.c.mu.Lock()
	_, live := s.c.streams[s.id]
	s.c.mu.Unlock()
	if live {
		if err := s.c.writeControl(frameRSTStream, 0, s.id, binary.BigEndian.AppendUint32(nil, uint32(code))); err != nil {
			s.c.fail(err)
		}
		s.c.remove(s)
		s.c.wakeWriters()
	}
	s.end(&StreamError{Code: code})
}

func (c *Conn) wakeWriters() {
	c.mu.Lock()
	c.windowChanged.Broadcast()
	c.mu.Unlock()
}

// ended notes that we sent the end; a stream whose both ends ended is gone.
func (s *Stream) ended() {
	s.mu.Lock()
	s.sentEnd = true
	done := s.eof
	s.mu.Unlock()
	if done {
		s.c.remove(s)
	}
}

// Read implements [io.Reader] for a stream that is not relayed.
func (s *Stream) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.pending.len == 0 {
		switch {
		case s.err != nil:
			return 0, s.err
		case s.eof:
			return 0, io.EOF
		}
		s.readable.Wait()
	}
	n := s.pending.copyTo(b)
	s.c.buffered.Add(-int64(n))
	s.creditLocked(int64(n))
	return n, nil
}

// Write implements [io.Writer].
func (s *Stream) Write(b []byte) (int, error) {
	frame := borrow(largeBuffer)
	defer giveBuffer(frame)
	written := 0
	for len(b) > 0 {
		n := copy(frame[headerLen:], b)
		if err := s.writeFrames(frame[:headerLen+n], false); err != nil {
			return written, err
		}
		written, b = written+n, b[n:]
	}
	return written, nil
}

// CloseWrite says that nothing more is sent.
func (s *Stream) CloseWrite() error {
	frame := make([]byte, headerLen)
	return s.writeFrames(frame, true)
}

// writeFrames sends the payload that stands in b after room for a frame's
// header, as windows allow. A further frame's header is written over the end of
// the payload before it.
func (s *Stream) writeFrames(b []byte, end bool) error {
	payload := len(b) - headerLen
	for first := true; first || payload > 0; first = false {
		n := 0
		if payload > 0 {
			var err error
			if n, err = s.takeWindow(payload); err != nil {
				return err
			}
		}
		flags := byte(0)
		if end && n == payload {
			flags = flagEndStream
		}
		putFrameHeader(b, n, frameData, flags, s.id)
		s.c.out.mu.Lock()
		err := s.c.writeLocked(b[:headerLen+n], true)
		s.c.out.mu.Unlock()
		if err != nil {
			s.c.fail(err)
			return err
		}
		b, payload = b[n:], payload-n
	}
	if end {
		s.ended()
	}
	return nil
}

// takeWindow waits for window and takes up to want of it.
func (s *Stream) takeWindow(want int) (int, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.err != nil {
			return 0, c.err
		}
		if c.streams[s.id] != s {
			if err := s.Err(); err != nil {
				return 0, err
			}
			return 0, &StreamError{Code: CodeStreamClosed}
		}
		if n := min(int64(want), c.sendWindow, s.sendWindow, int64(c.peerFrame.Load())); n > 0 && c.settingsSeen {
			c.sendWindow -= n
			s.sendWindow -= n
			return int(n), nil
		}
		c.windowChanged.Wait()
	}
}
