package waypoint

import (
	"io"
	"net"
	"testing"
)

// The record tells a connection that its server reset from one that its client did.
func TestResetsOfTCP(t *testing.T) {
	w := newWorld(t)
	reset := func(c net.Conn) {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	w.plain = w.listen(func(c net.Conn) {
		b := make([]byte, 6)
		if _, err := io.ReadFull(c, b); err != nil || string(b) == "\x00reset" {
			reset(c)
			return
		}
		_, _ = c.Write(b)
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	})
	w.listenWith(tcpChain("t", ""))
	c, in := w.open()
	_, _ = io.WriteString(c, "\x00reset")
	if _, err := in.ReadByte(); err == nil {
		t.Error("it goes on")
	}
	if r := w.tcpRecorded(0); r.Flags.String() != "UR" {
		t.Errorf("reset by the server, and recorded with %v", r.Flags)
	}
	c, in = w.open()
	_, _ = io.WriteString(c, "\x00hello")
	if _, err := in.ReadByte(); err != nil {
		t.Fatal(err)
	}
	reset(c)
	if r := w.tcpRecorded(1); r.Flags != 0 {
		t.Errorf("reset by the client, and recorded with %v", r.Flags)
	}
}
