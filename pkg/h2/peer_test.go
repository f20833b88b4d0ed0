package h2

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/test/loopback"
)

// serve takes connections until the end of the test.
func serve(t testing.TB, config Config, handler func(*Stream)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = Server(c, config, handler, nil) }()
		}
	}()
	return l.Addr().String()
}

// serveHTTP answers GETs with a body and echoes what else it is sent, as other
// implementations' clients ask.
func serveHTTP(t *testing.T, body []byte) (address string) {
	return serve(t, Config{}, func(s *Stream) {
		get := slices.Contains(s.Fields(), Field{Name: ":method", Value: "GET"})
		if err := s.Respond([]Field{{Name: ":status", Value: "200"}}, 0); err != nil {
			return
		}
		if get {
			_, _ = s.Write(body)
		} else {
			_, _ = io.Copy(s, s)
		}
		_ = s.CloseWrite()
	})
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("no %s here; test/setup.sh installs it", program)
	}
}

// curl (nghttp2) gets a body larger than its windows, and gets back what it posts.
func TestCurl(t *testing.T) {
	need(t, "curl")
	body := data(3 << 20)
	address := serveHTTP(t, body)
	for _, args := range [][]string{{}, {"--data-binary", "@-"}} {
		var said bytes.Buffer
		curl := exec.Command("curl", append([]string{"-sS", "-m", "60", "--http2-prior-knowledge", "http://" + address + "/"}, args...)...)
		curl.Stdin, curl.Stderr = bytes.NewReader(body), &said
		if got, err := curl.Output(); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%v: %d bytes, %v: %s", args, len(got), err, &said)
		}
	}
}

// h2load (nghttp2) keeps many streams open on several connections: each request
// is answered.
func TestH2load(t *testing.T) {
	need(t, "h2load")
	address := serveHTTP(t, data(1000))
	out, err := exec.Command("h2load", "-n", "20000", "-c", "4", "-m", "100", "http://"+address+"/").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := regexp.MustCompile(`(\d+) succeeded, (\d+) failed, (\d+) errored`).FindStringSubmatch(string(out))
	if m == nil || m[1] != "20000" || m[2] != "0" || m[3] != "0" {
		t.Errorf("%s", out)
	}
	if !regexp.MustCompile(`\(20000000\) data`).Match(out) {
		t.Errorf("not all of the bodies: %s", out)
	}
}

// The peers that nobody here wrote: x/net's client and server.
func TestAgainstXNetClient(t *testing.T) {
	a, b := loopback.Pair(t)
	go func() {
		_ = Server(b, Config{}, func(s *Stream) {
			_ = s.Respond([]Field{{Name: ":status", Value: "200"}, {Name: "x-seen", Value: s.Fields()[0].Value}}, 0)
			_, _ = io.Copy(s, s)
			_ = s.CloseWrite()
		}, nil)
	}()
	transport := &http2.Transport{AllowHTTP: true}
	cc, err := transport.NewClientConn(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, 1 << 10, 5 << 20} {
		request, _ := http.NewRequestWithContext(t.Context(), "POST", "http://x/", bytes.NewReader(data(size)))
		response, err := cc.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || !bytes.Equal(body, data(size)) || response.StatusCode != 200 {
			t.Errorf("%d bytes: status %d, %d came back, %v", size, response.StatusCode, len(body), err)
		}
	}
}

func TestAgainstXNetServer(t *testing.T) {
	a, b := loopback.Pair(t)
	go (&http2.Server{}).ServeConn(b, &http2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "CONNECT" {
			w.WriteHeader(400)
			return
		}
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		_, _ = io.Copy(w, r.Body)
	})})
	c, err := Client(a, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 20 {
		s, err := c.Open(connect, 0)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if f, err := s.Response(ctx); err != nil || f[0].Value != "200" {
			t.Fatalf("response %v, %v", f, err)
		}
		go func() {
			_, _ = s.Write(data(1 << 20))
			_ = s.CloseWrite()
		}()
		if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, data(1<<20)) {
			t.Fatalf("%d bytes came back, %v", len(got), err)
		}
	}
}

// An x/net server's informational responses, bodies and trailers reach our client,
// and its request's trailers the server.
func TestExchangeWithXNetServer(t *testing.T) {
	a, b := loopback.Pair(t)
	go (&http2.Server{}).ServeConn(b, &http2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Sum")
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusCreated)
		if r.Method != http.MethodHead {
			_, _ = w.Write(body)
		}
		w.Header().Set("X-Sum", r.Trailer.Get("X-Seen"))
	})})
	c, err := Client(a, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, method := range []string{"POST", "HEAD"} {
		for _, size := range []int{1, 3 << 20} {
			list := get("trailer", "x-seen")
			list[0].Value = method
			s := mustOpen(t, c, list, 0)
			if err := s.Send(data(size), More); err != nil {
				t.Fatal(err)
			}
			if err := s.Finish(fields("x-seen", "7")); err != nil {
				t.Fatal(err)
			}
			mustHead(t, s, "103")
			mustHead(t, s, "201")
			want, trailers := data(size), fields("x-sum", "7")
			if method == "HEAD" {
				want, trailers = nil, nil
			}
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s of %d: %d bytes came back, %v", method, size, len(got), err)
			}
			if !slices.Equal(s.Trailers(), trailers) {
				t.Errorf("%s of %d: trailers %v", method, size, s.Trailers())
			}
		}
	}
}
