package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestImagesLeadToPrograms(t *testing.T) {
	for image, want := range map[string]string{
		"docker.io/istio/examples-bookinfo-productpage-v1:1.20.3":   "productpage",
		"istio/examples-bookinfo-productpage-v1:1.18.0":             "productpage",
		"localhost:5000/istio/examples-bookinfo-reviews-v3":         "reviews-v3",
		"examples-bookinfo-reviews-v2@sha256:abc":                   "reviews-v2",
		"docker.io/istio/examples-bookinfo-ratings-v1:1.20.3@sha:1": "ratings",
		"docker.io/istio/examples-bookinfo-details-v1":              "details",
		"curlimages/curl":     "sleep",
		"busybox:1":           "sleep",
		"echo":                "echo",
		"ghcr.io/x/echo:v1.2": "echo",
	} {
		if got, err := ForImage(image); err != nil || got != want {
			t.Errorf("%s: %q (%v), want %q", image, got, err, want)
		}
	}
	for _, image := range []string{"nginx:1.27", "", "examples-bookinfo-reviews-v4", "echo/nginx"} {
		_, err := ForImage(image)
		if err == nil || !strings.Contains(err.Error(), "examples-bookinfo-reviews-v2") || !strings.Contains(err.Error(), "echo") {
			t.Errorf("%q: %v, want an error that lists the images", image, err)
		}
	}
	if err := Run(t.Context(), "nothing", Env{}); err == nil || !strings.Contains(err.Error(), "productpage") {
		t.Errorf("an unknown program: %v", err)
	}
}

// serve runs a program until the test ends, and waits for its first port.
func serve(t *testing.T, name string, port int, vars map[string]string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var out bytes.Buffer
	go func() {
		done <- Run(ctx, name, Env{Args: args, Getenv: func(k string) string { return vars[k] }, Stdout: &out, Stderr: &out})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v %s", name, err, out.String())
		}
	})
	dial(t, port)
}

func dial(t *testing.T, port int) *net.TCPConn {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("localhost:%d", port))
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			return c.(*net.TCPConn)
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// free is a port that nobody listens on.
func free(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestEcho(t *testing.T) {
	auto, plain, banner := free(t), free(t), free(t)
	serve(t, "echo", auto, map[string]string{
		PortsVariable: fmt.Sprintf("http/TCP/%d,tcp-x/TCP/%d,banner/TCP/%d,u/UDP/%d", auto, plain, banner, plain), "VERSION": "v7",
	})
	base := fmt.Sprintf("http://localhost:%d", auto)
	if code, body := get(t, base+"/a?b=c"); code != 200 || !strings.Contains(body, `"path":"/a?b=c"`) || !strings.Contains(body, `"version":"v7"`) {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := get(t, base+"/status/418"); code != 418 {
		t.Errorf("/status/418 answered %d", code)
	}
	if code, body := get(t, base+"/bytes/100000"); code != 200 || len(body) != 100000 {
		t.Errorf("/bytes/100000 answered %d, %d bytes", code, len(body))
	}
	// As it is told from inside of the pod, and what it has seen.
	post := func(how string) int {
		res, err := http.Post(base+"/behave?"+how, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for _, wrong := range []string{"status=99", "share=x", "delay=-", "what=1"} {
		if code := post(wrong); code != 400 {
			t.Errorf("%s: %d, want 400", wrong, code)
		}
	}
	if code := post("status=503"); code != 200 {
		t.Errorf("/behave answered %d", code)
	}
	if code, _ := get(t, base+"/"); code != 503 {
		t.Errorf("told to answer 503: %d", code)
	}
	if _, body := get(t, base+"/seen"); !strings.Contains(body, `"requests":1,`) || !strings.Contains(body, `"maxInFlight":1,`) {
		t.Errorf("/seen: %s", body)
	}
	post("")
	if code, _ := get(t, base+"/"); code != 200 {
		t.Errorf("told to answer as usual: %d", code)
	}
	// Not HTTP, on the same port, also when it begins like it; and half-closed.
	for _, tc := range []struct {
		port       int
		say, first string
	}{{auto, "GEX not http", ""}, {auto, "G", ""}, {plain, "GET / HTTP/1.1\r\n\r\n", ""}, {banner, "EHLO", "220 fairlead echo ready\r\n"}} {
		c := dial(t, tc.port)
		if _, err := io.WriteString(c, tc.say); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil || string(got) != tc.first+tc.say {
			t.Errorf("%q: %q (%v)", tc.say, got, err)
		}
	}
	// The server speaks first, without a word from the client.
	c := dial(t, banner)
	hello := make([]byte, 4)
	if _, err := io.ReadFull(c, hello); err != nil || string(hello) != "220 " {
		t.Errorf("%q (%v)", hello, err)
	}
	u, err := net.Dial("udp", fmt.Sprintf("localhost:%d", plain))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_ = u.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(u, "datagram"); err != nil {
		t.Fatal(err)
	}
	back := make([]byte, 100)
	if n, err := u.Read(back); err != nil || string(back[:n]) != "datagram" {
		t.Errorf("%q (%v)", back[:n], err)
	}
}

func runLoadIn(t *testing.T, args ...string) LoadResult {
	t.Helper()
	var out, problems bytes.Buffer
	err := Run(t.Context(), "load", Env{Args: args, Getenv: func(string) string { return "" }, Stdout: &out, Stderr: &problems})
	if err != nil {
		t.Fatalf("%v %s", err, problems.String())
	}
	var r LoadResult
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return r
}

func TestLoadCounts(t *testing.T) {
	port := free(t)
	serve(t, "echo", port, map[string]string{"VERSION": "v7"}, "--http", fmt.Sprint(port))
	r := runLoadIn(t, "--url", fmt.Sprintf("http://localhost:%d/", port), "--requests", "20", "--header", "x-mark: left", "--header", "Host: elsewhere",
		"--count", `"host":"(\w+)".*"X-Mark":\["left`)
	if r.OK != 20 || r.Counts["elsewhere"] != 20 {
		t.Errorf("%+v", r)
	}
}

func TestLoad(t *testing.T) {
	auto, nobody := free(t), free(t)
	serve(t, "echo", auto, nil, "--http", fmt.Sprint(auto))
	at := fmt.Sprintf("://localhost:%d", auto)
	for _, args := range [][]string{
		{"--url", "http" + at + "/", "--requests", "50", "--concurrency", "4"},
		{"--url", "http" + at + "/", "--requests", "50", "--keep-alive", "--bytes", "1000"},
		{"--url", "tcp" + at, "--requests", "50", "--bytes", "200000", "--concurrency", "2"},
		{"--url", "tcp" + at, "--requests", "50", "--bytes", "10", "--keep-alive"},
	} {
		if r := runLoadIn(t, args...); r.OK != 50 || r.Failed != 0 || r.LatencyMS.P50 <= 0 || r.LatencyMS.Max < r.LatencyMS.P99 {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := runLoadIn(t, "--url", "http"+at+"/status/503", "--requests", "3"); r.Errors["status 503"] != 3 || r.OK != 0 {
		t.Errorf("a failing server: %+v", r)
	}
	for _, scheme := range []string{"http", "tcp"} {
		if r := runLoadIn(t, "--url", fmt.Sprintf("%s://localhost:%d", scheme, nobody), "--requests", "3"); r.Errors["refused"] != 3 {
			t.Errorf("nobody there: %+v", r)
		}
	}
	// An open loop keeps its rate.
	if r := runLoadIn(t, "--url", "http"+at+"/", "--rate", "100", "--duration", "500ms", "--concurrency", "8"); r.OK < 25 || r.OK > 51 {
		t.Errorf("100 a second for half a second: %+v", r)
	}
	// What comes back changed is noticed.
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, io.MultiReader(strings.NewReader("X"), io.LimitReader(c, 9)))
			_ = c.Close()
		}
	}()
	if r := runLoadIn(t, "--url", "tcp://"+l.Addr().String(), "--requests", "2", "--bytes", "10"); r.Errors["wrong answer"] != 2 {
		t.Errorf("a server that lies: %+v", r)
	}
	for _, args := range [][]string{nil, {"--url", "ftp://x"}, {"--url", "http" + at, "--concurrency", "0"}, {"--nonsense"}} {
		if err := Run(t.Context(), "load", Env{Args: args, Getenv: func(string) string { return "" }, Stdout: io.Discard, Stderr: io.Discard}); err == nil {
			t.Errorf("load %v succeeded", args)
		}
	}
}

func TestBookinfo(t *testing.T) {
	ports := map[string]int{}
	vars := map[string]string{}
	for part, variable := range map[string]string{"details": "DETAILS", "ratings": "RATINGS", "reviews-v3": "REVIEWS", "productpage": ""} {
		ports[part] = free(t)
		if variable != "" {
			vars[variable+"_HOSTNAME"], vars[variable+"_SERVICE_PORT"] = "localhost", fmt.Sprint(ports[part])
		}
	}
	for part, port := range ports {
		own := map[string]string{PortsVariable: fmt.Sprintf("http/TCP/%d", port)}
		for k, v := range vars {
			own[k] = v
		}
		if part == "ratings" {
			continue // it starts later
		}
		serve(t, part, port, own)
	}
	page := fmt.Sprintf("http://localhost:%d", ports["productpage"])
	if _, body := get(t, page+"/productpage"); !strings.Contains(body, "Ratings service is currently unavailable") || !strings.Contains(body, "1234567890") {
		t.Errorf("without ratings: %s", body)
	}
	serve(t, "ratings", ports["ratings"], map[string]string{PortsVariable: fmt.Sprintf("http/TCP/%d", ports["ratings"])})
	if code, body := get(t, page+"/productpage"); code != 200 || !strings.Contains(body, `color="red"`) || !strings.Contains(body, "Reviewer2") {
		t.Errorf("%d %s", code, body)
	}
	for path, want := range map[string]string{
		"/api/v1/products":           `"title"`,
		"/api/v1/products/0":         "William Shakespeare",
		"/api/v1/products/0/reviews": `"stars":5`,
		"/api/v1/products/0/ratings": `"Reviewer2":4`,
		"/health":                    "healthy",
	} {
		if code, body := get(t, page+path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, _ := get(t, fmt.Sprintf("http://localhost:%d/details/x", ports["details"])); code != 400 {
		t.Errorf("details of no number: %d", code)
	}
}
