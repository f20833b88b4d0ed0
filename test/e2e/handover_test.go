package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

var handoverCluster = twoNodes + namespace("shop", "ambient") + namespace("outside", "none") +
	echoPod("shop", "inside", "n1") + echoPod("outside", "stranger", "n2") + echoPod("shop", "server", "n2") +
	loadPod("shop", "fresh", "n1", "--url", "tcp://server:9000", "--rate", "100", "--concurrency", "8") +
	loadPod("shop", "asked", "n2", "--url", "tcp://inside:9000", "--rate", "100", "--concurrency", "8")

// stream is a connection that echoes: what is sent is what comes back.
type stream struct {
	net.Conn
	name           string
	sent, received hash.Hash
	moved          atomic.Int64 // bytes that came back
	slow           bool         // it reads 640 KiB in a second, until it is stopped
}

func (l *lab) stream(t *testing.T, name, from, to string) *stream {
	t.Helper()
	ns, err := netns.Open(l.pod(t, from).NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	c, err := dialFrom(ns, l.podIP(t, to, 0)+":9000", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &stream{Conn: c, name: name, sent: sha256.New(), received: sha256.New()}
}

// busy sends until stopped, now little, now much, and then closes its half; it reads
// until the other half ends.
func (s *stream) busy(stop <-chan struct{}) error {
	sent := make(chan error, 1)
	go func() {
		seed := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%32s", s.name))))
		b := make([]byte, 256<<10)
		for {
			select {
			case <-stop:
				sent <- s.Conn.(*net.TCPConn).CloseWrite()
				return
			default:
			}
			n := 1 + int(seed.Uint64()%1000)
			if seed.Uint64()%8 == 0 {
				n = len(b)
			}
			_, _ = seed.Read(b[:n])
			s.sent.Write(b[:n])
			if _, err := s.Write(b[:n]); err != nil {
				sent <- err
				return
			}
		}
	}()
	b := make([]byte, 64<<10)
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	for {
		if s.slow {
			select {
			case <-pace.C:
			case <-stop:
			}
		}
		n, err := s.Read(b)
		s.received.Write(b[:n])
		s.moved.Add(int64(n))
		if err == io.EOF {
			return <-sent
		}
		if err != nil {
			return err
		}
	}
}

// asks sends a number and wants it back.
func (s *stream) asks(n uint32) error {
	_ = s.SetDeadline(time.Now().Add(30 * time.Second))
	defer s.SetDeadline(time.Time{})
	b := binary.BigEndian.AppendUint32(nil, n)
	if _, err := s.Write(b); err != nil {
		return err
	}
	got := make([]byte, len(b))
	if _, err := io.ReadFull(s, got); err != nil {
		return err
	}
	if !bytes.Equal(got, b) {
		return fmt.Errorf("%x came back for %x", got, b)
	}
	return nil
}

// nextAgent starts an agent on the node beside the one that is there, as a rollout
// does, with pages elsewhere, and returns when it owns the node.
func (l *lab) nextAgent(t *testing.T, node string) *exec.Cmd {
	t.Helper()
	cmd, log := l.agentBeside(t, node, 16)
	eventually(t, "the next agent owns the node", func() bool { return strings.Contains(log(), "this agent owns the node") })
	return cmd
}

// agentBeside starts an agent beside the one that is there, whose pages' ports begin with
// the number given.
func (l *lab) agentBeside(t *testing.T, node string, pages int, more ...string) (cmd *exec.Cmd, said func() string) {
	t.Helper()
	n := l.node(t, node)
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.Agent.PID))
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
	args = append(args, "--admin-address", fmt.Sprintf("localhost:%d000", pages), "--metrics-address", fmt.Sprintf("[::]:%d020", pages), "--readiness-address", fmt.Sprintf("[::]:%d021", pages))
	cmd = exec.Command(args[0], append(args[1:], more...)...)
	log, err := os.Create(filepath.Join(t.TempDir(), "agent.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	ns, err := netns.Open(n.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	said = func() string {
		b, _ := os.ReadFile(log.Name())
		return string(b)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the agent of ports %d000:\n%s", pages, notRecords(said()))
		}
	})
	return cmd, said
}

// notRecords leaves out what is said of each connection.
func notRecords(log string) string {
	var kept []string
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "{") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// plaintexts is how many connections without a tunnel an agent's page lists.
func (l *lab) plaintexts(t *testing.T, node, port string) (n int) {
	t.Helper()
	var dump struct {
		WorkloadState map[string]struct {
			Connections struct {
				Inbound, Outbound []struct{ Protocol, ProtocolName string }
			}
		}
	}
	page := l.run(t, "lab", "exec", "--name", l.name, "node/"+node, "--", "curl", "-sS", "-m", "10", "http://localhost:"+port+"/config_dump")
	if err := json.Unmarshal([]byte(page), &dump); err != nil {
		t.Fatal(err)
	}
	for _, w := range dump.WorkloadState {
		for _, c := range append(w.Connections.Inbound, w.Connections.Outbound...) {
			if c.Protocol == "TCP" {
				n++
			}
		}
	}
	return n
}

// TestPlaintextOutlivesAgents has connections without a tunnel go on while the agent
// of their node is replaced, and replaced again, long past the first one's end. No
// byte is lost or doubled, and no new connection fails.
func TestPlaintextOutlivesAgents(t *testing.T) {
	needRoot(t)
	build(t)
	l := newLab(t, handoverCluster)
	both := []string{"shop/fresh", "shop/asked"}
	for _, pod := range both {
		l.answersMore(t, pod, 50)
	}
	began := map[string]int64{}
	for _, pod := range both {
		began[pod] = l.load(t, pod).Failed
	}
	var busy, idle []*stream
	for _, way := range []struct{ name, from, to string }{{"out", "shop/inside", "outside/stranger"}, {"in", "outside/stranger", "shop/inside"}} {
		busy = append(busy, l.stream(t, "busy "+way.name, way.from, way.to))
		idle = append(idle, l.stream(t, "idle "+way.name, way.from, way.to))
		slow := l.stream(t, "slow "+way.name, way.from, way.to)
		slow.slow = true
		busy = append(busy, slow)
	}
	all := len(busy) + len(idle)
	if n := l.plaintexts(t, "n1", "15000"); n != all {
		t.Fatalf("the agent carries %d connections without a tunnel, want %d", n, all)
	}
	stop := make(chan struct{})
	ends := make(chan error, len(busy))
	var carrying sync.WaitGroup
	for _, s := range busy {
		carrying.Go(func() { ends <- s.busy(stop) })
	}
	quit := sync.OnceFunc(func() { close(stop) })
	defer quit()
	asked := uint32(0)
	alive := func(when string) {
		t.Helper()
		for _, s := range busy {
			before := s.moved.Load()
			eventually(t, s.name+" moves "+when, func() bool { return s.moved.Load() > before+1<<20 || len(ends) > 0 })
		}
		if len(ends) > 0 {
			t.Fatalf("%s: one ended: %v", when, <-ends)
		}
		for _, s := range idle {
			asked++
			if err := s.asks(asked); err != nil {
				t.Fatalf("%s %s: %v", s.name, when, err)
			}
		}
	}
	alive("with the first agent")
	first := l.node(t, "n1").Agent.PID
	next := l.nextAgent(t, "n1")
	eventually(t, "the next agent carries them", func() bool { return l.plaintexts(t, "n1", "16000") == all })
	alive("with the next agent")
	// The lab starts the first again when it has ended: the third, which takes over.
	if err := syscall.Kill(first, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the third agent owns the node", func() bool {
		a := l.node(t, "n1").Agent
		return a.PID != first && a.Ready
	})
	eventually(t, "the third agent carries them", func() bool { return l.plaintexts(t, "n1", "15000") == all })
	alive("past the first agent's end")
	if err := next.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := next.Wait(); err != nil {
		t.Errorf("the next agent's end: %v", err)
	}
	alive("past the next agent's end")
	quit()
	carrying.Wait()
	for _, s := range busy {
		if err := <-ends; err != nil {
			t.Error(err)
		}
		t.Logf("%s: %d MiB", s.name, s.moved.Load()>>20)
		if !bytes.Equal(s.sent.Sum(nil), s.received.Sum(nil)) {
			t.Errorf("%s: other bytes came back than were sent", s.name)
		}
	}
	for _, pod := range both {
		if p := l.load(t, pod); p.Failed > began[pod] {
			t.Errorf("new connections of %s failed: %+v", pod, p)
		}
	}
}
