package h2

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/test/loopback"
)

// tunnel is a client's connection to a server whose streams go to handler.
func tunnel(t testing.TB, config Config, handler func(*Stream)) *Conn {
	t.Helper()
	a, b := loopback.Pair(t)
	go func() { _ = Server(b, config, handler, nil) }()
	c, err := Client(a, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

var connect = []Field{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: "10.0.0.1:80"}}

// relayed is a stream whose ends are sockets: what a test writes to one comes
// out of the other.
type relayed struct {
	client, server              *net.TCPConn
	clientErr, serverErr        chan error
	sent, received, back, forth atomic.Uint64
}

// relayUntil relays and returns how it ended.
func relayUntil(s *Stream, conn *net.TCPConn, sent, received *atomic.Uint64) error {
	ended := make(chan error, 1)
	s.Relay(conn, sent, received, func(err error) { ended <- err })
	return <-ended
}

func newRelayed(t testing.TB, config Config) *relayed {
	t.Helper()
	r := &relayed{clientErr: make(chan error, 1), serverErr: make(chan error, 1)}
	app, inner := loopback.Pair(t)
	r.server = app
	c := tunnel(t, config, func(s *Stream) {
		if err := s.Respond([]Field{{Name: ":status", Value: "200"}}, 0); err != nil {
			r.serverErr <- err
			return
		}
		r.serverErr <- relayUntil(s, inner, &r.back, &r.forth)
	})
	r.attach(t, c)
	return r
}

func (r *relayed) attach(t testing.TB, c *Conn) {
	t.Helper()
	s, err := c.Open(connect, 0)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := s.Response(t.Context()); err != nil || f[0].Value != "200" {
		t.Fatalf("response %v, %v", f, err)
	}
	outer, inner := loopback.Pair(t)
	r.client = outer
	go func() { r.clientErr <- relayUntil(s, inner, &r.sent, &r.received) }()
}

func data(n int) []byte {
	b := make([]byte, n)
	_, _ = io.ReadFull(rand.NewChaCha8([32]byte{1}), b)
	return b
}

func digest(r io.Reader) string {
	h := sha256.New()
	_, _ = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil))
}

func TestRelayBothWays(t *testing.T) {
	const size = 20 << 20
	want := digest(bytes.NewReader(data(size)))
	for name, config := range map[string]Config{
		"default":      {},
		"tiny windows": {StreamWindow: 70_000, ConnWindow: 300_000, MaxFrame: 16384},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelayed(t, config)
			var group sync.WaitGroup
			for _, c := range []*net.TCPConn{r.client, r.server} {
				group.Go(func() {
					_, _ = c.Write(data(size))
					_ = c.CloseWrite()
				})
				group.Go(func() {
					if got := digest(c); got != want {
						t.Errorf("other bytes arrived")
					}
				})
			}
			group.Wait()
			if a, b := <-r.clientErr, <-r.serverErr; a != nil || b != nil {
				t.Errorf("relays ended with %v, %v", a, b)
			}
			for _, n := range []uint64{r.sent.Load(), r.received.Load(), r.back.Load(), r.forth.Load()} {
				if n != size {
					t.Errorf("counted %d bytes, want %d", n, size)
				}
			}
		})
	}
}

func TestHalfClose(t *testing.T) {
	r := newRelayed(t, Config{})
	_, _ = r.client.Write([]byte("question"))
	_ = r.client.CloseWrite()
	if b, err := io.ReadAll(r.server); string(b) != "question" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	_, _ = r.server.Write([]byte("answer after the end"))
	_ = r.server.Close()
	if b, err := io.ReadAll(r.client); string(b) != "answer after the end" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// An abort must never look like the end of the data.
func TestAbortIsAnAbortAtTheOtherEnd(t *testing.T) {
	for name, end := range map[string]func(r *relayed) (aborted, other *net.TCPConn){
		"client": func(r *relayed) (*net.TCPConn, *net.TCPConn) { return r.client, r.server },
		"server": func(r *relayed) (*net.TCPConn, *net.TCPConn) { return r.server, r.client },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelayed(t, Config{})
			aborted, other := end(r)
			_, _ = aborted.Write([]byte("x"))
			if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			_ = aborted.SetLinger(0)
			aborted.Close()
			_ = other.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := other.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other end read %v, want a reset", err)
			}
			if a, b := <-r.clientErr, <-r.serverErr; a == nil || b == nil {
				t.Errorf("relays ended with %v, %v", a, b)
			}
		})
	}
}

func TestTunnelLostIsAnAbort(t *testing.T) {
	r := &relayed{clientErr: make(chan error, 1), serverErr: make(chan error, 1)}
	app, inner := loopback.Pair(t)
	r.server = app
	c := tunnel(t, Config{}, func(s *Stream) {
		_ = s.Respond([]Field{{Name: ":status", Value: "200"}}, 0)
		r.serverErr <- relayUntil(s, inner, &r.back, &r.forth)
	})
	r.attach(t, c)
	c.nc.Close()
	for _, end := range []*net.TCPConn{r.client, r.server} {
		_ = end.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := end.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %v, want a reset", err)
		}
	}
}

// One stream whose application does not read must not stop the others, nor be
// kept in memory beyond its window.
func TestSlowStreamHarmsNoOther(t *testing.T) {
	var inners sync.Map
	config := Config{StreamWindow: 1 << 20, ConnWindow: 4 << 20}
	c := tunnel(t, config, func(s *Stream) {
		_ = s.Respond([]Field{{Name: ":status", Value: "200"}}, 0)
		inner, _ := inners.Load(s.Fields()[1].Value)
		var a, b atomic.Uint64
		_ = relayUntil(s, inner.(*net.TCPConn), &a, &b)
	})
	open := func(name string) (client, server *net.TCPConn) {
		server, inner := loopback.Pair(t)
		inners.Store(name, inner)
		s, err := c.Open([]Field{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: name}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Response(t.Context()); err != nil {
			t.Fatal(err)
		}
		client, far := loopback.Pair(t)
		go func() {
			var a, b atomic.Uint64
			_ = relayUntil(s, far, &a, &b)
		}()
		return client, server
	}
	for i := range 8 { // more of them than the connection's window holds
		client, _ := open(fmt.Sprint("slow", i))
		go func() { _, _ = client.Write(data(64 << 20)) }()
	}
	client, server := open("quick")
	for range 200 {
		_, _ = client.Write([]byte("ping"))
		_ = server.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadFull(server, make([]byte, 4)); err != nil {
			t.Fatalf("a quick stream waits behind slow ones: %v", err)
		}
	}
}

func TestStreamLimitAndGoAway(t *testing.T) {
	hold := make(chan struct{})
	c := tunnel(t, Config{MaxStreams: 2}, func(s *Stream) {
		_ = s.Respond([]Field{{Name: ":status", Value: "200"}}, 0)
		<-hold
		_ = s.CloseWrite()
	})
	var streams []*Stream
	for range 2 {
		s, err := c.Open(connect, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Response(t.Context()); err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	if _, err := c.Open(connect, 0); !errors.Is(err, ErrNoStream) {
		t.Errorf("a third stream: %v", err)
	}
	c.GoAway()
	if _, limit := c.Load(); limit != 0 {
		t.Error("a connection that drains offers streams")
	}
	close(hold)
	for _, s := range streams {
		if _, err := io.ReadAll(s); err != nil {
			t.Errorf("a stream of a draining connection: %v", err)
		}
		_ = s.CloseWrite()
	}
	select {
	case <-c.Done():
	case <-time.After(20 * time.Second):
		t.Error("a drained connection stays")
	}
}

// rawPeer speaks frames by hand to our server.
func rawPeer(t *testing.T, config Config) (*http2.Framer, net.Conn, chan error) {
	t.Helper()
	a, b := loopback.Pair(t)
	ended := make(chan error, 1)
	go func() {
		ended <- Server(b, config, func(s *Stream) {
			_ = s.Respond([]Field{{Name: ":status", Value: "200"}}, 0)
			<-s.c.done // an application that does not read
		}, nil)
	}()
	_, _ = io.WriteString(a, Preface)
	f := http2.NewFramer(a, a)
	_ = f.WriteSettings()
	go func() { _, _ = io.Copy(io.Discard, a) }()
	return f, a, ended
}

func block(fields ...Field) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range fields {
		_ = e.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	return b.Bytes()
}

func open(f *http2.Framer, id uint32) error {
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(connect...), EndHeaders: true})
}

// What a hostile peer does ends its own connection, with a code that says why.
func TestHostilePeersAreCutOff(t *testing.T) {
	many := func(what func(f *http2.Framer, i int) error) func(f *http2.Framer) {
		return func(f *http2.Framer) {
			for i := range 200_000 {
				if what(f, i) != nil {
					return
				}
			}
		}
	}
	for name, c := range map[string]struct {
		attack func(f *http2.Framer)
		code   Code
	}{
		"rapid reset": {many(func(f *http2.Framer, i int) error {
			id := uint32(2*i + 1)
			if err := open(f, id); err != nil {
				return err
			}
			return f.WriteRSTStream(id, http2.ErrCodeCancel)
		}), CodeEnhanceYourCalm},
		"resets that it provokes": {many(func(f *http2.Framer, i int) error { // CVE-2025-8671
			id := uint32(2*i + 1)
			if err := open(f, id); err != nil {
				return err
			}
			return f.WriteRawFrame(http2.FrameWindowUpdate, 0, id, []byte{0, 0, 0, 0})
		}), CodeEnhanceYourCalm},
		"PING flood":          {many(func(f *http2.Framer, _ int) error { return f.WritePing(false, [8]byte{}) }), CodeEnhanceYourCalm},
		"SETTINGS flood":      {many(func(f *http2.Framer, _ int) error { return f.WriteSettings() }), CodeEnhanceYourCalm},
		"streams without end": {many(func(f *http2.Framer, i int) error { return open(f, uint32(2*i+1)) }), CodeEnhanceYourCalm},
		"empty DATA": {func(f *http2.Framer) {
			_ = open(f, 1)
			many(func(f *http2.Framer, _ int) error { return f.WriteData(1, false, nil) })(f)
		}, CodeEnhanceYourCalm},
		"CONTINUATION flood": {func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(Field{Name: "a", Value: "b"})})
			many(func(f *http2.Framer, _ int) error {
				return f.WriteContinuation(1, false, block(Field{Name: "x", Value: "y"}))
			})(f)
		}, CodeEnhanceYourCalm},
		"huge header list": {func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: bytes.Repeat([]byte{0x40, 1, 'a', 1, 'b'}, 50_000)[:200_000], EndHeaders: true})
		}, CodeEnhanceYourCalm},
		"more than the window": {func(f *http2.Framer) {
			_ = open(f, 1)
			for range 400 {
				if f.WriteData(1, false, make([]byte, 16384)) != nil {
					return
				}
			}
		}, CodeFlowControl},
		"window overflow":        {func(f *http2.Framer) { _ = f.WriteWindowUpdate(0, 1<<31-1) }, CodeFlowControl},
		"window of nothing":      {func(f *http2.Framer) { _ = f.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, []byte{0, 0, 0, 0}) }, CodeProtocol},
		"huge frame":             {func(f *http2.Framer) { _ = f.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 2<<20)) }, CodeFrameSize},
		"DATA on an idle stream": {func(f *http2.Framer) { _ = f.WriteData(7, false, []byte("x")) }, CodeProtocol},
		"even stream":            {func(f *http2.Framer) { _ = open(f, 2) }, CodeProtocol},
		"falling stream":         {func(f *http2.Framer) { _ = open(f, 5); _ = open(f, 3) }, CodeStreamClosed},
		"interrupted headers": {func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(connect...)})
			_ = f.WritePing(false, [8]byte{})
		}, CodeProtocol},
		"bad compression": {func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true})
		}, CodeCompression},
		"push promise": {func(f *http2.Framer) {
			_ = f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, CodeProtocol},
		"settings too big": {func(f *http2.Framer) { _ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}) }, CodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			f, conn, ended := rawPeer(t, Config{StreamWindow: 1 << 20, ConnWindow: 4 << 20, MaxStreams: 50})
			f.AllowIllegalWrites = true
			go func() {
				_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
				c.attack(f)
			}()
			select {
			case err := <-ended:
				var ce *ConnError
				if !errors.As(err, &ce) || ce.Code != c.code {
					t.Errorf("ended with %v, want %v", err, c.code)
				}
			case <-time.After(25 * time.Second):
				t.Error("the connection stays")
			}
		})
	}
}

func TestNoPrefaceInTime(t *testing.T) {
	_, b := loopback.Pair(t)
	if err := Server(b, Config{PrefaceTimeout: 50 * time.Millisecond}, nil, nil); err == nil {
		t.Error("a silent peer was waited for")
	}
}

func TestSilentPeerIsLeft(t *testing.T) {
	a, b := loopback.Pair(t)
	go func() { // answers nothing
		buf := make([]byte, 1024)
		for {
			if _, err := b.Read(buf); err != nil {
				return
			}
		}
	}()
	c, err := Client(a, Config{PingInterval: 20 * time.Millisecond, PingTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Done():
	case <-time.After(20 * time.Second):
		t.Error("a connection without answers stays")
	}
}
