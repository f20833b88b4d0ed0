package h2

// parking is how a stream waits for input without its handler.
type parking struct {
	next   func() // what goes on with the handler's work, or nil
	parked bool   // next is called when there is something to do
	woken  bool   // before
}

// Park lets the handler return though the stream is not over: next is called in its
// place, in a goroutine of its own, when there is something to read, the stream is
// over or Wake was called. It may park again. The handler returns right away. The
// result is always true.
func (s *Stream) Park(next func()) bool {
	s.mu.Lock()
	s.parking.next = next
	s.mu.Unlock()
	return true
}

// Wake ends the wait of a parked stream, or the next that there is.
func (s *Stream) Wake() {
	s.mu.Lock()
	s.parking.woken = true
	s.goOnLocked()
	s.mu.Unlock()
}

// parks reports whether a handler that returned has parked the stream.
func (s *Stream) parks() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parking.next == nil {
		return false
	}
	s.parking.parked = true
	if s.parking.woken || s.pending.len > 0 || s.overLocked() != nil {
		s.goOnLocked()
	}
	return true
}

// goOnLocked calls what a parked stream has next.
func (s *Stream) goOnLocked() {
	if !s.parking.parked {
		return
	}
	next := s.parking.next
	s.parking = parking{}
	go func() {
		next()
		s.c.handled(s)
	}()
}

// readableLocked tells who waits that there is something to read, or that nothing more
// comes.
func (s *Stream) readableLocked() {
	s.readable.Broadcast()
	s.goOnLocked()
}
