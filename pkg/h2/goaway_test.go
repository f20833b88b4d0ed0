package h2

import (
	"io"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/test/loopback"
)

// Which streams a client may send again: those that were refused, and those after
// the last that a GOAWAY names.
func TestRetryable(t *testing.T) {
	c, p := toClient(t, Config{})
	streams := []*Stream{mustOpen(t, c, get(), End), mustOpen(t, c, get(), End), mustOpen(t, c, get(), End), mustOpen(t, c, get(), End)}
	_ = p.WriteRSTStream(1, http2.ErrCodeRefusedStream)
	_ = p.WriteRSTStream(3, http2.ErrCodeCancel)
	_ = p.WriteGoAway(5, http2.ErrCodeNo, nil)
	for i, want := range []bool{true, false, false, true} {
		if i == 2 {
			continue
		}
		if _, err := streams[i].Head(); err == nil || Retryable(err) != want {
			t.Errorf("stream %d: %v, retryable %v", streams[i].ID(), err, Retryable(err))
		}
	}
	if _, err := c.Open(get(), End); !Retryable(err) {
		t.Errorf("a stream after GOAWAY: %v", err)
	}
	p.headers(5, true, fields(":status", "200"))
	mustHead(t, streams[2], "200")
	select {
	case <-c.Done():
	case <-time.After(20 * time.Second):
		t.Error("a drained connection stays")
	}
}

// A server that goes away serves what was on its way, and says so twice.
func TestServerGoesAway(t *testing.T) {
	conns := make(chan *Conn, 1)
	a, b := loopback.Pair(t)
	_ = a.SetDeadline(time.Now().Add(30 * time.Second))
	hold := make(chan struct{})
	go func() {
		_ = Server(b, Config{}, func(s *Stream) {
			<-hold
			_ = s.Respond(fields(":status", "200"), End)
		}, func(c *Conn) { conns <- c })
	}()
	_, _ = io.WriteString(a, Preface)
	p := &peer{Framer: http2.NewFramer(a, a), t: t}
	_ = p.WriteSettings()
	p.headers(1, true, get())
	await[*http2.SettingsFrame](p, 0)
	(<-conns).GoAway()
	if f := await[*http2.GoAwayFrame](p, 0); f.LastStreamID != lastStream || f.ErrCode != http2.ErrCodeNo {
		t.Errorf("first %v", f)
	}
	ping := await[*http2.PingFrame](p, 0)
	p.headers(3, true, get()) // sent before the GOAWAY was read
	_ = p.WritePing(true, ping.Data)
	if f := await[*http2.GoAwayFrame](p, 0); f.LastStreamID != 3 || f.ErrCode != http2.ErrCodeNo {
		t.Errorf("second %v", f)
	}
	p.headers(5, true, get())
	if f := await[*http2.RSTStreamFrame](p, 5); f.ErrCode != http2.ErrCodeRefusedStream {
		t.Errorf("a later stream: %v", f.ErrCode)
	}
	close(hold)
	answered := map[uint32]bool{}
	for {
		f, err := p.ReadFrame()
		if err != nil {
			break // the end
		}
		if h, ok := f.(*http2.HeadersFrame); ok {
			answered[h.StreamID] = true
		}
	}
	if !answered[1] || !answered[3] {
		t.Errorf("answered: %v", answered)
	}
}
