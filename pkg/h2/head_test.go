package h2

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/test/loopback"
)

// fields are name, value, name, value.
func fields(pairs ...string) (out []Field) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, Field{Name: pairs[i], Value: pairs[i+1]})
	}
	return out
}

// get is a request with further fields.
func get(pairs ...string) []Field {
	return append(fields(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"), fields(pairs...)...)
}

// peer speaks frames by hand.
type peer struct {
	*http2.Framer
	t testing.TB
}

// await reads frames until one of a kind comes, on a stream unless it is 0.
func await[F http2.Frame](p *peer, stream uint32) F {
	p.t.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			p.t.Fatalf("instead of a frame: %v", err)
		}
		if want, ok := f.(F); ok && (stream == 0 || f.Header().StreamID == stream) {
			if s, ok := f.(*http2.SettingsFrame); ok && s.IsAck() {
				continue
			}
			return want
		}
	}
}

func (p *peer) headers(stream uint32, end bool, list []Field) {
	p.t.Helper()
	if err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(list...), EndHeaders: true, EndStream: end}); err != nil {
		p.t.Fatal(err)
	}
}

// toServer is a client of our server's, by hand.
func toServer(t testing.TB, config Config, handler func(*Stream)) *peer {
	t.Helper()
	a, b := loopback.Pair(t)
	_ = a.SetDeadline(time.Now().Add(30 * time.Second))
	go func() { _ = Server(b, config, handler, nil) }()
	_, _ = io.WriteString(a, Preface)
	p := &peer{Framer: http2.NewFramer(a, a), t: t}
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.AllowIllegalWrites = true
	_ = p.WriteSettings()
	return p
}

// toClient is a server of our client's, by hand.
func toClient(t testing.TB, config Config) (*Conn, *peer) {
	t.Helper()
	a, b := loopback.Pair(t)
	_ = b.SetDeadline(time.Now().Add(30 * time.Second))
	c, err := Client(a, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if _, err := io.ReadFull(b, make([]byte, len(Preface))); err != nil {
		t.Fatal(err)
	}
	p := &peer{Framer: http2.NewFramer(b, b), t: t}
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.AllowIllegalWrites = true
	_ = p.WriteSettings()
	return c, p
}

// consume answers 200 after the whole of the request.
func consume(s *Stream) {
	for {
		if _, err := s.Next(); errors.Is(err, io.EOF) {
			_ = s.Respond(fields(":status", "200"), End)
			return
		} else if err != nil {
			return
		}
	}
}

// A malformed request is a stream error, which its handler is not called with, and
// other streams go on (RFC 9113 section 8).
func TestMalformedRequests(t *testing.T) {
	without := func(name string) []Field {
		return slices.DeleteFunc(get(), func(f Field) bool { return f.Name == name })
	}
	with := func(name, value string) []Field {
		list := get()
		for i := range list {
			if list[i].Name == name {
				list[i].Value = value
			}
		}
		return list
	}
	for name, list := range map[string][]Field{
		"no method":                     without(":method"),
		"no scheme":                     without(":scheme"),
		"no path":                       without(":path"),
		"empty path":                    with(":path", ""),
		"path without a slash":          with(":path", "x"),
		"star with GET":                 with(":path", "*"),
		"method with a space":           with(":method", "GE T"),
		"empty method":                  with(":method", ""),
		"empty authority":               with(":authority", ""),
		"duplicate method":              append(fields(":method", "GET"), get()...),
		"duplicate authority":           append(fields(":authority", "b"), get()...),
		"status in a request":           append(fields(":status", "200"), get()...),
		"unknown pseudo-field":          append(fields(":x", "1"), get()...),
		"pseudo-field after others":     append(get("a", "b"), fields(":path", "/")...),
		"protocol without the setting":  append(fields(":protocol", "websocket"), get()...),
		"upper case":                    get("X-Name", "1"),
		"space in a name":               get("x name", "1"),
		"colon in a name":               get("x:name", "1"),
		"control character in a name":   get("x\x01", "1"),
		"beyond ASCII in a name":        get("x\u00e9", "1"),
		"empty name":                    get("", "1"),
		"CR in a value":                 get("x", "a\rb"),
		"LF in a value":                 get("x", "a\nb"),
		"NUL in a value":                get("x", "a\x00b"),
		"DEL in a value":                get("x", "a\x7fb"),
		"space before a value":          get("x", " a"),
		"tab after a value":             get("x", "a\t"),
		"connection":                    get("connection", "close"),
		"keep-alive":                    get("keep-alive", "1"),
		"proxy-connection":              get("proxy-connection", "close"),
		"transfer-encoding":             get("transfer-encoding", "chunked"),
		"upgrade":                       get("upgrade", "h2c"),
		"te":                            get("te", "gzip"),
		"te with trailers among others": get("te", "trailers, gzip"),
		"content-length without a body": get("content-length", "1"),
		"content-length that is none":   get("content-length", "x"),
		"content-length with a sign":    get("content-length", "+0"),
		"empty content-length":          get("content-length", ""),
		"negative content-length":       get("content-length", "-1"),
		"content-lengths that differ":   get("content-length", "0", "content-length", "00", "content-length", "1"),
		"content-length beyond 64 bits": get("content-length", "18446744073709551616"),
		"CONNECT with a path":           fields(":method", "CONNECT", ":authority", "a:1", ":path", "/"),
		"CONNECT with a scheme":         fields(":method", "CONNECT", ":authority", "a:1", ":scheme", "http"),
		"CONNECT without an authority":  fields(":method", "CONNECT"),
		"nothing":                       nil,
	} {
		t.Run(name, func(t *testing.T) {
			p := toServer(t, Config{}, func(s *Stream) {
				if s.ID() == 1 {
					t.Errorf("a handler was called with %v", s.Fields())
				}
				consume(s)
			})
			p.headers(1, true, list)
			if f := await[*http2.RSTStreamFrame](p, 1); f.ErrCode != http2.ErrCodeProtocol {
				t.Errorf("reset with %v", f.ErrCode)
			}
			p.headers(3, true, get())
			if f := await[*http2.MetaHeadersFrame](p, 3); f.PseudoValue("status") != "200" {
				t.Errorf("the next stream was answered with %v", f.PseudoValue("status"))
			}
		})
	}
}

func TestRequestsThatAreTaken(t *testing.T) {
	for name, list := range map[string][]Field{
		"without authority":   slices.Concat(fields(":method", "GET", ":scheme", "http", ":path", "/"), fields("host", "a")),
		"OPTIONS *":           fields(":method", "OPTIONS", ":scheme", "http", ":authority", "a", ":path", "*"),
		"own method":          fields(":method", "my-METHOD", ":scheme", "http", ":authority", "a", ":path", "/"),
		"te: trailers":        get("te", "trailers"),
		"equal lengths":       get("content-length", "0", "content-length", "0"),
		"tab within a value":  get("x", "a\tb"),
		"beyond ASCII":        get("x", "\u00e9\xff"),
		"empty value":         get("x", ""),
		"extended CONNECT":    fields(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/"),
		"expects to continue": get("expect", "100-continue"),
	} {
		t.Run(name, func(t *testing.T) {
			p := toServer(t, Config{ExtendedConnect: true}, func(s *Stream) {
				if !slices.Equal(s.Fields(), list) {
					t.Errorf("the handler sees %v", s.Fields())
				}
				consume(s)
			})
			p.headers(1, true, list)
			if f := await[*http2.MetaHeadersFrame](p, 1); f.PseudoValue("status") != "200" {
				t.Errorf("answered with %v", f.PseudoValue("status"))
			}
		})
	}
}

// What follows a request's head must fit to it.
func TestMalformedBodies(t *testing.T) {
	for name, c := range map[string]struct {
		head []Field
		send func(p *peer)
		code http2.ErrCode
	}{
		"more than content-length":       {get("content-length", "3"), func(p *peer) { _ = p.WriteData(1, false, []byte("four")) }, http2.ErrCodeProtocol},
		"less than content-length":       {get("content-length", "3"), func(p *peer) { _ = p.WriteData(1, true, []byte("2.")) }, http2.ErrCodeProtocol},
		"trailers before content-length": {get("content-length", "3"), func(p *peer) { p.headers(1, true, fields("a", "b")) }, http2.ErrCodeProtocol},
		"headers that do not end":        {get(), func(p *peer) { p.headers(1, false, fields("a", "b")) }, http2.ErrCodeProtocol},
		"pseudo-field in trailers":       {get(), func(p *peer) { p.headers(1, true, fields(":path", "/")) }, http2.ErrCodeProtocol},
		"upper case in trailers":         {get(), func(p *peer) { p.headers(1, true, fields("A", "b")) }, http2.ErrCodeProtocol},
		"connection in trailers":         {get(), func(p *peer) { p.headers(1, true, fields("connection", "b")) }, http2.ErrCodeProtocol},
		"window of nothing": {get(), func(p *peer) {
			_ = p.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, []byte{0, 0, 0, 0})
		}, http2.ErrCodeProtocol},
		"window overflow": {get(), func(p *peer) { _ = p.WriteWindowUpdate(1, 1<<31-1) }, http2.ErrCodeFlowControl},
		"dependency on itself": {get(), func(p *peer) {
			_ = p.WritePriority(1, http2.PriorityParam{StreamDep: 1})
		}, http2.ErrCodeProtocol},
		"PRIORITY of 4 bytes": {get(), func(p *peer) { _ = p.WriteRawFrame(http2.FramePriority, 0, 1, make([]byte, 4)) }, http2.ErrCodeFrameSize},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			p := toServer(t, Config{}, func(s *Stream) {
				if s.ID() == 1 {
					for {
						if _, err := s.Next(); err != nil {
							ended <- err
							return
						}
					}
				}
				consume(s)
			})
			p.headers(1, false, c.head)
			c.send(p)
			if f := await[*http2.RSTStreamFrame](p, 1); f.ErrCode != c.code {
				t.Errorf("reset with %v", f.ErrCode)
			}
			var se *StreamError
			if err := <-ended; !errors.As(err, &se) || uint32(se.Code) != uint32(c.code) {
				t.Errorf("the handler's reader got %v", err)
			}
			p.headers(3, true, get())
			await[*http2.MetaHeadersFrame](p, 3)
		})
	}
}

// A malformed response is a stream error for who waits for it.
func TestMalformedResponses(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		send   func(p *peer)
	}{
		"no status":                {"GET", func(p *peer) { p.headers(1, true, fields("a", "b")) }},
		"nothing":                  {"GET", func(p *peer) { p.headers(1, true, nil) }},
		"status of two digits":     {"GET", func(p *peer) { p.headers(1, true, fields(":status", "20")) }},
		"status of letters":        {"GET", func(p *peer) { p.headers(1, true, fields(":status", "2OO")) }},
		"status under 100":         {"GET", func(p *peer) { p.headers(1, true, fields(":status", "099")) }},
		"duplicate status":         {"GET", func(p *peer) { p.headers(1, true, fields(":status", "200", ":status", "200")) }},
		"path in a response":       {"GET", func(p *peer) { p.headers(1, true, fields(":status", "200", ":path", "/")) }},
		"101":                      {"GET", func(p *peer) { p.headers(1, false, fields(":status", "101")) }},
		"informational at its end": {"GET", func(p *peer) { p.headers(1, true, fields(":status", "100")) }},
		"connection":               {"GET", func(p *peer) { p.headers(1, true, fields(":status", "200", "connection", "close")) }},
		"upper case":               {"GET", func(p *peer) { p.headers(1, true, fields(":status", "200", "A", "b")) }},
		"DATA before a head":       {"GET", func(p *peer) { _ = p.WriteData(1, true, []byte("x")) }},
		"length without a body":    {"GET", func(p *peer) { p.headers(1, true, fields(":status", "200", "content-length", "1")) }},
		"body of a HEAD": {"HEAD", func(p *peer) {
			p.headers(1, false, fields(":status", "200", "content-length", "1"))
			_ = p.WriteData(1, true, []byte("x"))
		}},
		"body of a 304": {"GET", func(p *peer) {
			p.headers(1, false, fields(":status", "304"))
			_ = p.WriteData(1, true, []byte("x"))
		}},
		"shorter than its length": {"GET", func(p *peer) {
			p.headers(1, false, fields(":status", "200", "content-length", "2"))
			_ = p.WriteData(1, true, []byte("x"))
		}},
		"informational without end": {"GET", func(p *peer) {
			for range 50 {
				p.headers(1, false, fields(":status", "103"))
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			conn, p := toClient(t, Config{})
			list := get()
			list[0].Value = c.method
			s, err := conn.Open(list, End)
			if err != nil {
				t.Fatal(err)
			}
			await[*http2.MetaHeadersFrame](p, 1)
			c.send(p)
			await[*http2.RSTStreamFrame](p, 1)
			// What came before may be read; then comes the error.
			_, err = s.Response(t.Context())
			for err == nil {
				_, err = s.Next()
			}
			var se *StreamError
			if !errors.As(err, &se) || se.Remote {
				t.Errorf("ended with %v", err)
			}
			if conn.Err() != nil {
				t.Errorf("the connection ended: %v", conn.Err())
			}
		})
	}
}

// A header list over the limit is refused, and does not end the connection.
func TestLargeHeaderList(t *testing.T) {
	p := toServer(t, Config{MaxHeaderList: 1000}, consume)
	p.headers(1, true, get("x", strings.Repeat("v", 1500)))
	if f := await[*http2.RSTStreamFrame](p, 1); f.ErrCode != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("reset with %v", f.ErrCode)
	}
	p.headers(3, true, get())
	await[*http2.MetaHeadersFrame](p, 3)
}

// Frames for streams that are over: which end the connection, which are ignored.
func TestClosedStreams(t *testing.T) {
	over := func(p *peer) { // stream 1 is complete
		p.headers(1, true, get())
		await[*http2.MetaHeadersFrame](p, 1)
	}
	t.Run("HEADERS after the end", func(t *testing.T) {
		p := toServer(t, Config{}, consume)
		over(p)
		p.headers(1, true, fields("a", "b"))
		if f := await[*http2.GoAwayFrame](p, 0); f.ErrCode != http2.ErrCodeStreamClosed {
			t.Errorf("ended with %v", f.ErrCode)
		}
	})
	t.Run("DATA after the end", func(t *testing.T) {
		p := toServer(t, Config{}, consume)
		over(p)
		_ = p.WriteData(1, true, []byte("x"))
		if f := await[*http2.RSTStreamFrame](p, 1); f.ErrCode != http2.ErrCodeStreamClosed {
			t.Errorf("reset with %v", f.ErrCode)
		}
	})
	t.Run("what was on its way when we reset", func(t *testing.T) {
		p := toServer(t, Config{}, func(s *Stream) {
			if s.ID() == 1 {
				_ = s.Respond(fields(":status", "200"), End) // and does not read the request
				return
			}
			consume(s)
		})
		p.headers(1, false, get())
		if f := await[*http2.RSTStreamFrame](p, 1); f.ErrCode != http2.ErrCodeNo {
			t.Errorf("reset with %v", f.ErrCode)
		}
		_ = p.WriteData(1, false, []byte("still coming"))
		_ = p.WriteWindowUpdate(1, 100)
		p.headers(1, true, fields("a", "trailer"))
		p.headers(3, true, get())
		if f := await[*http2.MetaHeadersFrame](p, 3); f.PseudoValue("status") != "200" {
			t.Error("the connection did not go on")
		}
	})
}

// Settings that section 6.5.2 forbids end the connection with its code.
func TestWrongSettings(t *testing.T) {
	for _, c := range []struct {
		id   http2.SettingID
		val  uint32
		code http2.ErrCode
	}{
		{http2.SettingEnablePush, 2, http2.ErrCodeProtocol},
		{http2.SettingInitialWindowSize, 1 << 31, http2.ErrCodeFlowControl},
		{http2.SettingMaxFrameSize, 1<<14 - 1, http2.ErrCodeProtocol},
		{http2.SettingMaxFrameSize, 1 << 24, http2.ErrCodeProtocol},
		{http2.SettingEnableConnectProtocol, 2, http2.ErrCodeProtocol},
	} {
		t.Run(fmt.Sprint(c.id, c.val), func(t *testing.T) {
			p := toServer(t, Config{}, consume)
			_ = p.WriteSettings(http2.Setting{ID: c.id, Val: c.val})
			if f := await[*http2.GoAwayFrame](p, 0); f.ErrCode != c.code {
				t.Errorf("ended with %v", f.ErrCode)
			}
		})
	}
	t.Run("push from a server", func(t *testing.T) {
		_, p := toClient(t, Config{})
		_ = p.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1})
		if f := await[*http2.GoAwayFrame](p, 0); f.ErrCode != http2.ErrCodeProtocol {
			t.Errorf("ended with %v", f.ErrCode)
		}
	})
}
