package streaminfo

import "sync/atomic"

// Traffic is what a connection has carried so far. Anyone may read it at any time.
type Traffic struct {
	Sent     atomic.Uint64 // to the client
	Received atomic.Uint64
}

// Messages counts the messages of one direction of a gRPC exchange as their bytes
// pass: each is five bytes of head, the last four of which are its length, and its
// body. One goroutine feeds it; anyone may ask for their number meanwhile.
type Messages struct {
	count  uint64 // atomic: an Info is copied, which it would not be with the type
	head   uint8  // bytes of a head that have passed
	length uint32 // read so far of a head, or left of a body
}

// Count is how many have begun.
func (m *Messages) Count() uint64 { return atomic.LoadUint64(&m.count) }

// messageHead is the size of what is before each message.
const messageHead = 5

// Feed takes bytes as they pass.
func (m *Messages) Feed(b []byte) {
	for len(b) > 0 {
		if m.head == messageHead {
			n := min(uint32(len(b)), m.length) //nolint:gosec // a buffer's size
			m.length -= n
			b = b[n:]
			if m.length == 0 {
				m.head = 0
			}
			continue
		}
		if m.head == 0 {
			atomic.AddUint64(&m.count, 1)
			m.length = 0
		} else {
			m.length = m.length<<8 | uint32(b[0])
		}
		m.head++
		b = b[1:]
		if m.head == messageHead && m.length == 0 {
			m.head = 0
		}
	}
}
