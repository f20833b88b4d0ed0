package waypoint

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// client is an HTTP/1.1 connection.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

// parkedClients are connections that had an answer each, and that no goroutine serves.
func (w *world) parkedClients(n int) (all []client) {
	w.t.Helper()
	for range n {
		c, in := w.open()
		w.status(c, in)
		all = append(all, client{c, in})
	}
	w.parked()
	if got := w.engine.listeners["l"].active(); got != int64(n) {
		w.t.Errorf("%d connections are counted, of %d", got, n)
	}
	return all
}

// parked waits until no goroutine serves HTTP/1.
func (w *world) parked() {
	w.t.Helper()
	eventually(w.t, "the connections parked", func() bool {
		var goroutines bytes.Buffer
		if err := pprof.Lookup("goroutine").WriteTo(&goroutines, 1); err != nil {
			w.t.Fatal(err)
		}
		return !strings.Contains(goroutines.String(), "http1Server")
	})
}

// Connections that are quiet hold no goroutine. They follow changes, and end with one
// that refuses them, as others do.
func TestParkedConnections(t *testing.T) {
	w := newWorld(t)
	w.listenWith(httpChain("c", table(teapot), ""))
	all := w.parkedClients(20)
	w.listenWith(httpChain("c", table(strings.Replace(teapot, "418", "410", 1)), ""))
	for _, c := range all {
		if status, _ := w.status(c.conn, c.in); status != 410 {
			t.Errorf("status %d after a change of routes", status)
		}
	}
	w.parked()
	w.listenWith(strings.Replace(httpChain("c", table(teapot), ""), `"filters":[`, `"filters":[`+denyAll, 1))
	for _, c := range all {
		if _, err := c.in.ReadByte(); err == nil {
			t.Error("a policy refuses it: it goes on")
		}
	}
	eventually(t, "all have ended", func() bool { return w.engine.listeners["l"].active() == 0 })
}

// A drain does not wait for what is parked.
func TestParkedConnectionsDrain(t *testing.T) {
	w := newWorld(t)
	w.listenWith(httpChain("c", table(teapot), ""))
	all := w.parkedClients(20)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w.engine.Drain(ctx, 0)
	if ctx.Err() != nil {
		t.Error("it waited until it was told not to")
	}
	for _, c := range all {
		if _, err := c.in.ReadByte(); err == nil || strings.Contains(err.Error(), "reset") {
			t.Errorf("a connection ended with %v", err)
		}
	}
}
