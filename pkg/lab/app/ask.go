package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// errWrongAnswer means that an echo server sent something else back.
var errWrongAnswer = errors.New("the server sent other bytes back")

// statusError is an HTTP status that is no success.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("status %d", int(s)) }

func askHTTP(o loadOptions) asker {
	c := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: !o.keepAlive, MaxIdleConnsPerHost: o.concurrency, DisableCompression: true,
	}}
	return func(ctx context.Context) (int64, string, error) {
		method, body := http.MethodGet, io.Reader(nil)
		if o.bytes > 0 {
			method, body = http.MethodPost, io.LimitReader(zeros{}, o.bytes)
		}
		req, err := http.NewRequestWithContext(ctx, method, o.url, body)
		if err != nil {
			return 0, "", err
		}
		req.ContentLength, req.Header = o.bytes, http.Header(o.headers).Clone()
		req.Host = req.Header.Get("Host")
		res, err := c.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		var head prefix
		sink := io.Discard
		if o.count != nil {
			sink = &head
		}
		n, err := io.Copy(sink, res.Body)
		if err == nil && res.StatusCode >= http.StatusBadRequest {
			err = statusError(res.StatusCode)
		}
		kind := ""
		if o.count != nil && err == nil {
			if m := o.count.FindSubmatch(head.bytes); m != nil {
				kind = string(m[1])
			}
		}
		return n, kind, err
	}
}

// prefix keeps the beginning of what is written to it.
type prefix struct{ bytes []byte }

// maxPrefix is as far as --count looks into an answer.
const maxPrefix = 16 << 10

func (p *prefix) Write(b []byte) (int, error) {
	p.bytes = append(p.bytes, b[:min(len(b), maxPrefix-len(p.bytes))]...)
	return len(b), nil
}

// askTCP sends bytes to an echo server and wants exactly them back. Connections
// are used again only with --keep-alive.
func askTCP(host string, size int64, o loadOptions) asker {
	idle := make(chan net.Conn, o.concurrency)
	var d net.Dialer
	return func(ctx context.Context) (int64, string, error) {
		var c net.Conn
		select {
		case c = <-idle:
		default:
			var err error
			if c, err = d.DialContext(ctx, "tcp", host); err != nil {
				return 0, "", err
			}
		}
		n, err := exchange(ctx, c, size, !o.keepAlive)
		if err == nil && o.keepAlive {
			idle <- c
			return n, "", nil
		}
		_ = c.Close()
		return n, "", err
	}
}

// pattern is what is sent over and over. It begins like no HTTP method.
var pattern = []byte("echo 0123456789 abcdefghijklmnopqrstuvwxyz\n")

func exchange(ctx context.Context, c net.Conn, size int64, last bool) (int64, error) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
		defer func() { _ = c.SetDeadline(time.Time{}) }()
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(c, &repeated{pattern: pattern}, size)
		if err == nil && last {
			err = c.(*net.TCPConn).CloseWrite()
		}
		sent <- err
	}()
	n, err := compare(c, size)
	if err == nil && last {
		var more [1]byte
		if k, end := c.Read(more[:]); k > 0 {
			err = errWrongAnswer
		} else if !errors.Is(end, io.EOF) {
			err = end
		}
	}
	if err != nil {
		_ = c.Close() // ends the sender
		<-sent
		return n, err
	}
	return n, <-sent
}

// compare reads size bytes and holds them against the pattern.
func compare(r io.Reader, size int64) (int64, error) {
	want := &repeated{pattern: pattern}
	got, expected := make([]byte, 32<<10), make([]byte, 32<<10)
	var n int64
	for n < size {
		k, err := r.Read(got[:min(int64(len(got)), size-n)])
		_, _ = io.ReadFull(want, expected[:k])
		if !bytes.Equal(got[:k], expected[:k]) {
			return n, errWrongAnswer
		}
		n += int64(k)
		if err != nil && n < size {
			return n, err
		}
	}
	return n, nil
}

// repeated is a pattern without end.
type repeated struct {
	pattern []byte
	at      int
}

func (r *repeated) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.pattern[r.at]
		r.at = (r.at + 1) % len(r.pattern)
	}
	return len(p), nil
}
