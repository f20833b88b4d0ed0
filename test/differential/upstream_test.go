package differential

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
)

// endpoints is how many addresses the upstream has.
const endpoints = 12

// upstream is the server behind both proxies: HTTP/1.1 and HTTP/2 without TLS on each
// of its addresses, which does as each request's field x-script says and keeps what it
// saw by x-case.
type upstream struct {
	listeners []net.Listener
	port      int

	// mu guards below.
	mu    sync.Mutex
	conns map[net.Conn]bool
	total int
	open  map[int]int // connections, by endpoint
	seen  map[string][]seen
	stray int
}

// octet keeps the addresses of runs at the same time apart. It is the first, from this one,
// that no other run's upstream has.
var octet = os.Getpid()%250 + 1

func endpointAddress(i int) string { return fmt.Sprintf("127.72.%d.%d", octet, i+1) }

func newUpstream() (*upstream, error) {
	u := &upstream{port: 20080, conns: map[net.Conn]bool{}, seen: map[string][]seen{}, open: map[int]int{}}
	for i := range endpoints {
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", endpointAddress(i), u.port))
		for others := 0; i == 0 && errors.Is(err, syscall.EADDRINUSE) && others < 250; others++ {
			octet = octet%250 + 1
			l, err = net.Listen("tcp", fmt.Sprintf("%s:%d", endpointAddress(i), u.port))
		}
		if err != nil {
			return nil, err
		}
		u.listeners = append(u.listeners, l)
		go u.accept(i, l)
	}
	return u, nil
}

func (u *upstream) close() {
	for _, l := range u.listeners {
		l.Close()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.conns {
		c.Close()
	}
}

func (u *upstream) accept(endpoint int, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		u.mu.Lock()
		u.conns[c] = true
		u.total++
		u.open[endpoint]++
		number := u.total
		u.mu.Unlock()
		go func() {
			defer func() {
				c.Close()
				u.mu.Lock()
				delete(u.conns, c)
				u.open[endpoint]--
				u.mu.Unlock()
			}()
			r := bufio.NewReader(c)
			if b, err := r.Peek(1); err == nil && b[0] == 0x16 {
				secured := tls.Server(peekedConn{c, r}, upstreamTLS())
				u.serveHTTP1(endpoint, number, secured, bufio.NewReader(secured))
				return
			}
			if b, err := r.Peek(14); err == nil && string(b) == "PRI * HTTP/2.0" {
				u.serveHTTP2(endpoint, number, c, r)
				return
			}
			u.serveHTTP1(endpoint, number, c, r)
		}()
	}
}

// peekedConn is a connection of which something was read ahead.
type peekedConn struct {
	net.Conn
	r *bufio.Reader
}

func (p peekedConn) Read(b []byte) (int, error) { return p.r.Read(b) }

// upstreamTLS is a certificate that nobody verifies.
var upstreamTLS = sync.OnceValue(func() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{identitytest.SelfSigned("upstream.test")}}
})

// note keeps a request; it returns which try of its case it is, from 0.
func (u *upstream) note(s seen, lastCase string) (key string, try int) {
	key = valueOf(s.fields, "x-case")
	if key == "" {
		key = lastCase
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if key == "" {
		u.stray++
		return "", 0
	}
	u.seen[key] = append(u.seen[key], s)
	return key, len(u.seen[key]) - 1
}

func (u *upstream) seenOf(key string) []seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]seen(nil), u.seen[key]...)
}

// requests is how many came.
func (u *upstream) requests() (n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.seen {
		n += len(s)
	}
	return n
}

// amend replaces a request by what is known of it later.
func (u *upstream) amend(key string, try int, s seen) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if try < len(u.seen[key]) {
		u.seen[key][try] = s
	}
}

func (u *upstream) serveHTTP1(endpoint, number int, c net.Conn, r *bufio.Reader) {
	last := ""
	for {
		s := seen{endpoint: endpoint, proto: "HTTP/1.1", conn: number}
		line, err := readLine(r)
		if err != nil {
			return
		}
		s.at = time.Now()
		parts := strings.SplitN(line, " ", 3)
		if len(parts) != 3 {
			s.broken = "request line " + line
			u.note(s, last)
			return
		}
		s.method, s.path, s.proto = parts[0], parts[1], parts[2]
		if s.fields, err = readFields(r); err != nil {
			s.broken = "head: " + err.Error()
		}
		s.authority = valueOf(s.fields, "host")
		key, try := u.note(s, last)
		last = key
		how, err := parseScript(valueOf(s.fields, "x-script"), try, endpoint)
		if err != nil {
			fmt.Fprintf(c, "HTTP/1.1 500 Bad Script\r\ncontent-length: %d\r\n\r\n%s", len(err.Error()), err)
			return
		}
		if strings.EqualFold(valueOf(s.fields, "expect"), "100-continue") && !how.early {
			fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		if !how.early {
			if err := u.requestBody(r, &s); err != nil {
				s.broken = "body: " + err.Error()
				u.amend(key, try, s)
				return
			}
			u.amend(key, try, s)
		}
		if !respond(c, r, s.method, how) {
			return
		}
		if how.early {
			err := u.requestBody(r, &s)
			if err != nil {
				s.broken = "body: " + err.Error()
			}
			u.amend(key, try, s)
			if err != nil {
				return
			}
		}
	}
}

func (u *upstream) requestBody(r *bufio.Reader, s *seen) (err error) {
	s.body, s.trailers, err = readBody(r, s.fields, false)
	return err
}

// abort ends a connection with a reset.
func abort(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.Close()
}

// respond does what a step says; false ends the connection.
func respond(c net.Conn, r *bufio.Reader, method string, how step) bool {
	<-time.After(how.delay)
	switch {
	case how.reset:
		abort(c)
		return false
	case how.close:
		return false
	case how.raw != "":
		_, err := io.WriteString(c, how.raw)
		return err == nil && !how.last
	case how.upgrade:
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"+headText(how.fields)+"\r\n"+how.body)
		if !how.last {
			_, _ = io.Copy(c, r)
		}
		return false
	}
	for _, n := range how.infos {
		fmt.Fprintf(c, "HTTP/1.1 %d Info\r\nx-info: %d\r\n\r\n", n, n)
	}
	head := fmt.Sprintf("HTTP/1.1 %d Some Reason\r\n%s", how.status, headText(how.fields))
	body := how.body
	chunked := how.chunked || len(how.trailers) > 0
	switch {
	case how.noLength:
	case chunked:
		head += "transfer-encoding: chunked\r\n"
		if body != "" {
			body = fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
		}
		body += "0\r\n" + headText(how.trailers) + "\r\n"
	case how.status != 204 && how.status != 304 || how.hasBody:
		head += fmt.Sprintf("content-length: %d\r\n", len(how.body))
	}
	if _, err := io.WriteString(c, head+"\r\n"); err != nil {
		return false
	}
	if method == "HEAD" || how.status == 204 || how.status == 304 {
		return !how.last
	}
	<-time.After(how.pause)
	if how.resetMid || how.closeMid {
		_, _ = io.WriteString(c, body[:len(body)/2])
		if how.resetMid {
			<-time.After(20 * time.Millisecond) // the half body is read before the reset discards it
			abort(c)
		}
		return false
	}
	_, err := io.WriteString(c, body)
	return err == nil && !how.noLength && !how.last
}

func headText(fields []field) string {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(f.Name + ": " + f.Value + "\r\n")
	}
	return b.String()
}
