package e2e

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

var hostileCluster = twoNodes + namespace("shop", "ambient") + namespace("outside", "none") +
	echoPod("shop", "victim", "n2") + echoPod("shop", "neighbour", "n2") + echoPod("outside", "mallory", "n1") +
	loadPod("shop", "caller", "n1", "--url", "tcp://neighbour:9000", "--rate", "50", "--concurrency", "4", "--timeout", "20s")

// mallory is a peer with a certificate of the mesh who does not play by the rules.
type mallory struct {
	t      *testing.T
	ns     *netns.NS
	victim string // its tunnel's address
	app    string // its application's
	cert   tls.Certificate
}

func newMallory(t *testing.T, l *lab) *mallory {
	t.Helper()
	ip := l.podIP(t, "shop/victim", 0)
	m := &mallory{t: t, victim: ip + ":15008", app: ip + ":9000"}
	var err error
	if m.ns, err = netns.Open(l.pod(t, "outside/mallory").NetNS); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.ns.Close() })
	// Who has the node has its pods' keys.
	files, err := filepath.Glob(filepath.Join(l.node(t, "n1").Agent.CertDir, "*.pem"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no certificate of the node's pods: %v", err)
	}
	if m.cert, err = tls.LoadX509KeyPair(files[0], files[0]); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *mallory) dial() net.Conn {
	m.t.Helper()
	c, err := dialFrom(m.ns, m.victim, 10*time.Second)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	return c
}

func (m *mallory) handshake(certs ...tls.Certificate) (*tls.Conn, error) {
	m.t.Helper()
	// Whom she talks to is nothing she cares for.
	c := tls.Client(m.dial(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: certs}) //nolint:gosec // an attacker's
	_ = c.SetDeadline(time.Now().Add(retryFor))
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	return c, nil
}

// tunnel is an accepted connection after the settings.
func (m *mallory) tunnel() *tls.Conn {
	m.t.Helper()
	c, err := m.handshake(m.cert)
	if err != nil {
		m.t.Fatal(err)
	}
	m.write(c, []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, 0, nil))
	return c
}

func (m *mallory) write(c net.Conn, frames ...[]byte) bool {
	for _, f := range frames {
		if _, err := c.Write(f); err != nil {
			return false
		}
	}
	return true
}

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// connect is a CONNECT's header block, of literals without indexing.
func connect(authority string) []byte {
	b := []byte{}
	for _, f := range [][2]string{{":method", "CONNECT"}, {":authority", authority}} {
		b = append(b, 0, byte(len(f[0])))
		b = append(b, f[0]...)
		b = append(b, byte(len(f[1])))
		b = append(b, f[1]...)
	}
	return b
}

// until reads frames until one of the kind, and returns its payload; or the error
// that ends the connection.
func until(c net.Conn, kind byte) ([]byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(retryFor))
	for {
		var h [9]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			return nil, err
		}
		payload := make([]byte, int(h[0])<<16|int(h[1])<<8|int(h[2]))
		if _, err := io.ReadFull(c, payload); err != nil {
			return nil, err
		}
		if h[3] == kind {
			return payload, nil
		}
	}
}

// answered wants the status that the CONNECT is answered with.
func (m *mallory) answered(authority string, status string) {
	m.t.Helper()
	c := m.tunnel()
	defer c.Close()
	m.write(c, frame(1, 4, 1, connect(authority)))
	block, err := until(c, 1)
	// 200 and 400 stand in the static table (RFC 7541 appendix A); others are spelled.
	indexed := map[string]byte{"200": 0x88, "400": 0x8c}
	if err != nil || len(block) == 0 || block[0] != indexed[status] {
		m.t.Errorf("CONNECT %q: %x, %v; want %s", authority, block, err, status)
	}
}

// reset wants the CONNECT's stream reset.
func (m *mallory) reset(authority string) {
	m.t.Helper()
	c := m.tunnel()
	defer c.Close()
	m.write(c, frame(1, 4, 1, connect(authority)))
	if code, err := until(c, 3); err != nil {
		m.t.Errorf("CONNECT %q: %x, %v; want a reset", authority, code, err)
	}
}

// ended floods with frames until the agent ends the connection: with a GOAWAY, or by closing it.
func (m *mallory) ended(name string, flood func(i uint32) [][]byte) {
	m.t.Helper()
	c := m.tunnel()
	defer c.Close()
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = until(c, 7)
	}()
	for i := range uint32(1_000_000) {
		if !m.write(c, flood(i)...) {
			break
		}
		select {
		case <-over:
			return
		default:
		}
	}
	select {
	case <-over:
	case <-time.After(retryFor):
		m.t.Errorf("%s: the agent bears it", name)
	}
}

// peakRSS is the most that a node's agent has had resident, in bytes.
func peakRSS(t *testing.T, l *lab, node string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.node(t, node).Agent.PID))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kb int64
	if _, err := fmt.Sscanf(rest, "%d", &kb); err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// hostileMemory is what the agent may have taken at its worst, in bytes.
const hostileMemory = 200 << 20

// TestHostileTunnels: one who holds a certificate of the mesh, or none, does to a
// pod's tunnels what is not allowed. The agent's memory is bounded, and a neighbour
// of the victim's notices nothing.
func TestHostileTunnels(t *testing.T) {
	needRoot(t)
	build(t)
	l := newLab(t, hostileCluster)
	m := newMallory(t, l)
	l.answersMore(t, "shop/caller", 20)
	before := l.load(t, "shop/caller").Errors
	authority := m.app

	t.Run("honest", func(*testing.T) { m.answered(authority, "200") })
	t.Run("TLS", func(t *testing.T) {
		if _, err := m.handshake(); err == nil {
			c, _ := m.handshake()
			if _, err := until(c, 4); err == nil { // TLS 1.3 tells the client afterwards
				t.Error("accepted without a certificate")
			}
		}
		if c, err := m.handshake(strangerCert(t)); err == nil {
			if _, err := until(c, 4); err == nil {
				t.Error("accepted a certificate of a stranger's root")
			}
		}
		c := m.dial()
		m.write(c, []byte("GET / HTTP/1.1\r\nhost: x\r\n\r\n"))
		_ = c.SetReadDeadline(time.Now().Add(retryFor))
		if _, err := io.Copy(io.Discard, c); os.IsTimeout(err) {
			t.Error("a client without TLS is kept")
		}
	})
	t.Run("authority", func(*testing.T) {
		m.reset("") // malformed (RFC 9113 section 8.5)
		for _, a := range []string{"nonsense", "1.2.3.4:99999", "[::1", "10.0.0.1:80", "127.0.0.1:9000", "a b:80"} {
			m.answered(a, "400")
		}
	})
	t.Run("rapid reset", func(*testing.T) {
		m.ended("rapid reset", func(i uint32) [][]byte {
			return [][]byte{append(frame(1, 4, 2*i+1, connect(authority)), frame(3, 0, 2*i+1, []byte{0, 0, 0, 8})...)}
		})
	})
	t.Run("CONTINUATION", func(*testing.T) {
		m.ended("CONTINUATION", func(i uint32) [][]byte {
			if i == 0 {
				return [][]byte{frame(1, 0, 1, connect(authority))}
			}
			return [][]byte{frame(9, 0, 1, []byte{0, 1, 'x', 1, 'y'})}
		})
	})
	t.Run("window", func(*testing.T) {
		m.ended("more than the window", func(i uint32) [][]byte {
			if i == 0 {
				return [][]byte{frame(1, 4, 1, connect(authority))}
			}
			return [][]byte{frame(0, 0, 1, make([]byte, 16<<10))} // and reads nothing of the echo
		})
		m.ended("window overflow", func(uint32) [][]byte { return [][]byte{frame(8, 0, 0, []byte{0x7f, 0xff, 0xff, 0xff})} })
		m.ended("PING", func(uint32) [][]byte { return [][]byte{frame(6, 0, 0, make([]byte, 8))} })
		m.ended("SETTINGS", func(uint32) [][]byte { return [][]byte{frame(4, 0, 0, nil)} })
	})
	t.Run("slow handshakes", func(*testing.T) {
		for range 300 {
			m.write(m.dial(), []byte{22, 3, 1}) // a record's beginning, and no more
		}
		m.answered(authority, "200") // who comes after is served
	})
	t.Run("10,000 streams", func(*testing.T) {
		var all sync.WaitGroup
		for range 10 {
			c := m.tunnel()
			all.Go(func() { _, _ = io.Copy(io.Discard, c) })
			frames := []byte{}
			for i := range uint32(1000) {
				frames = append(frames, frame(1, 4, 2*i+1, connect(authority))...)
			}
			m.write(c, frames)
			defer c.Close()
		}
		l.answersMore(t, "shop/caller", 100)
	})
	l.answersMore(t, "shop/caller", 100)
	if after := l.load(t, "shop/caller"); len(after.Errors) != len(before) {
		t.Errorf("the neighbour was harmed: %+v", after)
	}
	rss := peakRSS(t, l, "n2")
	t.Logf("the agent took %d MB at its worst", rss>>20)
	if rss > hostileMemory {
		t.Errorf("the agent took %d MB", rss>>20)
	}
}

// strangerCert has the right name, from a root that nobody trusts.
func strangerCert(t *testing.T) tls.Certificate {
	t.Helper()
	id := mesh.Identity{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "default"}
	m, err := identity.NewManager(identity.Options{CA: identitytest.New(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	m.Acquire(id)
	c, err := m.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c.TLS
}
