package h2

import "sync"

// Buffer sizes make a frame's header and payload fill TLS records of 16 KiB.
const (
	smallBuffer = 16 << 10
	largeBuffer = 64 << 10
)

// Arrays, so that lending allocates nothing.
var (
	smallPool = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largePool = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

func borrow(size int) []byte {
	if size == smallBuffer {
		return smallPool.Get().(*[smallBuffer]byte)[:]
	}
	return largePool.Get().(*[largeBuffer]byte)[:]
}

func giveBuffer(b []byte) {
	if b = b[:cap(b)]; len(b) == smallBuffer {
		smallPool.Put((*[smallBuffer]byte)(b))
	} else {
		largePool.Put((*[largeBuffer]byte)(b))
	}
}

// chunks is a queue of bytes in borrowed buffers.
type chunks struct {
	list [][]byte // each with its bytes; the capacity is the buffer's
	read int      // of the first
	len  int
}

func (c *chunks) append(b []byte) {
	c.len += len(b)
	for len(b) > 0 {
		last := len(c.list) - 1
		if last < 0 || len(c.list[last]) == cap(c.list[last]) {
			size := smallBuffer
			if len(b) > smallBuffer || last >= 0 {
				size = largeBuffer
			}
			c.list = append(c.list, borrow(size)[:0])
			last++
		}
		at := c.list[last]
		n := copy(at[len(at):cap(at)], b)
		c.list[last], b = at[:len(at)+n], b[n:]
	}
}

// first are bytes in one piece; none when there is nothing.
func (c *chunks) first() []byte {
	if c.len == 0 {
		return nil
	}
	return c.list[0][c.read:]
}

// took drops n bytes of the first piece.
func (c *chunks) took(n int) {
	c.len -= n
	if c.read += n; c.read == len(c.list[0]) {
		giveBuffer(c.list[0])
		n := copy(c.list, c.list[1:])
		c.list[n] = nil
		c.list, c.read = c.list[:n], 0
	}
	if c.len == 0 {
		c.drop(false)
	}
}

// drop forgets what is there. The first piece may be lent: then its buffer is left
// to whoever looks at it.
func (c *chunks) drop(lent bool) {
	for i, b := range c.list {
		if i > 0 || !lent {
			giveBuffer(b)
		}
	}
	clear(c.list)
	*c = chunks{list: c.list[:0]}
}
