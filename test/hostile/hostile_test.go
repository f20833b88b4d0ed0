package hostile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// All of it, against one process, with a neighbour.
func TestHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("it opens ten thousand connections")
	}
	server, smuggled := upstream(t)
	w := start(t, "AUTO", server)
	stop := w.neighbour()
	for _, attack := range []struct {
		name string
		run  func(*testing.T, *waypoint)
	}{
		{"malformed requests", malformed}, {"header bombs", headerBombs}, {"servers that misbehave", servers},
		{"HTTP/2 floods", floods}, {"clients that do not read", slowReaders}, {"bodies kept for retries", keptBodies}, {"bodies that no server reads", unreadBodies}, {"slow heads", slowHeads},
	} {
		t.Run(attack.name, func(t *testing.T) {
			begun := time.Now()
			attack.run(t, w)
			now, most := w.memory()
			t.Logf("%v, %d MiB resident, %d MiB at most", time.Since(begun).Round(time.Millisecond), now>>20, most>>20)
			if most > mostMemory {
				t.Errorf("%d MiB of memory; the bound is %d MiB", most>>20, mostMemory>>20)
			}
		})
	}
	answered, slowest, failures := stop()
	t.Logf("the neighbour was answered %d times, after %v at most", answered, slowest)
	if slowest > 20*time.Second {
		t.Errorf("the neighbour waited %v for an answer", slowest)
	}
	if len(failures) > 0 || answered < 100 {
		t.Errorf("the neighbour was answered %d times, and failed %d times: %.2000v", answered, len(failures), failures)
	}
	if n := smuggled.Load(); n > 0 {
		t.Errorf("%d requests were smuggled", n)
	}
}

// malformed requests are refused, or their connection ends; none is passed on in a form
// that a server may read otherwise (RFC 9112).
func malformed(t *testing.T, w *waypoint) {
	smuggle := "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
	long := strings.Repeat("9", 30)
	for _, request := range []string{
		"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcd" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4, 5\r\n\r\nabcd" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +4\r\n\r\nabcd" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x4\r\n\r\nabcd" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: " + long + "\r\n\r\n" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 4\r\n\r\nabcd" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + smuggle,
		"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello\r\n0\r\n\r\n" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n" + smuggle,
		"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n" + smuggle,
		"GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n  x-smuggled: folded\r\n\r\n",
		"GET / HTTP/1.1\r\n x-smuggled: 1\r\nhost: a\r\n\r\n",
		"GET / HTTP/1.1\nhost: a\n\n" + smuggle,
		"GET / HTTP/1.1\r\nhost: a\nx-smuggled: 1\r\n\r\n",
		"GET / HTTP/1.1\r\nhost: a\rx-smuggled: 1\r\n\r\n",
		"GET / HTTP/1.1\r\nhost: a\r\nx: a\x00x-smuggled: 1\r\n\r\n",
		"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
		"GET / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
		"GET / HTTP/1.1\r\nhost: a\r\n: nameless\r\n\r\n",
		"GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n",
		"GET / HTTP/1.1\r\nhost: a\r\nx y: 1\r\n\r\n",
		"GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
		"GET / HTTP/1.1 \r\nhost: a\r\n\r\n",
		"GET / x HTTP/1.1\r\nhost: a\r\n\r\n",
		"GET /\x7f HTTP/1.1\r\nhost: a\r\n\r\n",
		"GET / HTTP/2.0\r\nhost: a\r\n\r\n",
		"GET / HTTP/1.2x\r\nhost: a\r\n\r\n",
		"GET / http/1.1\r\nhost: a\r\n\r\n",
		"GET /\r\n\r\n",
		"G(T / HTTP/1.1\r\nhost: a\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"SSH-2.0-OpenSSH_9.9\r\n",
		"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
		"GET http:// HTTP/1.1\r\nhost: a\r\n\r\n",
		"CONNECT a HTTP/1.1\r\nhost: a\r\n\r\n",
	} {
		statuses, ended := say(t, w, request)
		for _, s := range statuses {
			if s < 400 {
				t.Errorf("%.120q is answered with %v", request, statuses)
			}
		}
		if !ended && len(statuses) == 0 {
			t.Errorf("%.120q: neither an answer nor an end", request)
		}
	}
}

// say sends bytes, ends, and returns the statuses of what is answered.
func say(t *testing.T, w *waypoint, request string) (statuses []int, ended bool) {
	t.Helper()
	c, err := w.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() { _, _ = io.WriteString(c, request) }()
	in := bufio.NewReader(c)
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			var ne net.Error
			return statuses, !errors.As(err, &ne) || !ne.Timeout()
		}
		statuses = append(statuses, r.StatusCode)
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
		if r.StatusCode >= 400 {
			return statuses, true
		}
	}
}

func headerBombs(t *testing.T, w *waypoint) {
	for name, request := range map[string]string{
		"one huge field": "GET / HTTP/1.1\r\nhost: a\r\nx: " + strings.Repeat("x", 8<<20) + "\r\n\r\n",
		"many fields":    "GET / HTTP/1.1\r\nhost: a\r\n" + strings.Repeat("x: 1\r\n", 100_000) + "\r\n",
		"a huge target":  "GET /" + strings.Repeat("x", 8<<20) + " HTTP/1.1\r\nhost: a\r\n\r\n",
		"a huge method":  strings.Repeat("X", 8<<20) + " / HTTP/1.1\r\nhost: a\r\n\r\n",
		"huge trailers":  "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("x: 1\r\n", 200_000) + "\r\n",
		"a huge chunk extension": "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;" +
			strings.Repeat("x", 8<<20) + "\r\nx\r\n0\r\n\r\n",
	} {
		if statuses, ended := say(t, w, request); !ended || slices.ContainsFunc(statuses, func(s int) bool { return s < 400 }) {
			t.Errorf("%s: %v, ended %t", name, statuses, ended)
		}
	}
}

// servers that break the protocol make 502 or 503, or an end where the answer had begun.
func servers(t *testing.T, w *waypoint) {
	for _, path := range []string{"/garbage", "/huge-head", "/many-fields", "/endless-informs", "/two-lengths", "/both-lengths", "/half-head", "/nothing"} {
		statuses, ended := say(t, w, "GET "+path+" HTTP/1.1\r\nhost: a\r\n\r\n")
		statuses = slices.DeleteFunc(statuses, func(s int) bool { return s == 103 })
		if !ended || len(statuses) > 1 || len(statuses) == 1 && statuses[0] != 502 && statuses[0] != 503 {
			t.Errorf("%s: %v, ended %t", path, statuses, ended)
		}
	}
}

// floods are those of HTTP/2. Each has its connection end.
func floods(t *testing.T, w *waypoint) {
	block := func(fields ...string) []byte {
		var b bytes.Buffer
		e := hpack.NewEncoder(&b)
		for _, f := range append([]string{":method=GET", ":scheme=http", ":path=/", ":authority=a"}, fields...) {
			name, value, _ := strings.Cut(f[1:], "=")
			_ = e.WriteField(hpack.HeaderField{Name: f[:1] + name, Value: value})
		}
		return b.Bytes()
	}
	get := block()
	for name, next := range map[string]func(f *http2.Framer, i int) error{
		"rapid reset": func(f *http2.Framer, i int) error {
			id := uint32(2*i + 1)
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: get, EndHeaders: true, EndStream: true}); err != nil {
				return err
			}
			return f.WriteRSTStream(id, http2.ErrCodeCancel)
		},
		"CONTINUATION": func(f *http2.Framer, i int) error {
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get})
			}
			return f.WriteContinuation(1, false, block("x="+strings.Repeat("x", 1000)))
		},
		"empty CONTINUATION": func(f *http2.Framer, i int) error {
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get})
			}
			return f.WriteContinuation(1, false, nil)
		},
		"SETTINGS": func(f *http2.Framer, _ int) error { return f.WriteSettings() },
		"PING":     func(f *http2.Framer, _ int) error { return f.WritePing(false, [8]byte{}) },
		"PRIORITY": func(f *http2.Framer, i int) error {
			return f.WritePriority(uint32(2*i+1), http2.PriorityParam{StreamDep: 0, Weight: 1})
		},
		"empty DATA": func(f *http2.Framer, i int) error {
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get, EndHeaders: true})
			}
			return f.WriteData(1, false, nil)
		},
		"WINDOW_UPDATE": func(f *http2.Framer, i int) error {
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get, EndHeaders: true})
			}
			return f.WriteWindowUpdate(1, 1)
		},
		"unknown frames": func(f *http2.Framer, _ int) error { return f.WriteRawFrame(0x42, 0, 0, []byte("x")) },
		"HPACK bomb": func(f *http2.Framer, i int) error {
			if i == 0 { // 4,000 bytes into the table
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block("x=" + strings.Repeat("x", 3900)), EndHeaders: true, EndStream: true})
			}
			// and 10,000 times out of it
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: append(block(), bytes.Repeat([]byte{0x80 | 62}, 10_000)...), EndHeaders: true, EndStream: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := w.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ended := make(chan struct{})
			go func() { // what it says is not of interest, its end is
				defer close(ended)
				_, _ = io.Copy(io.Discard, c)
			}()
			out := bufio.NewWriterSize(c, 1<<16)
			_, _ = out.WriteString(http2.ClientPreface)
			f := http2.NewFramer(out, nil)
			f.AllowIllegalWrites = true
			_ = f.WriteSettings()
			for i := range 200_000 {
				if next(f, i) != nil {
					break
				}
			}
			_ = out.Flush()
			select {
			case <-ended:
			case <-time.After(patience):
				t.Error("it goes on")
			}
		})
	}
}

// slowReaders ask for bodies without an end and read nothing of them, until they are
// let go; others read a part and leave.
func slowReaders(t *testing.T, w *waypoint) {
	ask := func() *net.TCPConn {
		c, err := w.dial()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
		return c
	}
	for range 200 {
		defer ask().Close()
	}
	for range 50 {
		c := ask()
		if _, err := io.CopyN(io.Discard, c, 4<<20); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	now, _ := w.memory()
	t.Logf("%d MiB with 200 of them", now>>20)
	w.until("servers are let go of by clients that do not read", func() bool { return endless.Load() == 0 })
}

// keptBodies are requests that may be tried again, each with nearly as much of a body as
// is kept of one, and no end. Together they are more than the bound.
func keptBodies(t *testing.T, w *waypoint) {
	const count, size = 800, 1<<20 - 1
	body := strings.Repeat("x", size)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range count / 8 {
				c, err := w.dial()
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { c.Close() })
				if _, err := fmt.Fprintf(c, "POST /kept HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s", 2*size, body); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	now, _ := w.memory()
	t.Logf("%d MiB with all of them", now>>20)
}

// unreadBodies are clients of HTTP/2 that send as much as they may, on all of their
// streams, to a server that reads none of it.
func unreadBodies(t *testing.T, w *waypoint) {
	const count, streams = 24, 150 // as many requests as the cluster takes
	defer close(unstick)
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, f := range []string{":method=POST", ":scheme=http", ":path=/stuck", ":authority=a"} {
		name, value, _ := strings.Cut(f[1:], "=")
		_ = e.WriteField(hpack.HeaderField{Name: f[:1] + name, Value: value})
	}
	body := make([]byte, 16<<10)
	var wait sync.WaitGroup
	for range count {
		c, err := w.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		wait.Go(func() {
			_ = c.SetDeadline(time.Now().Add(6 * time.Second))
			if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
				t.Error(err)
			}
			f := http2.NewFramer(c, c)
			_ = f.WriteSettings()
			window, open := windows{conn: 65535, stream: 65535, streams: map[uint32]int{}}, uint32(0)
			for {
				for ; open < streams; open++ {
					id := 2*open + 1
					_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true})
					window.streams[id] = 0
				}
				for id, sent := range window.streams {
					for window.conn >= len(body) && sent+len(body) <= window.stream {
						if f.WriteData(id, false, body) != nil {
							return
						}
						window.conn -= len(body)
						sent += len(body)
					}
					window.streams[id] = sent
				}
				frame, err := f.ReadFrame()
				if err != nil {
					return // it is silent: no window is left
				}
				window.learn(frame)
			}
		})
	}
	wait.Wait()
	now, _ := w.memory()
	t.Logf("%d MiB with all of them, %d requests stuck", now>>20, stuck.Load())
}

// windows are what a client of HTTP/2 may send.
type windows struct {
	conn, stream int // bytes; stream is what each may have at first
	streams      map[uint32]int
}

func (w *windows) learn(f http2.Frame) {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			w.stream = int(v)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			w.conn += int(f.Increment)
		} else {
			w.streams[f.StreamID] -= int(f.Increment)
		}
	case *http2.RSTStreamFrame:
		delete(w.streams, f.StreamID)
	}
}

// slowHeads are ten thousand connections, each of which has sent half a head. They get
// 408 in the end.
func slowHeads(t *testing.T, w *waypoint) {
	const count = 10_000
	conns := make([]net.Conn, count)
	var wait sync.WaitGroup
	for part := range 8 {
		wait.Go(func() {
			for i := part; i < count; i += 8 {
				c, err := w.dial()
				if err != nil {
					t.Error(err)
					return
				}
				conns[i] = c
				fmt.Fprint(c, "GET /smuggled HTTP/1.1\r\nhost: a\r\nx: ")
			}
		})
	}
	wait.Wait()
	now, _ := w.memory()
	t.Logf("%d MiB with all of them", now>>20)
	answers := map[string]int{}
	for _, c := range conns {
		if c == nil {
			continue
		}
		line, _ := bufio.NewReader(c).ReadString('\n')
		answers[strings.TrimSpace(line)]++
		c.Close()
	}
	if answers["HTTP/1.1 408 Request Timeout"] < count*9/10 {
		t.Errorf("answered with %v", answers)
	}
}
