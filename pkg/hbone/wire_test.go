package hbone

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/loopback"
)

// A wire gives records out one at a time however they came: in pieces, or many
// with one read.
func TestWireReadsRecords(t *testing.T) {
	near, far := loopback.Pair(t)
	w, err := newWire(near)
	if err != nil {
		t.Fatal(err)
	}
	record := func(n int) []byte {
		b := append([]byte{23, 3, 3, byte(n >> 8), byte(n)}, make([]byte, n)...)
		_, _ = rand.Read(b[tlsHeader:])
		return b
	}
	sizes := []int{0, 1, 5, 100, 16 << 10, 16<<10 + 256, 3, 9000, 16 << 10}
	var all []byte
	var records [][]byte
	for range 20 {
		for _, n := range sizes {
			r := record(n)
			records, all = append(records, r), append(all, r...)
		}
	}
	go func() {
		for i, step := 0, 1; i < len(all); i, step = i+step, step*7%50_000+1 {
			if _, err := far.Write(all[i:min(i+step, len(all))]); err != nil {
				return
			}
		}
		far.Close()
	}()
	buf := make([]byte, 1<<20)
	for i, want := range records {
		got := 0
		for got < len(want) {
			n, err := w.Read(buf[got:])
			if err != nil {
				t.Fatalf("record %d: %v", i, err)
			}
			got += n
		}
		if got != len(want) || !bytes.Equal(buf[:got], want) {
			t.Fatalf("record %d: %d bytes, want %d", i, got, len(want))
		}
	}
	if _, err := w.Read(buf); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if w.buf != nil {
		t.Error("a buffer is held without bytes")
	}
}

// Large writes and reads go over TLS whole, and what crypto/tls is told when a
// record brings no data does not break the connection.
func TestWire(t *testing.T) {
	near, far := loopback.Pair(t)
	r := newRig(t)
	wires := [2]*wire{}
	for i, c := range []*net.TCPConn{near, far} {
		w, err := newWire(c)
		if err != nil {
			t.Fatal(err)
		}
		wires[i] = w
	}
	client := &tunnelConn{Conn: tls.Client(wires[0], r.manager.ClientTLS(alice, []string{bob.String()})), wire: wires[0]}
	server := &tunnelConn{Conn: tls.Server(wires[1], r.manager.ServerTLS(bob)), wire: wires[1]}
	go func() { _ = server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 5<<20)
	_, _ = rand.Read(body)
	go func() {
		for rest := body; len(rest) > 0; {
			n := min(len(rest), 300_000)
			if _, err := client.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		_ = client.CloseWrite()
	}()
	got := &bytes.Buffer{}
	buf := make([]byte, 64<<10)
	most := 0
	for {
		n, err := server.Read(buf)
		got.Write(buf[:n])
		most = max(most, n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got.Bytes(), body) {
		t.Error("other bytes than were sent")
	}
	if most <= 16<<10 {
		t.Errorf("at most %d bytes with one read: records are not taken together", most)
	}
	// A read that must not wait, with nothing there, and then one that may.
	wires[0].instant = true
	if _, err := client.Conn.Read(buf); !errors.Is(err, errWouldWait) {
		t.Errorf("read %v, want errWouldWait", err)
	}
	wires[0].instant = false
	go func() { _, _ = server.Write([]byte("later")) }()
	_ = client.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := client.Read(buf); err != nil || string(buf[:n]) != "later" {
		t.Errorf("afterwards: %q, %v", buf[:n], err)
	}
}

// tunnelBudget is what an idle tunnel may take of the heap, in bytes, its two ends
// together.
const tunnelBudget = 64 << 10

func TestIdleTunnelsAreSmall(t *testing.T) {
	r := newRig(t)
	const n = 50
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // pools give up what they hold at the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	open := func() *tunnel {
		tn, err := r.pool.handshake(t.Context(), r.key)
		if err != nil {
			t.Fatal(err)
		}
		return tn
	}
	defer open().conn.Close() // what is made once
	before := heap()
	var all []*tunnel
	for range n {
		all = append(all, open())
	}
	var each uint64
	for deadline := time.Now().Add(20 * time.Second); ; { // until the last settings are read
		if each = (heap() - before) / n; each <= tunnelBudget {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a tunnel takes %d bytes, the budget is %d", each, tunnelBudget)
		}
	}
	t.Logf("%d bytes", each)
	for _, tn := range all {
		tn.conn.Close()
	}
}
