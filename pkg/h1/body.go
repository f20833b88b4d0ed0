package h1

import (
	"io"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// maxChunkLine bounds a chunk's line with its extensions, in bytes.
const maxChunkLine = 4 << 10

// Body decodes the bytes behind a head.
type Body struct {
	framing  Framing
	left     int64 // of the body or the chunk
	state    chunkState
	digits   int  // of a chunk's size
	line     int  // bytes of a chunk's line
	quoted   bool // within a quoted string of an extension
	limits   Limits
	trailers message.Fields
	section  []byte // of trailers, as far as it came
	head     *Head  // finds them
	done     bool
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkBlank
	chunkExtension
	chunkLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailers
)

// Reset makes b ready for the body that h describes.
func (b *Body) Reset(h *Head) {
	*b = Body{framing: h.Framing, left: h.Length, limits: h.limits, done: h.Framing == NoBody}
}

// SetRaw makes b pass all that follows.
func (b *Body) SetRaw() { *b = Body{framing: Raw} }

// Done reports whether the body has ended.
func (b *Body) Done() bool { return b.done }

// Trailers are the fields after the body. They stay valid.
func (b *Body) Trailers() message.Fields { return b.trailers }

// Left is how many bytes of the body, or of its chunk, are known to come; 0 when
// that is not known.
func (b *Body) Left() int64 {
	if b.framing == Length || b.framing == Chunked && b.state == chunkData {
		return b.left
	}
	return 0
}

// End takes the end of the connection: [io.ErrUnexpectedEOF] for a body that it cuts
// short.
func (b *Body) End() error {
	if b.framing == UntilClose || b.framing == Raw {
		b.done = true
	}
	if b.done {
		return nil
	}
	return io.ErrUnexpectedEOF
}

// Next takes n bytes of in, of which data, a part of in, are the body's. Without
// data it took all of in, or the body is done.
func (b *Body) Next(in []byte) (data []byte, n int, err error) {
	switch {
	case b.done:
		return nil, 0, nil
	case b.framing == Length:
		n = int(min(b.left, int64(len(in))))
		b.left -= int64(n)
		b.done = b.left == 0
		return in[:n], n, nil
	case b.framing == Chunked:
		return b.chunked(in)
	}
	return in, len(in), nil
}

func (b *Body) chunked(in []byte) (data []byte, n int, err error) {
	for n < len(in) {
		switch b.state {
		case chunkData:
			m := int(min(b.left, int64(len(in)-n)))
			if b.left -= int64(m); b.left == 0 {
				b.state = chunkDataCR
			}
			data = in[n : n+m]
			n += m
			// The end of a chunk that is here is taken with it.
			if b.left == 0 && len(in)-n >= 2 && in[n] == '\r' && in[n+1] == '\n' {
				n += 2
				b.startChunk()
			}
			return data, n, nil
		case chunkTrailers:
			m, err := b.trailer(in[n:])
			return nil, n + m, err
		}
		if err := b.control(in[n]); err != nil {
			return nil, n, err
		}
		n++
	}
	return nil, n, nil
}

func (b *Body) startChunk() {
	b.state, b.digits, b.line, b.quoted = chunkSize, 0, 0, false
}

// control takes a byte that is not data.
func (b *Body) control(c byte) error {
	if b.line++; b.line > maxChunkLine {
		return errChunkLine
	}
	switch b.state {
	case chunkSize:
		if d, ok := hex(c); ok {
			if b.digits++; b.digits > 15 {
				return errChunkSize
			}
			b.left = b.left<<4 | d
			return nil
		}
		if b.digits == 0 {
			return errChunk
		}
		return b.sizeEnd(c)
	case chunkBlank:
		return b.sizeEnd(c)
	case chunkExtension:
		switch {
		case c == '"':
			b.quoted = !b.quoted
		case c == '\r':
			if b.quoted {
				return errChunk
			}
			b.state = chunkLF
		case c < ' ' && c != '\t' || c == 0x7f:
			return errChunk
		}
		return nil
	case chunkLF:
		if c != '\n' {
			return errChunk
		}
		b.line = 0
		if b.state = chunkData; b.left == 0 {
			b.state = chunkTrailers
		}
		return nil
	case chunkDataCR:
		if c != '\r' {
			return errChunk
		}
		b.state = chunkDataLF
		return nil
	default: // chunkDataLF
		if c != '\n' {
			return errChunk
		}
		b.startChunk()
		return nil
	}
}

// sizeEnd takes what may follow a chunk's size: blanks, which some senders pad it
// with, before the end or an extension.
func (b *Body) sizeEnd(c byte) error {
	switch c {
	case '\r':
		b.state = chunkLF
	case ';':
		b.state = chunkExtension
	case ' ', '\t':
		b.state = chunkBlank
	default:
		return errChunk
	}
	return nil
}

func hex(c byte) (int64, bool) {
	switch {
	case '0' <= c && c <= '9':
		return int64(c - '0'), true
	case 'a' <= c && c <= 'f':
		return int64(c-'a') + 10, true
	case 'A' <= c && c <= 'F':
		return int64(c-'A') + 10, true
	}
	return 0, false
}

// trailer takes what of in belongs to the trailer section. It is kept until its
// end: a head's lines without the first.
func (b *Body) trailer(in []byte) (int, error) {
	if len(b.section) == 0 && len(in) >= 2 && in[0] == '\r' && in[1] == '\n' {
		b.done = true
		return 2, nil
	}
	if b.head == nil {
		b.head = &Head{}
		b.head.Reset(b.limits)
		// The place of the first line is taken by the last chunk's.
		b.section = append(b.section, "0\r\n"...)
		b.head.limits.Head += len(b.section)
	}
	before := len(b.section)
	b.section = append(b.section, in[:min(len(in), b.head.limits.Head+2-before)]...)
	n, err := b.head.Find(b.section)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return len(b.section) - before, nil
	}
	if err := b.head.fields(b.section, &b.trailers); err != nil {
		return 0, err
	}
	b.forbidden()
	b.done = true
	return n - before, nil
}

// forbidden takes away what must not be in trailers, because it frames or routes
// the message (RFC 9110 section 6.5.1).
func (b *Body) forbidden() {
	for _, name := range []string{"content-length", "te", "trailer", "expect", "authorization", "set-cookie", "cookie"} {
		b.trailers.Del(name)
	}
}
