package codec

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/test/loopback"
)

// carry is a proxy of one exchange, in the way that the router does it: a request
// with a body is sent in a goroutine of its own, so that the response may overtake
// it.
func carry(e Exchange, s ClientStream) error {
	defer s.Close()
	if e.HasBody() || e.Request().Upgrade != "" || e.Request().Method == "CONNECT" {
		return carryBoth(e, s)
	}
	if err := s.Send(e.Request(), true); err != nil {
		return err
	}
	_, err := answer(e, s)
	return err
}

func carryBoth(e Exchange, s ClientStream) error {
	hasBody := e.HasBody()
	if err := s.Send(e.Request(), !hasBody); err != nil {
		return err
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	if hasBody {
		sending.Go(func() { _ = pipe(e, s) })
	}
	switched, err := answer(e, s)
	if switched {
		sending.Go(func() { _ = pipe(e, s) })
		return pipe(s, e)
	}
	return err
}

// answer carries the response, unless it switches protocols.
func answer(e Exchange, s ClientStream) (switched bool, err error) {
	for {
		r, err := s.Response()
		if err != nil {
			e.Reset()
			return false, err
		}
		if r.Status < 200 && r.Status != 101 {
			if err := e.Inform(r); err != nil {
				return false, err
			}
			continue
		}
		if r.Status == 101 || e.Request().Method == "CONNECT" && r.Status/100 == 2 {
			return true, e.Respond(r, false)
		}
		end := !s.HasBody()
		if err := e.Respond(r, end); err != nil || end {
			return false, err
		}
		return false, pipe(s, e)
	}
}

// pipe carries a body with its trailers.
func pipe(from Reader, to Writer) error {
	for {
		b, err := from.Next()
		if errors.Is(err, io.EOF) {
			return to.Finish(from.Trailers())
		}
		if err != nil {
			return err
		}
		if _, err := to.Write(b); err != nil {
			return err
		}
		if !from.Ready() {
			if err := to.Flush(); err != nil {
				return err
			}
		}
	}
}

// peer is a client of one version, and a server of one that a handler stands for.
func openClient(t testing.TB, version message.Version, h Handler) func() ClientStream {
	t.Helper()
	near, far := loopback.Pair(t)
	if version == message.HTTP2 {
		go func() { _ = ServeHTTP2(TCPConn{TCPConn: far}, Options{HTTP2: h2.Config{ExtendedConnect: true}}, h) }()
		c, err := NewHTTP2Client(TCPConn{TCPConn: near}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		for end := time.Now().Add(10 * time.Second); !c.conn.ExtendedConnect() && time.Now().Before(end); {
			<-time.After(time.Millisecond)
		}
		return c.Open
	}
	go func() { _ = ServeHTTP1(TCPConn{TCPConn: far}, Options{}, h) }()
	c := NewHTTP1Client(TCPConn{TCPConn: near}, Options{})
	t.Cleanup(c.Close)
	return c.Open
}

// through is a chain of a client, a proxy and a server.
func through(t testing.TB, front, back message.Version, h Handler) func() ClientStream {
	t.Helper()
	upstream := openClient(t, back, h)
	if back == message.HTTP11 { // a client may see the end before its proxy does
		upstream = func() ClientStream { return openClient(t, back, h)() }
	}
	return openClient(t, front, func(e Exchange) { _ = carry(e, upstream()) })
}

// origin answers by the path.
func origin(t *testing.T) Handler {
	return func(e Exchange) {
		r := e.Request()
		switch {
		case r.Upgrade != "":
			_ = e.Respond(&message.Response{Status: 101, Fields: message.Fields{{Name: "upgrade", Value: r.Upgrade}}, ContentLength: -1}, false)
			_ = pipe(e, e)
			return
		case r.Method == "CONNECT":
			_ = e.Respond(&message.Response{Status: 200, ContentLength: -1}, false)
			_ = pipe(e, e)
			return
		case r.Path == "/hints":
			_ = e.Inform(&message.Response{Status: 103, Fields: message.Fields{{Name: "link", Value: "x"}}})
		case r.Path == "/early":
			_ = e.Respond(&message.Response{Status: 413, ContentLength: 5}, false)
			_, _ = e.Write([]byte("large"))
			_ = e.Finish(nil)
			return
		case r.Path == "/204":
			_ = e.Respond(&message.Response{Status: 204, ContentLength: -1}, true)
			return
		case r.Path == "/cookie":
			text := r.Fields.Get("cookie")
			_ = e.Respond(&message.Response{Status: 200, ContentLength: int64(len(text))}, false)
			_, _ = e.Write([]byte(text))
			_ = e.Finish(nil)
			return
		}
		if err := e.Respond(&message.Response{Status: 200, Fields: message.Fields{{Name: "x-method", Value: r.Method}}, ContentLength: r.ContentLength}, r.Method == "HEAD"); err != nil {
			t.Error(err)
		}
		if r.Method == "HEAD" {
			return
		}
		if err := pipe(e, e); err != nil && !errors.Is(err, ErrReset) {
			t.Errorf("%s: %v", r.Path, err)
		}
	}
}

func TestVersionsMeet(t *testing.T) {
	for _, front := range []message.Version{message.HTTP11, message.HTTP2} {
		for _, back := range []message.Version{message.HTTP11, message.HTTP2} {
			t.Run(fmt.Sprintf("%v to %v", front, back), func(t *testing.T) {
				open := through(t, front, back, origin(t))
				t.Run("bodies", func(t *testing.T) { bodies(t, open) })
				t.Run("trailers", func(t *testing.T) { trailers(t, open) })
				t.Run("hints", func(t *testing.T) { hints(t, open) })
				t.Run("HEAD and 204", func(t *testing.T) { bodiless(t, open) })
				t.Run("cookies", func(t *testing.T) { cookies(t, open) })
				t.Run("upgrade", func(t *testing.T) { upgrade(t, open) })
			})
		}
	}
}

func request(method, path string, length int64) *message.Request {
	return &message.Request{Method: method, Scheme: "http", Authority: "a.example:80", Path: path, ContentLength: length}
}

func bodies(t *testing.T, open func() ClientStream) {
	for _, size := range []int{0, 1, 100, 16 << 10, 1 << 20} {
		for _, length := range []int64{int64(size), message.Unknown} {
			body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
			s := open()
			if err := s.Send(request("POST", "/", length), false); err != nil {
				t.Fatal(err)
			}
			var sending sync.WaitGroup
			sending.Go(func() {
				for rest := body; rest != ""; {
					n := min(len(rest), 7000)
					if _, err := s.Write([]byte(rest[:n])); err != nil {
						t.Error(err)
						return
					}
					rest = rest[n:]
				}
				if err := s.Finish(nil); err != nil {
					t.Error(err)
				}
			})
			r, err := s.Response()
			if err != nil || r.Status != 200 || r.Fields.Get("x-method") != "POST" {
				t.Fatalf("%+v, %v", r, err)
			}
			got, err := readAll(s)
			sending.Wait()
			s.Close()
			if err != nil || got != body {
				t.Fatalf("%d bytes of %d came back: %v", len(got), size, err)
			}
		}
	}
}

func trailers(t *testing.T, open func() ClientStream) {
	s := open()
	defer s.Close()
	r := request("POST", "/", message.Unknown)
	r.Fields.Add("te", "trailers")
	if err := s.Send(r, false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(message.Fields{{Name: "grpc-status", Value: "0"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Response(); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(s); err != nil || got != "abc" || s.Trailers().Get("grpc-status") != "0" {
		t.Errorf("%q, %v, %v", got, s.Trailers(), err)
	}
}

func hints(t *testing.T, open func() ClientStream) {
	s := open()
	defer s.Close()
	if err := s.Send(request("GET", "/hints", 0), true); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Response(); err != nil || r.Status != 103 || r.Fields.Get("link") != "x" {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := s.Response(); err != nil || r.Status != 200 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got, err := readAll(s); err != nil || got != "" {
		t.Errorf("%q, %v", got, err)
	}
}

func bodiless(t *testing.T, open func() ClientStream) {
	for _, test := range []struct {
		method, path string
		status       int
	}{{"HEAD", "/", 200}, {"GET", "/204", 204}, {"GET", "/", 200}} {
		s := open()
		if err := s.Send(request(test.method, test.path, 0), true); err != nil {
			t.Fatal(err)
		}
		r, err := s.Response()
		if err != nil || r.Status != test.status {
			t.Fatalf("%s %s: %+v, %v", test.method, test.path, r, err)
		}
		if got, err := readAll(s); err != nil || got != "" {
			t.Errorf("%s %s: %q, %v", test.method, test.path, got, err)
		}
		s.Close()
	}
}

func cookies(t *testing.T, open func() ClientStream) {
	s := open()
	defer s.Close()
	r := request("GET", "/cookie", 0)
	r.Fields.Add("cookie", "a=b; c=d")
	if err := s.Send(r, true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Response(); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(s); err != nil || got != "a=b; c=d" {
		t.Errorf("%q, %v", got, err)
	}
}

func upgrade(t *testing.T, open func() ClientStream) {
	s := open()
	defer s.Close()
	r := request("GET", "/", 0)
	r.Upgrade = "websocket"
	if err := s.Send(r, false); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Response(); err != nil || r.Status != 101 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, text := range []string{"hello", "again"} {
		if _, err := s.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		got := ""
		for len(got) < len(text) {
			b, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			got += string(b)
		}
		if got != text {
			t.Fatalf("got %q", got)
		}
	}
	if err := s.Finish(nil); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(s); err != nil || got != "" {
		t.Errorf("at the end: %q, %v", got, err)
	}
}

// A response overtakes a request's body, and the proxy's client sees it.
func TestEarlyResponse(t *testing.T) {
	for _, back := range []message.Version{message.HTTP11, message.HTTP2} {
		t.Run(back.String(), func(t *testing.T) {
			open := openClient(t, back, origin(t))
			s := open()
			defer s.Close()
			if err := s.Send(request("POST", "/early", message.Unknown), false); err != nil {
				t.Fatal(err)
			}
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			if r, err := s.Response(); err != nil || r.Status != 413 {
				t.Fatalf("%+v, %v", r, err)
			}
			if got, err := readAll(s); err != nil || got != "large" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// Requests one after the other in pieces of any size are answered in order.
func TestPipelinesInPieces(t *testing.T) {
	const count = 10_000
	var all strings.Builder
	for i := range count {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&all, "GET /%d HTTP/1.1\r\nHost: a\r\nX-Padding: %s\r\n\r\n", i, strings.Repeat("x", i%97))
		case 1:
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", i, i%50, strings.Repeat("y", i%50))
		default:
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", i, i%50+1, strings.Repeat("z", i%50+1))
		}
	}
	for _, piece := range []int{1, 7, 1460, 1 << 30} {
		t.Run(fmt.Sprint(piece), func(t *testing.T) {
			n := count
			text := all.String()
			if piece == 1 {
				n = 300
				text = text[:strings.Index(text, fmt.Sprintf(" /%d ", n))-3]
			}
			client, server := loopback.Pair(t)
			_ = client.SetDeadline(time.Now().Add(60 * time.Second))
			go func() { _ = ServeHTTP1(pieces{TCPConn{TCPConn: server}, piece}, Options{}, echo) }()
			go func() { _, _ = io.WriteString(client, text) }()
			r := bufio.NewReader(client)
			for i := range n {
				_, got := response(t, r, "GET")
				want := fmt.Sprintf("GET a/%d ", i)
				switch i % 3 {
				case 1:
					want = fmt.Sprintf("POST a/%d %s", i, strings.Repeat("y", i%50))
				case 2:
					want = fmt.Sprintf("POST a/%d %s", i, strings.Repeat("z", i%50+1))
				}
				if got != want {
					t.Fatalf("answer %d is %q, want %q", i, got, want)
				}
			}
		})
	}
}

// pieces is a connection that gives no more than so many bytes at once.
type pieces struct {
	Conn
	n int
}

func (p pieces) Read(b []byte) (int, error) { return p.Conn.Read(b[:min(len(b), p.n)]) }

var _ net.Conn = pieces{}
