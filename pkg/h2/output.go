package h2

import (
	"runtime"
	"sync"
)

const (
	// maxQueued is what writers may leave behind for the one who is writing, in
	// bytes; further ones wait.
	maxQueued = 256 << 10
	// maxControl bounds the control frames that wait to be written, in bytes,
	// beyond maxQueued: a peer that makes us answer and does not read.
	maxControl = 256 << 10
)

// queueBuffer has room for a frame of a writer's more, so that it seldom grows.
const queueBuffer = maxQueued + largeBuffer

var queuePool = sync.Pool{New: func() any { return new([queueBuffer]byte) }}

// output orders the frames of a connection's writers. Who comes while another
// writes leaves its frames behind, and they go out together.
type output struct {
	mu      sync.Mutex
	room    *sync.Cond // on mu: the queue was taken, or nobody writes
	enc     encoder
	queue   []byte // whole frames
	writing bool
	looping bool  // a writeLoop was started, and has not come to write
	err     error // of a write: the connection is over
}

func (o *output) init() {
	o.room = sync.NewCond(&o.mu)
	o.enc.init()
}

// grow makes room for n bytes more in the queue.
func (o *output) grow(n int) {
	need := len(o.queue) + n
	if need <= cap(o.queue) {
		return
	}
	var larger []byte
	switch {
	case need <= smallBuffer:
		larger = borrow(smallBuffer)
	case need <= largeBuffer:
		larger = borrow(largeBuffer)
	case need <= queueBuffer:
		larger = queuePool.Get().(*[queueBuffer]byte)[:]
	default:
		larger = make([]byte, 2*need)
	}
	larger = larger[:copy(larger, o.queue)]
	giveQueue(o.queue)
	o.queue = larger
}

func giveQueue(b []byte) {
	switch cap(b) {
	case smallBuffer, largeBuffer:
		giveBuffer(b)
	case queueBuffer:
		queuePool.Put((*[queueBuffer]byte)(b[:queueBuffer]))
	}
}

func (o *output) append(b []byte) {
	o.grow(len(b))
	o.queue = append(o.queue, b...)
}

// frame appends one frame.
func (o *output) frame(kind, flags byte, stream uint32, payload []byte) {
	o.grow(headerLen + len(payload))
	o.queue = appendFrameHeader(o.queue, len(payload), kind, flags, stream)
	o.queue = append(o.queue, payload...)
}

// head appends a header block, in one frame and continuations of the peer's size.
func (o *output) head(stream uint32, fields []Field, end bool, limit int) {
	size := headerLen
	for i := range fields {
		size += fieldSize(fields[i])
	}
	o.grow(size)
	at := len(o.queue)
	flags := byte(flagEndHeaders)
	if end {
		flags |= flagEndStream
	}
	o.queue = appendFrameHeader(o.queue, 0, frameHeaders, flags, stream)
	o.queue = o.enc.append(o.queue, fields)
	n := len(o.queue) - at - headerLen
	if n <= limit {
		putFrameHeader(o.queue[at:], n, frameHeaders, flags, stream)
		return
	}
	block := append([]byte(nil), o.queue[at+headerLen:]...)
	o.queue = o.queue[:at]
	for kind := byte(frameHeaders); len(block) > 0; kind = frameContinuation {
		n := min(len(block), limit)
		part := flags &^ flagEndHeaders
		if n == len(block) {
			part |= flagEndHeaders
		}
		o.frame(kind, part, stream, block[:n])
		block, flags = block[n:], flags&^flagEndStream
	}
}

// waitRoomLocked waits until the queue has room for a writer's frames.
func (c *Conn) waitRoomLocked() error {
	o := &c.out
	for len(o.queue) > maxQueued && o.err == nil {
		c.wakeLocked()
		o.room.Wait()
	}
	return o.err
}

// flushLocked sees to it that the queue is written. While other streams are open,
// their frames are waited for until who can run has run; else it is written here.
func (c *Conn) flushLocked(mode Mode) error {
	o := &c.out
	switch {
	case o.err != nil || len(o.queue) == 0:
		return o.err
	case len(o.queue) >= largeBuffer:
	case mode&More != 0:
		return nil
	case c.live.Load() > 1:
		c.wakeLocked()
		return nil
	}
	if o.writing {
		return nil // who writes takes it
	}
	o.writing = true
	c.sendQueueLocked()
	c.wroteLocked()
	return o.err
}

// writeLocked writes whole frames, or leaves them to whoever is writing. It
// releases the lock meanwhile. What was left behind goes first.
func (c *Conn) writeLocked(frames []byte) error {
	o := &c.out
	for o.writing && o.err == nil {
		if len(o.queue) == 0 || len(o.queue)+len(frames) <= maxQueued {
			o.append(frames)
			return nil
		}
		o.room.Wait()
	}
	if o.err != nil {
		return o.err
	}
	o.writing = true
	switch {
	case len(o.queue) == 0:
		c.sendLocked(frames)
	case len(frames) < smallBuffer:
		o.append(frames)
		c.sendQueueLocked()
	default:
		c.sendQueueLocked()
		if o.err == nil {
			c.sendLocked(frames)
		}
	}
	c.wroteLocked()
	return o.err
}

// wroteLocked ends a turn of writing: what came meanwhile is the loop's, since the
// writer's own work waits.
func (c *Conn) wroteLocked() {
	o := &c.out
	o.writing = false
	if len(o.queue) > 0 && o.err == nil {
		c.wakeLocked()
	}
	o.room.Broadcast()
}

func (c *Conn) sendQueueLocked() {
	o := &c.out
	batch := o.queue
	o.queue = nil
	o.room.Broadcast()
	c.sendLocked(batch)
	giveQueue(batch)
}

// sendLocked writes without the lock.
func (c *Conn) sendLocked(frames []byte) {
	c.out.mu.Unlock()
	_, err := c.nc.Write(frames)
	c.out.mu.Lock()
	if err != nil && c.out.err == nil {
		c.out.err = err
	}
}

// writeControl queues a small frame. It never blocks: the reader calls it, and a
// reader that waits for the writer could wait for a peer that does the same.
func (c *Conn) writeControl(kind, flags byte, stream uint32, payload []byte) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.writeControlLocked(kind, flags, stream, payload)
}

func (c *Conn) writeControlLocked(kind, flags byte, stream uint32, payload []byte) error {
	o := &c.out
	if o.err != nil {
		return o.err
	}
	if len(o.queue)+len(payload) > maxQueued+maxControl {
		return connError(CodeEnhanceYourCalm, "the peer does not read its control frames")
	}
	o.frame(kind, flags, stream, payload)
	c.wakeLocked()
	return nil
}

// wakeLocked starts a writeLoop unless there is one, or somebody writes and will
// take what there is.
func (c *Conn) wakeLocked() {
	if o := &c.out; !o.writing && !o.looping {
		o.looping = true
		go c.writeLoop()
	}
}

// writeLoop writes what was left behind.
func (c *Conn) writeLoop() {
	// Who can run may have frames as well: one write takes them all.
	runtime.Gosched()
	o := &c.out
	o.mu.Lock()
	o.looping = false
	if !o.writing {
		o.writing = true
		for len(o.queue) > 0 && o.err == nil {
			c.sendQueueLocked()
		}
		o.writing = false
		o.room.Broadcast()
	}
	err := o.err
	o.mu.Unlock()
	if err != nil {
		c.fail(err)
	}
}

// failOutput lets writers go: nothing is written any more. last goes out with what
// was left behind, if the connection takes it.
func (c *Conn) failOutput(err error, last []byte) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.writing && o.err == nil {
		o.room.Wait() // the connection's deadline bounds it
	}
	if o.err == nil && last != nil {
		o.append(last)
		o.writing = true
		c.sendQueueLocked()
		o.writing = false
	}
	if o.err == nil {
		o.err = err
	}
	o.room.Broadcast()
}
