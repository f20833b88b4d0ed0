package waypoint_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// upgrader is a server that goes over to another protocol, in which it says all back.
func upgrader(t *testing.T) string {
	return raw(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		r, err := http.ReadRequest(in)
		if err != nil || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "upgrade" {
			t.Errorf("%v, %v", err, r)
			return
		}
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
		if r.URL.Path == "/first" {
			fmt.Fprint(c, "server first")
		}
		_, _ = io.Copy(c, in)
	})
}

const (
	webSocket = `"upgrade_configs":[{"upgrade_type":"websocket"}],"http2_protocol_options":{"allow_connect":true},`
	upgrade   = "GET %s HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

// A WebSocket carries both ways, from its server's first word to its client's last.
func TestUpgrade(t *testing.T) {
	leakless(t)
	p := serve(t, webSocket+routes(everything), map[string]string{"main": upgrader(t)}, nil)
	c := dial(t, p.addr)
	defer c.Close()
	in := bufio.NewReader(c)
	fmt.Fprintf(c, upgrade, "/first")
	if r, err := http.ReadResponse(in, nil); err != nil || r.StatusCode != 101 || r.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("%v, %v", r, err)
	}
	expect(t, in, "server first")
	for i := range 20 {
		word := strings.Repeat(fmt.Sprint(i), 10_000)
		go func() { _, _ = io.WriteString(c, word) }()
		expect(t, in, word)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		t.Errorf("at the end %q, %v", rest, err)
	}
}

func expect(t *testing.T, in io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(in, got); err != nil || string(got) != want {
		t.Fatalf("%q, %v; want %d bytes of %.40q", got[:n], err, len(want), want)
	}
}

// A WebSocket over HTTP/2 (RFC 8441) goes to a server of HTTP/1.
func TestUpgradeFromHTTP2(t *testing.T) {
	leakless(t)
	p := serve(t, webSocket+routes(everything), map[string]string{"main": upgrader(t)}, nil)
	client, err := codec.NewHTTP2Client(codec.TCPConn{TCPConn: dial(t, p.addr)}, codec.Options{HTTP2: h2.Config{ExtendedConnect: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s := client.Open()
	defer s.Close()
	if err := s.Send(&message.Request{Method: "GET", Scheme: "http", Authority: "a", Path: "/first", Upgrade: "websocket"}, false); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Response(); err != nil || r.Status != 101 {
		t.Fatal(r, err)
	}
	if _, err := s.Write([]byte(" and client")); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	var got string
	for got != "server first and client" {
		b, err := s.Next()
		if got += string(b); err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

// What went over to another protocol ends when a policy no longer allows its caller to
// reach the server, and not before.
func TestUpgradeEndsWithItsPermission(t *testing.T) {
	leakless(t)
	var denied atomic.Bool
	authorize := func(*streaminfo.Connection, netip.AddrPort, bool) error {
		if denied.Load() {
			return errors.New("deny-all")
		}
		return nil
	}
	p := serve(t, webSocket+routes(everything), map[string]string{"main": upgrader(t)}, authorize)
	c := dial(t, p.addr)
	defer c.Close()
	in := bufio.NewReader(c)
	fmt.Fprintf(c, upgrade, "/first")
	if r, err := http.ReadResponse(in, nil); err != nil || r.StatusCode != 101 {
		t.Fatalf("%v, %v", r, err)
	}
	expect(t, in, "server first")
	p.engine.Review()
	fmt.Fprint(c, "still")
	expect(t, in, "still")
	denied.Store(true)
	p.engine.Review()
	if _, err := in.ReadByte(); err == nil {
		t.Error("it goes on")
	}
	if r, body := ask(t, p.addr, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"); r.StatusCode != 403 {
		t.Errorf("a request after it: %d %q", r.StatusCode, body)
	}
}

// What a try has to answer in time has been answered with the upgrade: a WebSocket is
// quiet for longer.
func TestQuietUpgrade(t *testing.T) {
	leakless(t)
	p := serve(t, webSocket+routes(`{"match":{"prefix":"/"},"route":{"cluster":"main","timeout":"0s","retry_policy":{"retry_on":"5xx","per_try_idle_timeout":"0.1s"}}}`), map[string]string{"main": upgrader(t)}, nil)
	c := dial(t, p.addr)
	defer c.Close()
	in := bufio.NewReader(c)
	fmt.Fprintf(c, upgrade, "/")
	if r, err := http.ReadResponse(in, nil); err != nil || r.StatusCode != 101 {
		t.Fatalf("%v, %v", r, err)
	}
	_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	if _, err := in.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("while it is quiet: %v", err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(c, "ping")
	expect(t, in, "ping")
}
