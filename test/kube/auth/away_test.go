package auth

import (
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/plane"
)

// wire carries connections to an API server, until it is cut.
type wire struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, to: to, conns: map[net.Conn]bool{}}
	var carried sync.WaitGroup
	carried.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			carried.Go(func() { w.carry(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); w.set(true); carried.Wait() })
	return w
}

func (w *wire) carry(c net.Conn) {
	defer c.Close()
	far, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer far.Close()
	w.mu.Lock()
	if w.cut {
		w.mu.Unlock()
		return
	}
	w.conns[c] = true
	w.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(c, far); _ = c.Close() })
	_, _ = io.Copy(far, c)
	_ = far.Close()
	back.Wait()
	w.mu.Lock()
	delete(w.conns, c)
	w.mu.Unlock()
}

// set cuts the wire, or mends it.
func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	if cut {
		for c := range w.conns {
			_ = c.Close()
		}
	}
}

// Without its API server a control plane serves what it knows and signs for whom it has just
// proved; it takes nobody new and refuses nobody for good; it stops writing before another
// could begin. When the API server is back, so is all of that.
func TestTheAPIServerIsAway(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{Name: "away"})
	if out, err := c.KubectlInput(t.Context(), world, "apply", "-f", "-"); err != nil {
		t.Fatal(err, out)
	}
	config, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	var w *wire
	for _, one := range config.Clusters {
		address, err := url.Parse(one.Server)
		if err != nil {
			t.Fatal(err)
		}
		w = newWire(t, address.Host)
		one.Server = "https://" + w.listener.Addr().String()
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	p := plane.Start(t, c, "--kubeconfig", path)
	p.Node("n1", nil)
	agent := p.Pod("istio-system", "ztunnel-n1", "ztunnel", "n1", "10.1.0.1", nil, nil)
	p.Pod("shop", "web-1", "web", "n1", "10.1.0.2", nil, nil)
	s, stream := p.Agent(agent)
	p.Until("workloads", func() bool { return len(s.Snapshot().Workloads()) == 2 })
	known := p.Dial(p.Token(agent))
	if _, err := plane.Sign(t, known, "shop/web"); err != nil {
		t.Fatal(err)
	}
	leads(p, p)
	fresh := p.Dial(p.Token(agent))

	w.set(true)
	if _, err := plane.Sign(t, known, "shop/web"); err != nil {
		t.Errorf("an agent that was proved a moment ago: %v", err)
	}
	if _, err := plane.Sign(t, fresh, "shop/web"); status.Code(err) != codes.Unavailable {
		t.Errorf("an agent that was not: %v, want to be told to try again", err)
	}
	if _, err := plane.Sign(t, known, "shop/nobody"); status.Code(err) != codes.Unavailable {
		t.Errorf("a pod that nobody knows of: %v, want to be told to try again", err)
	}
	p.Until("the end of its term", func() bool { return value(p, "fairlead_leader") == 0 })
	if stream.State().Err != nil || len(s.Snapshot().Workloads()) != 2 {
		t.Errorf("its agents lost what they had: %v", stream.State().Err)
	}
	if !strings.HasPrefix(p.Get("/healthz/ready"), "200") {
		t.Error("it is not ready: nobody would be served what is known")
	}

	w.set(false)
	p.Until("who was told to try again", func() bool { _, err := plane.Sign(t, fresh, "shop/web"); return err == nil })
	leads(p, p)
	p.Pod("shop", "late-1", "late", "n1", "10.1.0.3", nil, nil)
	p.Until("a pod that came afterwards", func() bool { return len(s.Snapshot().Workloads()) == 3 })
}
