package codec

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// script is a connection whose peer has sent all that it will, in pieces.
type script struct {
	in    []byte
	piece int
	out   bytes.Buffer
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), s.piece)], s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(b []byte) (int, error)      { return s.out.Write(b) }
func (s *script) Close() error                     { return nil }
func (s *script) CloseWrite() error                { return nil }
func (s *script) Abort()                           {}
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// seen is what a server makes of a connection: a line for each request.
func seen(in []byte, piece int) (requests []string, out []byte) {
	c := &script{in: bytes.Clone(in), piece: piece}
	_ = ServeHTTP1(c, Options{}, func(e Exchange) {
		body, err := readAll(e)
		if err != nil {
			return
		}
		r := e.Request()
		requests = append(requests, fmt.Sprintf("%s %q %q", r.Method, r.Authority, body))
		_ = e.Respond(&message.Response{Status: 200}, true)
	})
	return requests, c.out.Bytes()
}

// A client cannot make us see other requests than net/http sees in the same bytes:
// whatever we take for a request, in whatever pieces it came, is one to it.
func FuzzConnection(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(seed), uint8(0))
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		ours, out := seen(in, 1<<20)
		inPieces, out2 := seen(in, int(piece)+1)
		if fmt.Sprint(ours) != fmt.Sprint(inPieces) || !bytes.Equal(withoutContinue(out), withoutContinue(out2)) {
			t.Fatalf("%q: at once %q %q, in pieces of %d %q %q", in, ours, out, piece+1, inPieces, out2)
		}
		r := bufio.NewReader(bytes.NewReader(in))
		for i, request := range ours {
			for {
				b, err := r.Peek(2)
				if err != nil || string(b) != "\r\n" {
					break
				}
				_, _ = r.Discard(2)
			}
			theirs, err := http.ReadRequest(r)
			var body []byte
			if err == nil {
				body, err = io.ReadAll(theirs.Body)
			}
			if err != nil {
				if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
					t.Fatalf("%q: request %d is cut short to net/http: %v; we see %q", in, i, err, ours)
				}
				return // pkg/h1 has the differences for single requests
			}
			if want := fmt.Sprintf("%s %q %q", theirs.Method, theirs.Host, body); want != request {
				t.Fatalf("%q: request %d is %s to net/http, %s to us", in, i, want, request)
			}
		}
	})
}

// withoutContinue is what was answered: whether a client is told to continue depends
// on what of its body is there.
func withoutContinue(out []byte) []byte {
	return bytes.ReplaceAll(out, []byte("HTTP/1.1 100 Continue\r\n\r\n"), nil)
}
