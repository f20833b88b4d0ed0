package h2

import (
	"bytes"
	"sync"

	"golang.org/x/net/http2/hpack"
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
	henc    *hpack.Encoder
	hbuf    bytes.Buffer
	queue   []byte // whole frames
	writing bool
	loop    bool  // the writing is the loop's
	err     error // of a write: the connection is over
	// kick wakes the loop.
	kick chan struct{}
}

func (o *output) init() {
	o.room = sync.NewCond(&o.mu)
	o.henc = hpack.NewEncoder(&o.hbuf)
	o.kick = make(chan struct{}, 1)
}

// writeLocked writes whole frames, or leaves them to whoever is writing. It
// releases the lock meanwhile. Only frames that no later one depends on may wait
// for room: a header block's compression stands in its order.
func (c *Conn) writeLocked(frames []byte, mayWait bool) error {
	o := &c.out
	for o.writing && o.err == nil {
		if !mayWait || len(o.queue) == 0 || len(o.queue)+len(frames) <= maxQueued {
			o.append(frames)
			return nil
		}
		o.room.Wait()
	}
	if o.err != nil {
		return o.err
	}
	o.writing = true
	c.sendLocked(frames)
	if len(o.queue) > 0 && o.err == nil {
		// Our own work waits: those who keep coming are the loop's.
		o.loop = true
		o.wake()
		return nil
	}
	o.writing = false
	o.room.Broadcast()
	return o.err
}

func (o *output) append(frames []byte) {
	if o.queue == nil {
		o.queue = queuePool.Get().(*[queueBuffer]byte)[:0]
	}
	o.queue = append(o.queue, frames...)
}

func (o *output) wake() {
	select {
	case o.kick <- struct{}{}:
	default:
	}
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
	o := &c.out
	var header [headerLen]byte
	putFrameHeader(header[:], len(payload), kind, flags, stream)
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue)+len(payload) > maxQueued+maxControl {
		return connError(CodeEnhanceYourCalm, "the peer does not read its control frames")
	}
	o.append(header[:])
	o.append(payload)
	if !o.writing {
		o.wake()
	}
	return nil
}

// writeLoop writes what was left behind.
func (c *Conn) writeLoop() {
	o := &c.out
	for {
		select {
		case <-c.done:
			return
		case <-o.kick:
		}
		o.mu.Lock()
		if o.writing && !o.loop {
			o.mu.Unlock()
			continue // who writes takes it, or hands it over
		}
		o.writing, o.loop = true, false
		for len(o.queue) > 0 && o.err == nil {
			batch := o.queue
			o.queue = nil
			o.room.Broadcast()
			c.sendLocked(batch)
			if cap(batch) == queueBuffer {
				queuePool.Put((*[queueBuffer]byte)(batch[:queueBuffer]))
			}
		}
		o.writing = false
		o.room.Broadcast()
		err := o.err
		o.mu.Unlock()
		if err != nil {
			c.fail(err)
			return
		}
	}
}

// failOutput lets writers go: nothing is written any more.
func (c *Conn) failOutput(err error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.err == nil {
		c.out.err = err
	}
	c.out.room.Broadcast()
}

// writeHeadersLocked writes a header block, in one frame and continuations of the
// peer's size.
func (c *Conn) writeHeadersLocked(stream uint32, fields []Field, end bool) error {
	o := &c.out
	if o.err != nil {
		return o.err
	}
	o.hbuf.Reset()
	for _, f := range fields {
		if err := o.henc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value}); err != nil {
			return err
		}
	}
	limit := int(c.peerFrame.Load())
	block := o.hbuf.Bytes()
	out := make([]byte, 0, len(block)+headerLen)
	kind := byte(frameHeaders)
	for first := true; first || len(block) > 0; first = false {
		n := min(len(block), limit)
		flags := byte(0)
		if first && end {
			flags |= flagEndStream
		}
		if n == len(block) {
			flags |= flagEndHeaders
		}
		out = append(out, make([]byte, headerLen)...)
		putFrameHeader(out[len(out)-headerLen:], n, kind, flags, stream)
		out = append(out, block[:n]...)
		block, kind = block[n:], frameContinuation
	}
	return c.writeLocked(out, false)
}
