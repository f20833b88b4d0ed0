package codec

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/test/loopback"
)

// serve runs a server over loopback and returns its client's end, and what
// ServeHTTP1 returns.
func serve(t testing.TB, o Options, h Handler) (*net.TCPConn, <-chan error) {
	t.Helper()
	client, server := loopback.Pair(t)
	done := make(chan error, 1)
	go func() { done <- ServeHTTP1(TCPConn{TCPConn: server}, o, h) }()
	_ = client.SetDeadline(time.Now().Add(20 * time.Second))
	return client, done
}

// echo answers with the request's line and its body, and passes trailers on.
func echo(e Exchange) {
	var body []byte
	for e.HasBody() {
		b, err := e.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return
		}
		body = append(body, b...)
	}
	r := e.Request()
	text := fmt.Sprintf("%s %s%s %s", r.Method, r.Authority, r.Path, body)
	if err := e.Respond(&message.Response{Status: 200, ContentLength: int64(len(text))}, false); err != nil {
		return
	}
	if _, err := e.Write([]byte(text)); err != nil {
		return
	}
	_ = e.Finish(e.Trailers())
}

func send(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// response reads one with the standard library's parser.
func response(t testing.TB, r *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestKeepAliveAndPipelining(t *testing.T) {
	c, done := serve(t, Options{}, echo)
	send(t, c, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcPOST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
	r := bufio.NewReader(c)
	for _, want := range []string{"GET a/1 ", "POST a/2 abc", "POST a/3 abc"} {
		if _, got := response(t, r, "GET"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	send(t, c, "GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	res, got := response(t, r, "GET")
	if got != "GET a/4 " || !res.Close {
		t.Errorf("got %q, close %v", got, res.Close)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after close: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("ServeHTTP1: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		name, in, status string
		is               error
	}{
		{"smuggling", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", "400 Bad Request", ErrProtocol},
		{"a large head", "GET / HTTP/1.1\r\nHost: a\r\nx: " + strings.Repeat("a", 70<<10), "431 Request Header Fields Too Large", ErrTooLarge},
		{"a bad chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "400 Bad Request", ErrProtocol},
		{"a version", "GET / HTTP/3.0\r\n\r\n", "426 Upgrade Required", ErrProtocol},
	} {
		t.Run(test.name, func(t *testing.T) {
			var told error
			c, done := serve(t, Options{Refused: func(r *Refusal) {
				told = r.Err
				r.Response.Fields.Add("server", "fairlead")
			}}, echo)
			send(t, c, test.in)
			r := bufio.NewReader(c)
			res, _ := response(t, r, "GET")
			if res.Status != test.status || !res.Close || res.Header.Get("Server") != "fairlead" {
				t.Errorf("got %s, close %v, server %q", res.Status, res.Close, res.Header.Get("Server"))
			}
			if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
				t.Errorf("after the refusal: %q, %v", rest, err)
			}
			c.Close()
			if err := <-done; !errors.Is(err, test.is) || !errors.Is(told, test.is) {
				t.Errorf("ServeHTTP1: %v, told %v", err, told)
			}
		})
	}
}

func TestSlowHead(t *testing.T) {
	var told Refusal
	o := Options{HeadTimeout: 50 * time.Millisecond, Refused: func(r *Refusal) {
		told = *r
		r.Body = "slow"
	}}
	c, done := serve(t, o, echo)
	send(t, c, "GET / HT")
	r := bufio.NewReader(c)
	if res, body := response(t, r, "GET"); res.StatusCode != 408 || body != "slow" {
		t.Errorf("status %d, body %q", res.StatusCode, body)
	}
	c.Close()
	if err := <-done; !errors.Is(err, ErrProtocol) || !errors.Is(told.Err, ErrSlowHead) || told.Began.IsZero() {
		t.Errorf("ServeHTTP1: %v, told %+v", err, told)
	}
}

// Of a client that goes away in the middle of a head is told, and of none that said
// nothing.
func TestBrokenHead(t *testing.T) {
	for in, want := range map[string]int{"GET / HT": 1, "": 0, "GET / HTTP/1.1\r\nhost: a\r\n\r\n": 0} {
		told := 0
		c, done := serve(t, Options{Refused: func(r *Refusal) {
			if told++; r.Response.Status != 0 || !errors.Is(r.Err, ErrReset) {
				t.Errorf("%q: told %+v", in, r)
			}
		}}, echo)
		send(t, c, in)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		<-done
		c.Close()
		if told != want {
			t.Errorf("%q: told %d times, want %d", in, told, want)
		}
	}
}

func TestIdleTimeout(t *testing.T) {
	c, done := serve(t, Options{IdleTimeout: 50 * time.Millisecond}, echo)
	send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	r := bufio.NewReader(c)
	response(t, r, "GET")
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("ServeHTTP1: %v", err)
	}
}

func TestContinue(t *testing.T) {
	c, _ := serve(t, Options{}, echo)
	send(t, c, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	r := bufio.NewReader(c)
	if res, _ := response(t, r, "POST"); res.StatusCode != 100 {
		t.Fatalf("status %d", res.StatusCode)
	}
	send(t, c, "abc")
	if _, got := response(t, r, "POST"); got != "POST a/ abc" {
		t.Errorf("got %q", got)
	}
}

func TestContinueIsNotSaidBeforeAnAnswer(t *testing.T) {
	c, done := serve(t, Options{}, func(e Exchange) {
		_ = e.Respond(&message.Response{Status: 413}, true)
	})
	send(t, c, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	r := bufio.NewReader(c)
	if res, _ := response(t, r, "POST"); res.StatusCode != 413 {
		t.Fatalf("status %d", res.StatusCode)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection stays open: %v", err)
	}
	c.Close()
	<-done
}

// Whether the client of an unread 100-continue sends its body cannot be known, so
// that what follows is not taken for a request.
func TestNothingIsServedBehindAnUnreadExpectation(t *testing.T) {
	c, done := serve(t, Options{}, func(e Exchange) {
		_ = e.Respond(&message.Response{Status: 413}, true)
	})
	send(t, c, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
	r := bufio.NewReader(c)
	response(t, r, "POST")
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("behind the answer: %q, %v", rest, err)
	}
	c.Close()
	<-done
}

func TestDrain(t *testing.T) {
	var drain Drain
	entered, leave := make(chan struct{}), make(chan struct{})
	busy, busyDone := serve(t, Options{Drain: &drain}, func(e Exchange) {
		close(entered)
		<-leave
		echo(e)
	})
	// Two that are idle when it begins: one asks once more before CloseIdle.
	idle, idleDone := serve(t, Options{Drain: &drain}, echo)
	late, lateDone := serve(t, Options{Drain: &drain}, echo)
	lateReader := bufio.NewReader(late)
	send(t, idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	response(t, bufio.NewReader(idle), "GET")
	send(t, late, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	response(t, lateReader, "GET")
	send(t, busy, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	drain.Begin()
	send(t, late, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if res, got := response(t, lateReader, "GET"); got != "GET a/ " || !res.Close {
		t.Errorf("idle when it began: %q, close %v", got, res.Close)
	}
	if err := <-lateDone; err != nil {
		t.Errorf("idle when it began: %v", err)
	}
	fresh, freshDone := serve(t, Options{Drain: &drain}, echo)
	send(t, fresh, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if res, got := response(t, bufio.NewReader(fresh), "GET"); got != "GET a/ " || !res.Close {
		t.Errorf("new: %q, close %v", got, res.Close)
	}
	if err := <-freshDone; err != nil {
		t.Errorf("new: %v", err)
	}
	drain.CloseIdle()
	if err := <-idleDone; err != nil {
		t.Errorf("idle: %v", err)
	}
	close(leave)
	if res, got := response(t, bufio.NewReader(busy), "GET"); got != "GET a/ " || !res.Close {
		t.Errorf("busy: %q, close %v", got, res.Close)
	}
	if err := <-busyDone; err != nil {
		t.Errorf("busy: %v", err)
	}
}

func TestResponseFraming(t *testing.T) {
	for _, test := range []struct {
		name, request string
		response      message.Response
		end           bool
		body          string
		want          string
	}{
		{"length", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", message.Response{Status: 200, ContentLength: 2}, false, "ab", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab"},
		{"no body", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", message.Response{Status: 404}, true, "", "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"},
		{"chunked", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", message.Response{Status: 200, ContentLength: -1}, false, "ab", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"},
		{"204", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", message.Response{Status: 204}, true, "", "HTTP/1.1 204 No Content\r\n\r\n"},
		{"304", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", message.Response{Status: 304, ContentLength: -1}, true, "", "HTTP/1.1 304 Not Modified\r\n\r\n"},
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", message.Response{Status: 200, ContentLength: 5}, true, "", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"},
		{"a body to HEAD goes nowhere", "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", message.Response{Status: 200, ContentLength: 2}, false, "ab", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", message.Response{Status: 200, ContentLength: 2}, false, "ab", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nab"},
		{"HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", message.Response{Status: 200, ContentLength: 2}, false, "ab", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nab"},
		{"HTTP/1.0 without a length", "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", message.Response{Status: 200, ContentLength: -1}, false, "ab", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab"},
		{"fields of the codec", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", message.Response{Status: 200, Fields: message.Fields{{Name: "content-length", Value: "9"}, {Name: "X-Y", Value: "y"}, {Name: "connection", Value: "z"}}}, true, "", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-y: y\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, _ := serve(t, Options{}, func(e Exchange) {
				if err := e.Respond(&test.response, test.end); err != nil {
					t.Error(err)
				}
				if test.body != "" {
					if _, err := e.Write([]byte(test.body)); err != nil {
						t.Error(err)
					}
				}
				if !test.end {
					if err := e.Finish(nil); err != nil {
						t.Error(err)
					}
				}
			})
			send(t, c, test.request)
			got := make([]byte, len(test.want))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != test.want {
				t.Errorf("got %q (%v), want %q", got, err, test.want)
			}
		})
	}
}

// A field that would begin another line or message is never sent.
func TestNothingIsInjected(t *testing.T) {
	for _, f := range []message.Field{{Name: "x", Value: "a\r\nb: c"}, {Name: "x\r\ny", Value: "a"}, {Name: "", Value: "a"}, {Name: "x", Value: "a\x00"}} {
		c, done := serve(t, Options{}, func(e Exchange) {
			if err := e.Respond(&message.Response{Status: 200, Fields: message.Fields{f}}, true); !errors.Is(err, ErrProtocol) {
				t.Errorf("%q: %v", f, err)
			}
		})
		send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got, _ := io.ReadAll(c); len(got) > 0 {
			t.Errorf("%q: sent %q", f, got)
		}
		<-done
	}
}
