package h2

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/test/loopback"
)

func mustOpen(t testing.TB, c *Conn, list []Field, mode Mode) *Stream {
	t.Helper()
	s, err := c.Open(list, mode)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SetDeadline(time.Now().Add(30 * time.Second))
	return s
}

func mustHead(t testing.TB, s *Stream, status string) []Field {
	t.Helper()
	list, err := s.Head()
	if err != nil || list[0].Value != status {
		t.Fatalf("head %v, %v; want %s", list, err, status)
	}
	return list
}

// An exchange as gRPC has it: informational heads, bodies and trailers both ways.
func TestExchange(t *testing.T) {
	c := tunnel(t, Config{}, func(s *Stream) {
		if !s.HasBody() {
			t.Error("a request with a body has none")
		}
		_ = s.Respond(fields(":status", "100"), 0)
		_ = s.Respond(fields(":status", "103", "link", "</a>"), 0)
		body, err := io.ReadAll(s)
		if string(body) != "question" || err != nil || !slices.Equal(s.Trailers(), fields("x-sum", "1")) {
			t.Errorf("body %q, %v, trailers %v", body, err, s.Trailers())
		}
		_ = s.Respond(fields(":status", "200", "content-length", "6"), More)
		_ = s.Send([]byte("ans"), More)
		_ = s.Send([]byte("wer"), 0)
		_ = s.Finish(fields("grpc-status", "0"))
	})
	s := mustOpen(t, c, get(), More)
	_ = s.Send([]byte("question"), 0)
	mustHead(t, s, "100")
	mustHead(t, s, "103")
	_ = s.Finish(fields("x-sum", "1"))
	mustHead(t, s, "200")
	if body, err := io.ReadAll(s); string(body) != "answer" || err != nil || !s.HasBody() {
		t.Errorf("body %q, %v", body, err)
	}
	if !slices.Equal(s.Trailers(), fields("grpc-status", "0")) {
		t.Errorf("trailers %v", s.Trailers())
	}
	if open, _ := c.Load(); open != 0 {
		t.Errorf("%d streams are left", open)
	}
	if err := s.Send(nil, End); err == nil {
		t.Error("something was sent after the end")
	}
}

// A response without a body, and one of only trailers' worth, say so.
func TestHasBody(t *testing.T) {
	c := tunnel(t, Config{}, func(s *Stream) {
		if s.HasBody() {
			t.Error("a request without a body has one")
		}
		_ = s.Respond(fields(":status", "204"), End)
	})
	s := mustOpen(t, c, get(), End)
	mustHead(t, s, "204")
	if _, err := s.Next(); s.HasBody() || !s.Ready() || !errors.Is(err, io.EOF) {
		t.Errorf("a response without a body: %v, %v", s.HasBody(), err)
	}
}

// counted counts the writes of a connection.
type counted struct {
	net.Conn
	writes atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// A head and its body leave in one write, and so do those of many streams that
// answer at once.
func TestWritesAreFew(t *testing.T) {
	const streams = 50
	a, b := loopback.Pair(t)
	server := &counted{Conn: b}
	var ready sync.WaitGroup
	ready.Add(streams)
	go func() {
		_ = Server(server, Config{}, func(s *Stream) {
			if s.ID() > 3 {
				ready.Done()
				ready.Wait()
			}
			_ = s.Respond(fields(":status", "200"), More)
			_ = s.Send([]byte("answer"), End)
		}, nil)
	}()
	c, err := Client(a, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ask := func() {
		s := mustOpen(t, c, get(), End)
		mustHead(t, s, "200")
		if body, err := io.ReadAll(s); string(body) != "answer" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	}
	ask() // and what the settings need
	before := server.writes.Load()
	ask()
	if n := server.writes.Load() - before; n != 1 {
		t.Errorf("a response left in %d writes", n)
	}
	before = server.writes.Load()
	var group sync.WaitGroup
	for range streams {
		group.Go(ask)
	}
	group.Wait()
	if n := server.writes.Load() - before; n > streams/5 {
		t.Errorf("%d responses left in %d writes", streams, n)
	}
}

// What More held back goes with Flush, and when the peer's window is waited for.
func TestFlush(t *testing.T) {
	wait := make(chan struct{})
	c := tunnel(t, Config{StreamWindow: defaultWindow}, func(s *Stream) {
		_ = s.Respond(fields(":status", "200"), More)
		_ = s.Flush()
		<-wait
		_ = s.Send(data(3*defaultWindow), More|End)
		_ = s.Flush()
	})
	s := mustOpen(t, c, get(), End)
	mustHead(t, s, "200")
	close(wait)
	if body, err := io.ReadAll(s); !bytes.Equal(body, data(3*defaultWindow)) || err != nil {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

// Next lends the bytes themselves, until it is called again; a window is given
// back as they are consumed, so that a writer waits for a slow reader.
func TestNextAndBackpressure(t *testing.T) {
	const size = 8 * defaultWindow
	var sent atomic.Int64
	c := tunnel(t, Config{StreamWindow: defaultWindow}, func(s *Stream) {
		_ = s.Respond(fields(":status", "200"), 0)
		for b := data(size); len(b) > 0; {
			n := min(len(b), 1000)
			if s.Send(b[:n], 0) != nil {
				return
			}
			sent.Add(int64(n))
			b = b[n:]
		}
		_ = s.Finish(nil)
	})
	s := mustOpen(t, c, get(), End)
	mustHead(t, s, "200")
	want, read := data(size), 0
	for {
		b, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, want[read:read+len(b)]) {
			t.Fatalf("other bytes at %d", read)
		}
		if ahead := sent.Load() - int64(read); ahead > 2*defaultWindow {
			t.Fatalf("the writer is %d bytes ahead", ahead)
		}
		held := bytes.Clone(b)
		if s.Buffered() > 2*defaultWindow || !bytes.Equal(b, held) {
			t.Fatal("lent bytes changed")
		}
		read += len(b)
	}
	if read != size {
		t.Errorf("%d bytes", read)
	}
}

// Bytes that are lent stay as they are when the stream is reset, and others come.
func TestLentBytesOutliveAReset(t *testing.T) {
	c := tunnel(t, Config{}, func(s *Stream) {
		_ = s.Respond(fields(":status", "200"), 0)
		_, _ = s.Write(bytes.Repeat([]byte(s.Fields()[3].Value[1:]), 10_000))
		<-s.c.done // it could send more
	})
	ask := func(path string) []byte {
		list := get()
		list[3].Value = path
		s := mustOpen(t, c, list, End)
		mustHead(t, s, "200")
		b, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		s.Reset(CodeCancel)
		return b
	}
	lent := ask("/a")
	for range 20 {
		ask("/b")
	}
	if !bytes.Equal(lent, bytes.Repeat([]byte("a"), len(lent))) {
		t.Error("lent bytes were written over")
	}
}

func TestDeadlines(t *testing.T) {
	c := tunnel(t, Config{StreamWindow: defaultWindow}, func(s *Stream) {
		<-s.c.done // an application that neither reads nor answers
	})
	s := mustOpen(t, c, get(), 0)
	soon := func() time.Time { return time.Now().Add(20 * time.Millisecond) }
	for range 2 { // it may be called again
		_ = s.SetReadDeadline(soon())
		if _, err := s.Head(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a head: %v", err)
		}
		_ = s.SetWriteDeadline(soon())
		if err := s.Send(data(3*defaultWindow), 0); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a write: %v", err)
		}
	}
	// A deadline that is moved is kept by who waits already.
	_ = s.SetReadDeadline(time.Time{})
	ended := make(chan error, 1)
	go func() {
		_, err := s.Next()
		ended <- err
	}()
	for range 1000 {
		runtime.Gosched()
	}
	_ = s.SetReadDeadline(soon())
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read: %v", err)
	}
}

// A stream that ends abruptly wakes who waits on it, at both ends.
func TestResetWakes(t *testing.T) {
	server := make(chan error, 2)
	c := tunnel(t, Config{StreamWindow: defaultWindow}, func(s *Stream) {
		_ = s.Respond(fields(":status", "200"), 0)
		var group sync.WaitGroup
		group.Go(func() { server <- s.Send(data(3*defaultWindow), 0) })
		group.Go(func() {
			_, err := s.Next()
			server <- err
		})
		group.Wait()
	})
	s := mustOpen(t, c, get(), 0)
	mustHead(t, s, "200")
	client := make(chan error, 1)
	go func() { client <- s.Send(data(3*defaultWindow), 0) }()
	for s.Buffered() < defaultWindow { // until the server's writer waits
		if s.Err() != nil {
			t.Fatal(s.Err())
		}
	}
	s.Reset(CodeCancel)
	var se *StreamError
	if err := <-client; err == nil {
		t.Log("the client's writer had written all that the window took")
	} else if !errors.As(err, &se) || se.Remote {
		t.Errorf("the client's writer got %v", err)
	}
	for range 2 {
		if err := <-server; err != nil && (!errors.As(err, &se) || !se.Remote || se.Code != CodeCancel) {
			t.Errorf("the server got %v", err)
		}
	}
}

// A server that has answered whole resets the rest of the request with NO_ERROR;
// the response is not lost by it (RFC 9113 section 8.1).
func TestEarlyResponse(t *testing.T) {
	c := tunnel(t, Config{StreamWindow: defaultWindow}, func(s *Stream) {
		_ = s.Respond(fields(":status", "413"), More)
		_ = s.Send([]byte("too much"), End)
	})
	s := mustOpen(t, c, get(), 0)
	err := s.Send(data(10*defaultWindow), End)
	var se *StreamError
	if !errors.As(err, &se) || se.Code != CodeNo || !se.Remote {
		t.Errorf("sending ended with %v", err)
	}
	mustHead(t, s, "413")
	if body, err := io.ReadAll(s); string(body) != "too much" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
}

// A handler that returns without an answer resets its stream.
func TestHandlerThatDoesNotAnswer(t *testing.T) {
	for name, handler := range map[string]func(*Stream){
		"returns": func(*Stream) {},
		"closes":  func(s *Stream) { _ = s.Close() },
		"sends without a head": func(s *Stream) {
			if err := s.Send([]byte("x"), End); err == nil {
				t.Error("DATA was sent before a head")
			}
		},
	} {
		c := tunnel(t, Config{}, handler)
		s := mustOpen(t, c, get(), End)
		var se *StreamError
		if _, err := s.Head(); !errors.As(err, &se) || se.Code != CodeInternal || Retryable(err) {
			t.Errorf("one that %s: %v", name, err)
		}
	}
}

// Handlers that still work for streams that were reset count: a peer cannot have
// more of them than its streams twice.
func TestHandlersOfResetStreamsCount(t *testing.T) {
	const limit = 10
	var running, most atomic.Int64
	p := toServer(t, Config{MaxStreams: limit, Resets: Rate{PerSecond: 1e6, Burst: 1e6}}, func(s *Stream) {
		most.Store(max(most.Load(), running.Add(1)))
		<-s.c.done // an upstream that does not answer
	})
	var refused bool
	for id := uint32(1); id < 1000 && !refused; id += 2 {
		p.headers(id, true, get())
		_ = p.WriteRSTStream(id, http2.ErrCodeCancel)
		_ = p.WritePing(false, [8]byte{1})
		for {
			f, err := p.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if r, ok := f.(*http2.RSTStreamFrame); ok && r.ErrCode == http2.ErrCodeRefusedStream {
				refused = true
			}
			if _, ok := f.(*http2.PingFrame); ok {
				break
			}
		}
	}
	if !refused || most.Load() > 2*limit {
		t.Errorf("%d handlers at once, refused: %v", most.Load(), refused)
	}
}

// What comes in pieces is taken as what comes whole.
func TestBytesOneByOne(t *testing.T) {
	var b bytes.Buffer
	_, _ = b.WriteString(Preface)
	w := http2.NewFramer(&b, nil)
	_ = w.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 20000})
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(get("x-a", "b")...), EndHeaders: true})
	_ = w.WriteData(1, true, []byte("body"))
	p := toServerBytewise(t, b.Bytes(), func(s *Stream) {
		if body, err := io.ReadAll(s); string(body) != "body" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
		_ = s.Respond(fields(":status", "200"), End)
	})
	await[*http2.MetaHeadersFrame](p, 1)
}

// A connection that was looked into, to see what it speaks, is served from its
// first byte.
func TestServerAfter(t *testing.T) {
	a, b := loopback.Pair(t)
	ended := make(chan error, 1)
	go func() {
		read := make([]byte, 7)
		if _, err := io.ReadFull(b, read); err != nil {
			ended <- err
			return
		}
		ended <- ServerAfter(b, read, Config{}, consume, nil)
	}()
	c, err := Client(a, Config{})
	if err != nil {
		t.Fatal(err)
	}
	mustHead(t, mustOpen(t, c, get(), End), "200")
	c.Close()
	var ce *ConnError
	if err := <-ended; !errors.As(err, &ce) || !ce.Remote {
		t.Errorf("ended with %v", err)
	}
}

// toServerBytewise is toServer's after bytes that were written one by one.
func toServerBytewise(t *testing.T, said []byte, handler func(*Stream)) *peer {
	t.Helper()
	a, b := loopback.Pair(t)
	_ = a.SetDeadline(time.Now().Add(30 * time.Second))
	go func() { _ = Server(b, Config{}, handler, nil) }()
	for i := range said {
		if _, err := a.Write(said[i : i+1]); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched() // so that the reader may see it alone
	}
	p := &peer{Framer: http2.NewFramer(a, a), t: t}
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return p
}
