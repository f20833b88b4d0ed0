package h2

import (
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// The load of both benchmarks: requests of a usual size, 16 at once on each of 8
// connections.
const (
	benchConns   = 8
	benchStreams = 16
)

var (
	benchRequest = []Field{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "reviews.default.svc.cluster.local:9080"},
		{Name: ":path", Value: "/reviews/1"}, {Name: "user-agent", Value: "bench/1"}, {Name: "accept", Value: "*/*"},
		{Name: "x-request-id", Value: ""},
	}
	benchResponse = []Field{
		{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/json"}, {Name: "content-length", Value: "1024"},
		{Name: "server", Value: "fairlead"},
	}
	benchBody = data(1024)
)

// BenchmarkRequests compares clients and servers over loopback, both in this
// process; cpu-ns/op is of both together.
func BenchmarkRequests(b *testing.B) {
	for name, p := range map[string]struct {
		serve  func(testing.TB) string
		client func(testing.TB, string) func(id string) error
	}{
		"fairlead":           {ourServer, ourClient},
		"xnet":               {xnetServer, xnetClient},
		"fairlead-server":    {ourServer, xnetClient},
		"fairlead-as-client": {xnetServer, ourClient},
	} {
		b.Run(name, func(b *testing.B) {
			address := p.serve(b)
			var group sync.WaitGroup
			var next atomic.Int64
			b.ReportAllocs()
			var clients []func(string) error
			for range benchConns {
				clients = append(clients, p.client(b, address))
			}
			b.ResetTimer()
			before := cpu(b)
			for _, once := range clients {
				for range benchStreams {
					group.Go(func() {
						for {
							n := next.Add(1)
							if n > int64(b.N) {
								return
							}
							if err := once("id-" + strconv.FormatInt(n, 10)); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
			}
			group.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkServer is the server's CPU time alone: h2load is another process.
func BenchmarkServer(b *testing.B) {
	if _, err := exec.LookPath("h2load"); err != nil {
		b.Skip("no h2load here")
	}
	for name, serve := range map[string]func(testing.TB) string{"fairlead": ourServer, "xnet": xnetServer} {
		b.Run(name, func(b *testing.B) {
			address := serve(b)
			n := max(b.N, 1000)
			b.ResetTimer()
			before := cpu(b)
			out, err := exec.Command("h2load", "-n", strconv.Itoa(n), "-c", strconv.Itoa(benchConns), "-m", strconv.Itoa(benchStreams), "http://"+address+"/reviews/1").CombinedOutput()
			if err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(n), "cpu-ns/op")
		})
	}
}

func cpu(b testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func ourServer(t testing.TB) string {
	return serve(t, Config{}, func(s *Stream) {
		_ = s.Respond(benchResponse, More)
		_ = s.Send(benchBody, End)
	})
}

func ourClient(t testing.TB, address string) func(id string) error {
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Client(nc, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return func(id string) error {
		var fields [16]Field
		n := copy(fields[:], benchRequest)
		fields[n-1].Value = id
		s, err := c.Open(fields[:n], End)
		if err != nil {
			return err
		}
		if _, err := s.Head(); err != nil {
			return err
		}
		for {
			if _, err := s.Next(); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
}

func xnetServer(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	server := &http2.Server{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, f := range benchResponse[1:] {
			w.Header().Set(f.Name, f.Value)
		}
		_, _ = w.Write(benchBody)
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go server.ServeConn(c, &http2.ServeConnOpts{Handler: handler})
		}
	}()
	return l.Addr().String()
}

func xnetClient(t testing.TB, address string) func(id string) error {
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	cc, err := (&http2.Transport{AllowHTTP: true}).NewClientConn(nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return func(id string) error {
		request, err := http.NewRequest("GET", "http://reviews.default.svc.cluster.local:9080/reviews/1", nil)
		if err != nil {
			return err
		}
		request.Header.Set("User-Agent", "bench/1")
		request.Header.Set("Accept", "*/*")
		request.Header.Set("X-Request-Id", id)
		response, err := cc.RoundTrip(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
}
