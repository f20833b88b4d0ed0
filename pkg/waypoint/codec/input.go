package codec

import (
	"github.com/fairlead-mesh/fairlead/pkg/h1"
)

// input is what comes in on an HTTP/1 connection. While nothing is unread and no
// head is in use it holds no buffer.
type input struct {
	reader reader
	deadline
	head h1.Head
	body h1.Body

	buf    []byte // borrowed, or nil
	r, w   int    // of what is unread in buf
	pinned int    // the head's strings stand before this in buf
	heads  []byte // the buffer with the head, where it is another than buf
	bulky  bool   // the body fills buffers
	got    bool   // something came since reset
	data   []byte // of the body, decoded ahead
}

func (in *input) init(c Conn) {
	if p, ok := c.(*peeked); ok {
		var ahead []byte
		if ahead, c = p.take(); len(ahead) > 0 {
			in.buf = borrow(len(ahead))
			in.w = copy(in.buf, ahead)
		}
	}
	in.reader.init(c)
	in.set = c.SetReadDeadline
}

// release gives back what the last exchange held, and keeps what is unread.
func (in *input) release() {
	if in.heads != nil {
		giveBack(in.heads)
		in.heads = nil
	}
	in.pinned, in.data, in.bulky = 0, nil, false
	if in.r == in.w {
		in.drop()
	}
}

func (in *input) drop() {
	if in.buf != nil {
		giveBack(in.buf)
	}
	in.buf, in.r, in.w = nil, 0, 0
}

// close gives back everything.
func (in *input) close() {
	in.release()
	in.drop()
}

// fill reads more behind what is unread.
func (in *input) fill() error {
	for {
		var into []byte
		if in.buf != nil {
			into = in.buf[in.w:]
		}
		b, n, err := in.reader.read(into, smallBuffer)
		if err != nil {
			if in.early(err) {
				continue
			}
			return err
		}
		if in.buf == nil {
			in.buf = b
		}
		in.w += n
		in.got = true
		return nil
	}
}

// findHead waits for a head, which begins at in.r, and returns it. partial is
// called once, when a head has begun and more of it must be waited for.
func (in *input) findHead(limits h1.Limits, partial func() error) ([]byte, error) {
	in.head.Reset(limits)
	for {
		if in.r < in.w {
			n, err := in.head.Find(in.buf[in.r:in.w])
			if err != nil {
				return nil, err
			}
			if n > 0 {
				head := in.buf[in.r : in.r+n]
				in.r += n
				in.pinned = in.r
				return head, nil
			}
			if partial != nil {
				if err := partial(); err != nil {
					return nil, err
				}
				partial = nil
			}
			if in.w == len(in.buf) {
				in.makeRoom(limits.Head)
			}
		} else {
			in.release()
		}
		if err := in.fill(); err != nil {
			return nil, err
		}
	}
}

// makeRoom makes place behind a head that is not complete.
func (in *input) makeRoom(limit int) {
	buf := in.buf
	if in.r == 0 { // the head fills the buffer
		size := largeBuffer
		if len(buf) >= size {
			size = max(2*len(buf), limit+1)
		}
		buf = borrow(size)
	}
	in.w = copy(buf, in.buf[in.r:in.w])
	in.r = 0
	if &buf[0] != &in.buf[0] {
		giveBack(in.buf)
		in.buf = buf
	}
}

// decode takes a piece of the body from what is here; none means that more must
// be read, or that the body is done.
func (in *input) decode() ([]byte, error) {
	for in.r < in.w && !in.body.Done() {
		data, n, err := in.body.Next(in.buf[in.r:in.w])
		in.r += n
		if err != nil || len(data) > 0 {
			return data, err
		}
	}
	return nil, nil
}

// ready reports whether next would not wait.
func (in *input) ready() bool {
	if len(in.data) == 0 {
		var err error
		at := in.r
		if in.data, err = in.decode(); err != nil {
			in.r = at // next meets it again
			return true
		}
	}
	return len(in.data) > 0 || in.body.Done()
}

// next waits for a piece of the body; none means that it is done.
func (in *input) next() ([]byte, error) {
	if data := in.data; len(data) > 0 {
		in.data = nil
		return data, nil
	}
	for {
		data, err := in.decode()
		if err != nil || len(data) > 0 || in.body.Done() {
			return data, err
		}
		in.bodyRoom()
		before := in.w
		if err := in.fill(); err != nil {
			return nil, err
		}
		in.bulky = in.w == len(in.buf) || in.bulky && in.w-before > smallBuffer/2
	}
}

// bodyRoom makes place for more of a body, all of what is here having been taken.
func (in *input) bodyRoom() {
	const least = 4 << 10
	large := in.bulky || in.body.Left() > smallBuffer
	switch {
	case in.buf != nil && in.pinned == 0 && (!large || len(in.buf) >= largeBuffer):
		in.r, in.w = 0, 0
	case in.buf != nil && !large && len(in.buf)-in.pinned >= least:
		in.r, in.w = in.pinned, in.pinned
	case in.buf != nil && in.pinned > 0:
		in.heads, in.pinned = in.buf, 0
		in.buf, in.r, in.w = borrow(largeBuffer), 0, 0
	case in.buf != nil:
		in.drop()
		in.buf = borrow(largeBuffer)
	case large:
		in.buf = borrow(largeBuffer)
	}
}
