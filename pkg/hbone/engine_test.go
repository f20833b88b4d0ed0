package hbone

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// BenchmarkEngine compares the tunnel with the same tunnel made of
// golang.org/x/net/http2: an application's socket, a client end, TLS, a server
// end, another socket, and back. What counts is cpu-ns/op, of the whole process.
func BenchmarkEngine(b *testing.B) {
	for _, load := range []struct {
		name string
		size int
	}{{"pingpong-128B", 128}, {"bulk-64KiB", 64 << 10}} {
		for _, engine := range []struct {
			name    string
			connect func(testing.TB) net.Conn
		}{{"fairlead", ourTunnel}, {"xnet", xnetTunnel}} {
			b.Run(load.name+"/"+engine.name, func(b *testing.B) {
				exchange(b, engine.connect(b), load.size, load.size > 4096)
			})
		}
	}
}

// exchange sends b.N messages and reads their echoes, one by one or as a stream.
func exchange(b *testing.B, c net.Conn, size int, stream bool) {
	b.Helper()
	out, in := make([]byte, size), make([]byte, size)
	once := func() {
		if _, err := c.Write(out); err != nil {
			b.Error(err)
		}
	}
	once()
	if _, err := io.ReadFull(c, in); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(2 * size))
	b.ReportAllocs()
	before := cpu(b)
	b.ResetTimer()
	if stream {
		go func() {
			for range b.N {
				once()
			}
		}()
	}
	for range b.N {
		if !stream {
			once()
		}
		if _, err := io.ReadFull(c, in); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
	_ = c.Close()
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func ourTunnel(t testing.TB) net.Conn {
	c, err := newRig(t).connect(t)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// xnetTunnel is what one writes with the library: a pipe for the request's body,
// and io.Copy.
func xnetTunnel(t testing.TB) net.Conn {
	r := newRig(t) // for its certificates
	echo := listen(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	server := &http2.Server{MaxConcurrentStreams: 1000, MaxReadFrameSize: 1 << 20, MaxUploadBufferPerConnection: 16 << 20, MaxUploadBufferPerStream: 4 << 20}
	tunnels := listen(t, func(c net.Conn) {
		secured := tls.Server(c, r.manager.ServerTLS(bob))
		if err := secured.Handshake(); err != nil {
			t.Error(err)
			return
		}
		server.ServeConn(secured, &http2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			app, err := net.Dial("tcp", echo)
			if err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			defer app.Close()
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			go func() {
				_, _ = io.Copy(app, q.Body)
				_ = app.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(flushed{w, w.(http.Flusher)}, app)
		})})
	})
	conn, err := tls.Dial("tcp", tunnels, r.manager.ClientTLS(alice, []string{bob.String()}))
	if err != nil {
		t.Fatal(err)
	}
	client, err := (&http2.Transport{MaxReadFrameSize: 1 << 20}).NewClientConn(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	app := listen(t, func(c net.Conn) {
		body, end := io.Pipe()
		q := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Scheme: "https", Host: "10.0.0.1:80"}, Host: "10.0.0.1:80", Header: http.Header{}, Body: body}).WithContext(context.Background())
		answer, err := client.RoundTrip(q)
		if err != nil {
			t.Error(err)
			return
		}
		defer answer.Body.Close()
		go func() {
			_, _ = io.Copy(end, c)
			_ = end.Close()
		}()
		_, _ = io.Copy(c, answer.Body)
	})
	c, err := net.Dial("tcp", app)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// flushed sends what is written at once.
type flushed struct {
	io.Writer
	http.Flusher
}

func (f flushed) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	f.Flush()
	return n, err
}

// listen serves connections until the end of the test.
func listen(t testing.TB, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}
