package codec

import (
	"bufio"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
	"github.com/fairlead-mesh/fairlead/test/loopback"
)

func TestHTTP1OverTLS(t *testing.T) {
	client, server := loopback.Pair(t)
	done := make(chan error, 1)
	go func() {
		conn, err := NewConn(tls.Server(server, &tls.Config{Certificates: []tls.Certificate{identitytest.SelfSigned()}}))
		if err != nil {
			done <- err
			return
		}
		done <- ServeHTTP1(conn, Options{Scheme: "https"}, func(e Exchange) {
			if e.Request().Scheme != "https" || e.Gone() {
				t.Errorf("scheme %q, gone %v", e.Request().Scheme, e.Gone())
			}
			_ = e.SetWriteDeadline(time.Now().Add(time.Hour))
			echo(e)
		})
	}()
	c := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(c)
	body := strings.Repeat("x", 50_000)
	for range 3 {
		send(t, c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n"+body)
		if _, got := response(t, r, "POST"); got != "POST a/ "+body {
			t.Fatalf("%d bytes came back", len(got))
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
