package codec

import "sync"

// Small buffers hold a head and a small body; large ones a bulky body, or a head
// up to the default limit.
const (
	smallBuffer = 16 << 10
	largeBuffer = 64 << 10
)

// Arrays, so that lending allocates nothing.
var (
	smallPool = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largePool = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// borrow lends a buffer of at least size.
func borrow(size int) []byte {
	switch {
	case size <= smallBuffer:
		return smallPool.Get().(*[smallBuffer]byte)[:]
	case size <= largeBuffer:
		return largePool.Get().(*[largeBuffer]byte)[:]
	}
	return make([]byte, size)
}

func giveBack(b []byte) {
	switch b = b[:cap(b)]; len(b) {
	case smallBuffer:
		smallPool.Put((*[smallBuffer]byte)(b))
	case largeBuffer:
		largePool.Put((*[largeBuffer]byte)(b))
	}
}
