package h2

import (
	"bytes"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"testing"
)

// serveHTTP answers GETs with a body and echoes what else it is sent, as other
// implementations' clients ask.
func serveHTTP(t *testing.T, body []byte) (address string) {
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
			go func() {
				_ = Server(c, Config{}, func(s *Stream) {
					get := slices.Contains(s.Fields(), Field{":method", "GET"})
					if err := s.Respond([]Field{{":status", "200"}}, false); err != nil {
						return
					}
					if get {
						_, _ = s.Write(body)
					} else {
						buf := make([]byte, 10_000)
						for {
							n, err := s.Read(buf)
							if n > 0 {
								if _, err := s.Write(buf[:n]); err != nil {
									return
								}
							}
							if err != nil {
								break
							}
						}
					}
					_ = s.CloseWrite()
				}, nil)
			}()
		}
	}()
	return l.Addr().String()
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
	got, err := exec.Command("curl", "-sS", "-m", "60", "--http2-prior-knowledge", "http://"+address+"/").Output()
	if err != nil || !bytes.Equal(got, body) {
		t.Fatalf("GET: %d bytes, %v", len(got), err)
	}
	post := exec.Command("curl", "-sS", "-m", "60", "--http2-prior-knowledge", "--data-binary", "@-", "http://"+address+"/")
	post.Stdin = bytes.NewReader(body)
	if got, err = post.Output(); err != nil || !bytes.Equal(got, body) {
		t.Fatalf("POST: %d bytes, %v", len(got), err)
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
