package h2

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// seeds are conversations that reach most of the reader; answer says whether they
// are a server's.
func seeds(f *testing.F, answer bool) {
	head := get("x-a", "b")
	if answer {
		head = fields(":status", "200", "x-a", "b")
	}
	add := func(write func(w *http2.Framer)) {
		var b bytes.Buffer
		w := http2.NewFramer(&b, nil)
		w.AllowIllegalWrites = true
		_ = w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
		write(w)
		f.Add(b.Bytes())
	}
	headers := func(w *http2.Framer, list []Field, end bool) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(list...), EndHeaders: true, EndStream: end, PadLength: 3})
	}
	add(func(w *http2.Framer) { headers(w, head, true) })
	add(func(w *http2.Framer) {
		headers(w, head, false)
		_ = w.WriteDataPadded(1, false, []byte("body"), make([]byte, 5))
		_ = w.WriteWindowUpdate(1, 1000)
		headers(w, fields("trailer", "1"), true)
	})
	add(func(w *http2.Framer) {
		b := block(head...)
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:4], Priority: http2.PriorityParam{StreamDep: 3, Weight: 9}})
		_ = w.WriteContinuation(1, false, b[4:6])
		_ = w.WriteContinuation(1, true, b[6:])
		_ = w.WriteRSTStream(1, http2.ErrCodeCancel)
		_ = w.WriteData(1, true, []byte("x"))
	})
	add(func(w *http2.Framer) {
		_ = w.WritePing(false, [8]byte{})
		_ = w.WritePriority(5, http2.PriorityParam{StreamDep: 5})
		_ = w.WriteGoAway(0, http2.ErrCodeNo, []byte("bye"))
		headers(w, head, true)
	})
	f.Add([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 9, 4, 0, 0, 0, 1, 0})
}

// exchangeOver runs one end of a connection against a peer that says what it says
// and leaves. It must end.
func exchangeOver(t *testing.T, said []byte, run func(net.Conn)) {
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	go func() {
		_, _ = theirs.Write(said)
		theirs.Close()
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ours)
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("it hangs")
	}
}

func FuzzServerFrames(f *testing.F) {
	seeds(f, false)
	f.Fuzz(func(t *testing.T, frames []byte) {
		exchangeOver(t, append([]byte(Preface), frames...), func(nc net.Conn) {
			_ = Server(nc, Config{ExtendedConnect: true}, func(s *Stream) {
				if h, ok := requestHead(&decoder{fields: s.Fields()}, true); !ok {
					t.Errorf("a handler was called with %v, %v", s.Fields(), h)
				}
				_ = s.Respond(fields(":status", "200"), More)
				_, _ = io.Copy(s, s)
				_ = s.Finish(s.Trailers())
			}, nil)
		})
	})
}

func FuzzClientFrames(f *testing.F) {
	seeds(f, true)
	f.Fuzz(func(t *testing.T, frames []byte) {
		exchangeOver(t, frames, func(nc net.Conn) {
			c, err := Client(nc, Config{})
			if err != nil {
				return
			}
			defer c.Close()
			s, err := c.Open(get(), End)
			if err != nil {
				return
			}
			for {
				head, err := s.Head()
				if err != nil {
					return
				}
				if head[0].Value[0] != '1' {
					break
				}
			}
			_, _ = io.Copy(io.Discard, s)
		})
	})
}
