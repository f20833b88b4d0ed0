package h2

import (
	"context"
	"errors"
	"io"
	"os"
)

// maxHeads bounds the informational responses that wait to be taken.
const maxHeads = 16

// Fields are the request's, on a server.
func (s *Stream) Fields() []Field {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fields
}

// HasBody is false for a message that ended with its head; on a client it is known
// once Head has returned the response's.
func (s *Stream) HasBody() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.headEnd
}

// Trailers are the fields after the body; they are here after [io.EOF].
func (s *Stream) Trailers() []Field {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trailers
}

// Head waits for the next head of the response, on a client: informational ones
// (1xx), then the response's, and no more.
func (s *Stream) Head() ([]Field, error) { return s.head(context.Background()) }

func (s *Stream) head(ctx context.Context) ([]Field, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.heads) == 0 {
		if s.err != nil {
			return nil, s.err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := waitUntil(&s.readable, s.readBy); err != nil {
			return nil, err
		}
	}
	fields := s.heads[0]
	s.heads = s.heads[1:]
	return fields, nil
}

// Response waits for the response's head, on a client, and passes over
// informational ones.
func (s *Stream) Response(ctx context.Context) ([]Field, error) {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		s.readable.Broadcast()
		s.mu.Unlock()
	})
	defer stop()
	for {
		fields, err := s.head(ctx)
		if err != nil || fields[0].Value[0] != '1' {
			return fields, err
		}
	}
}

// more takes the fields of a HEADERS frame after a request's first: a response's
// head, or trailers.
func (s *Stream) more(d *decoder, end bool) Code {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.eof:
		return CodeStreamClosed
	case d.tooLarge:
		return CodeEnhanceYourCalm
	case s.c.client && !s.gotFinal:
		return s.responseLocked(d, end)
	case !end || !validTrailers(d) || s.left > 0:
		return CodeProtocol
	}
	s.trailers = append([]Field(nil), d.fields...)
	return CodeNo
}

func (s *Stream) responseLocked(d *decoder, end bool) Code {
	h, ok := responseHead(d)
	if !ok || end && h.informational() {
		return CodeProtocol
	}
	if len(s.heads) >= maxHeads {
		return CodeEnhanceYourCalm
	}
	if !h.informational() {
		s.gotFinal, s.headEnd = true, end
		switch {
		case s.method == "CONNECT" && h.status < 300:
		case s.method == "HEAD" || h.bodiless():
			s.left = 0
		default:
			if s.left = h.length; end && s.left > 0 {
				return CodeProtocol
			}
		}
	}
	s.heads = append(s.heads, withRoom(d.fields))
	s.readable.Broadcast()
	return CodeNo
}

// admit takes a DATA frame of n bytes from the window that the peer was given, and
// its payload from the content-length.
func (s *Stream) admit(n, payload int64, end bool) Code {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recvWindow -= n; s.recvWindow < 0 {
		return CodeFlowControl
	}
	if s.eof {
		return CodeStreamClosed
	}
	if s.c.client && !s.gotFinal {
		return CodeProtocol
	}
	if s.left >= 0 {
		if s.left -= payload; s.left < 0 || end && s.left > 0 {
			return CodeProtocol // section 8.1.1
		}
	}
	return CodeNo
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

// dropLocked forgets what is pending.
func (s *Stream) dropLocked() {
	s.c.buffered.Add(-int64(s.pending.len))
	s.pending.drop(s.viewed > 0)
	s.viewed = 0
	s.giveBackLocked()
}

// giveBackLocked: the connection's window may have waited for what is gone now.
func (s *Stream) giveBackLocked() {
	if err := s.c.giveBack(); err != nil {
		go s.c.fail(err)
	}
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
	if err := s.c.writeWindow(s.id, uint32(s.owed)); err != nil {
		go s.c.fail(err)
	}
	s.owed = 0
}

// endOfInput: the peer sends nothing more.
func (s *Stream) endOfInput() {
	s.mu.Lock()
	s.eof = true
	if !s.flushing {
		s.finishInputLocked()
	}
	s.readableLocked()
	done := s.sentEnd
	s.mu.Unlock()
	if done {
		s.c.remove(s, true)
	}
}

// Next waits for bytes and returns them, [io.EOF] after the last. They are valid
// until the next call of Next, Read or Close.
func (s *Stream) Next() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.nextLocked()
	s.viewed = len(b)
	return b, err
}

func (s *Stream) nextLocked() ([]byte, error) {
	s.returnLocked()
	for s.pending.len == 0 {
		if err := s.overLocked(); err != nil {
			return nil, err
		}
		if err := waitUntil(&s.readable, s.readBy); err != nil {
			return nil, err
		}
	}
	return s.pending.first(), nil
}

// overLocked is how input ended, or nil.
func (s *Stream) overLocked() error {
	if s.eof {
		return io.EOF
	}
	return s.err
}

// returnLocked ends the view of Next's bytes, and gives their window back.
func (s *Stream) returnLocked() {
	if s.viewed > 0 {
		s.tookLocked(s.viewed)
		s.viewed = 0
	}
}

func (s *Stream) tookLocked(n int) {
	s.pending.took(n)
	s.c.buffered.Add(-int64(n))
	s.creditLocked(int64(n))
	s.giveBackLocked()
}

// Read implements [io.Reader] for a stream that is not relayed.
func (s *Stream) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first, err := s.nextLocked()
	if err != nil {
		return 0, err
	}
	n := copy(b, first)
	s.tookLocked(n)
	return n, nil
}

// Wait implements [Waiter], for a connection within the stream.
func (s *Stream) Wait() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.nextLocked(); errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// Buffered is how many bytes are there that neither Next nor Read has returned.
func (s *Stream) Buffered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending.len - s.viewed
}

// Ready reports whether Next would not wait.
func (s *Stream) Ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending.len > s.viewed || s.eof || s.err != nil
}
