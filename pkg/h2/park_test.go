package h2

import (
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// What is next for a parked stream is called when there is something to read, when it
// is over, and when it is woken, also before its handler has returned. It is not reset
// meanwhile, but when what was next leaves it as it is.
func TestPark(t *testing.T) {
	for _, test := range []struct {
		name string
		wake func(p *peer, s *Stream)
		over bool
	}{
		{"data", func(p *peer, _ *Stream) { _ = p.WriteData(1, false, []byte("x")) }, false},
		{"end", func(p *peer, _ *Stream) { _ = p.WriteData(1, true, nil) }, false},
		{"reset", func(p *peer, _ *Stream) { _ = p.WriteRSTStream(1, http2.ErrCodeCancel) }, true},
		{"woken", func(_ *peer, s *Stream) { s.Wake() }, false},
		{"woken before", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			streams, calls := make(chan *Stream, 1), make(chan error, 1)
			p := toServer(t, Config{}, func(s *Stream) {
				_ = s.Respond(fields(":status", "200"), 0)
				if test.wake == nil {
					s.Wake()
				}
				s.Park(func() { calls <- s.Err() })
				streams <- s
			})
			p.headers(1, false, fields(":method", "CONNECT", ":authority", "a:80"))
			await[*http2.MetaHeadersFrame](p, 1)
			s := <-streams
			if test.wake != nil {
				// Nothing else is sent on it while it is parked.
				_ = p.WritePing(false, [8]byte{1})
				for acked := false; !acked; {
					f, err := p.ReadFrame()
					if err != nil {
						t.Fatal(err)
					}
					if f.Header().StreamID == 1 {
						t.Fatalf("a frame on a parked stream: %v", f)
					}
					_, acked = f.(*http2.PingFrame)
				}
				select {
				case <-calls:
					t.Fatal("called for nothing")
				default:
				}
				test.wake(p, s)
			}
			select {
			case err := <-calls:
				if (err != nil) != test.over {
					t.Errorf("the stream's error is %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("not called")
			}
			if !test.over {
				await[*http2.RSTStreamFrame](p, 1) // as with a handler
			}
		})
	}
}
