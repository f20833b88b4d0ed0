package codec

import (
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/loopback"
)

// BenchmarkProxy is a bare proxy on loopback: an exchange carried over a client's
// connection that is kept, 16 clients at a time. Clients and origin are as bare as
// can be, and in this process: cpu-us/op "through" is of all three, "direct" of the
// two without the proxy, whose own cost is the difference.
func BenchmarkProxy(b *testing.B) {
	for _, size := range []int{0, 1 << 10} {
		b.Run(map[int]string{0: "empty", 1 << 10: "1KiB"}[size], func(b *testing.B) {
			answer := []byte("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ndate: Thu, 26 Nov 2026 12:25:03 GMT\r\nserver: origin\r\ncontent-length: " +
				map[int]string{0: "0", 1 << 10: "1024"}[size] + "\r\n\r\n" + strings.Repeat("x", size))
			origin := listen(b, func(c *net.TCPConn) { answerAll(c, answer) })
			proxy := listen(b, func(c *net.TCPConn) {
				up, err := net.Dial("tcp", origin)
				if err != nil {
					b.Error(err)
					return
				}
				upstream := NewHTTP1Client(TCPConn{TCPConn: up.(*net.TCPConn)}, Options{})
				defer upstream.Close()
				_ = ServeHTTP1(TCPConn{TCPConn: c}, Options{}, func(e Exchange) {
					if !upstream.Usable() {
						b.Error("the upstream connection is not usable")
						return
					}
					_ = carry(e, upstream.Open())
				})
			})
			b.Run("through", func(b *testing.B) { ask(b, proxy, len(answer)) })
			b.Run("direct", func(b *testing.B) { ask(b, origin, len(answer)) })
		})
	}
}

func listen(b *testing.B, serve func(*net.TCPConn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().String()
}

// answerAll answers whatever comes in one piece.
func answerAll(c *net.TCPConn, answer []byte) {
	buf := make([]byte, 4096)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

const asked = "GET /some/path?with=query HTTP/1.1\r\nHost: service.example:8080\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nX-Request-Id: 0123456789abcdef\r\n\r\n"

// ask sends b.N requests over 16 connections.
func ask(b *testing.B, addr string, size int) {
	const clients = 16
	before := cpu()
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range clients {
		n := b.N / clients
		if i < b.N%clients {
			n++
		}
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			request, answer := []byte(asked), make([]byte, size)
			for range n {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				if _, err := io.ReadFull(c, answer); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// An exchange and its client's stream allocate nothing once their connections have
// carried a few.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	far, origin := loopback.Pair(t)
	answer := []byte("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello")
	go answerAll(origin, answer)
	upstream := NewHTTP1Client(TCPConn{TCPConn: far}, Options{})
	c, _ := serve(t, Options{}, func(e Exchange) { _ = carry(e, upstream.Open()) })
	request, got := []byte(asked), make([]byte, len(answer))
	once := func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		once()
	}
	if n := testing.AllocsPerRun(2000, once); n >= 1 {
		t.Errorf("%v allocations for a request that is carried through, want none", n)
	}
}
