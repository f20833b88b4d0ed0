package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/test/kube/plane"
)

// leafLife is that of certificates in these tests: they are renewed every few seconds.
const leafLife = 16 * time.Second

// kubeletLag is how late a changed ConfigMap reaches a pod here: later than certificates
// are renewed, so that who does not wait for it is found out.
const kubeletLag = 9 * time.Second

// node is an agent's part in it: the certificates of a node's pods.
type node struct {
	*identity.Manager
	id      mesh.Identity
	address string
}

// newNode has certificates of account, which an agent asks for as agents do: with its
// token, and trusting the roots of a mounted ConfigMap.
func newNode(t *testing.T, p *plane.Plane, agent *corev1.Pod, account string) *node {
	t.Helper()
	mounted := mount(t, p)
	conn, err := identity.Dial(p.Address, serverName, mounted, identity.Token{File: p.Token(agent), Cluster: "Kubernetes"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := identity.NewManager(identity.Options{CA: identity.NewClient(conn), RootFile: mounted, TTL: leafLife, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Manager: m, id: mesh.Identity{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: account}}
	t.Cleanup(func() { m.Close(); _ = conn.Close() })
	m.Acquire(n.id)
	l, err := tls.Listen("tcp", "127.0.0.1:0", m.ServerTLS(n.id))
	if err != nil {
		t.Fatal(err)
	}
	n.address = l.Addr().String()
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { _, _ = io.Copy(c, c); _ = c.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close() })
	return n
}

// mount keeps a file of the roots as a kubelet does: some time after the ConfigMap.
func mount(t *testing.T, p *plane.Plane) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root-cert.pem")
	put := func() bool {
		b := roots(t, p, "shop")
		if len(b) == 0 {
			return false
		}
		return os.WriteFile(path+".new", b, 0o600) == nil && os.Rename(path+".new", path) == nil
	}
	p.Until("roots to mount", put)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(kubeletLag); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				put()
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return path
}

// traffic opens connections between two nodes without a pause, in both directions, and keeps one.
type traffic struct {
	mu      sync.Mutex
	made    int
	failed  []error
	issuers map[string]int // of the servers' certificates
	stop    context.CancelFunc
	work    sync.WaitGroup
}

func begin(t *testing.T, a, b *node) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tr := &traffic{issuers: map[string]int{}, stop: cancel}
	kept, err := connect(a, b)
	if err != nil {
		t.Fatal(err)
	}
	tr.loop(ctx, 50*time.Millisecond, func() error { return echo(kept) })
	for _, pair := range [][2]*node{{a, b}, {b, a}} {
		tr.loop(ctx, 20*time.Millisecond, func() error {
			c, err := connect(pair[0], pair[1])
			if err != nil {
				return err
			}
			defer c.Close()
			tr.mu.Lock()
			tr.issuers[c.ConnectionState().PeerCertificates[0].Issuer.CommonName]++
			tr.mu.Unlock()
			return echo(c)
		})
	}
	t.Cleanup(func() { tr.end(); _ = kept.Close() })
	return tr
}

func (tr *traffic) loop(ctx context.Context, every time.Duration, once func() error) {
	tr.work.Go(func() {
		for tick := time.NewTicker(every); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			err := once()
			tr.mu.Lock()
			tr.made++
			if err != nil {
				tr.failed = append(tr.failed, err)
			}
			tr.mu.Unlock()
		}
	})
}

func connect(from, to *node) (*tls.Conn, error) {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 20 * time.Second}, Config: from.ClientTLS(from.id, []string{to.id.String()})}
	c, err := dialer.Dial("tcp", to.address)
	if err != nil {
		return nil, err
	}
	conn, ok := c.(*tls.Conn)
	if !ok {
		return nil, errors.New("no TLS")
	}
	return conn, nil
}

// echo: in TLS 1.3 a client learns only with the first bytes that it was refused.
func echo(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

// since is what the servers' certificates were signed by since the last call.
func (tr *traffic) since() map[string]int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	last := tr.issuers
	tr.issuers = map[string]int{}
	return last
}

func (tr *traffic) end() {
	tr.stop()
	tr.work.Wait()
}

// check ends the traffic; no connection may have failed.
func (tr *traffic) check(t *testing.T) {
	t.Helper()
	tr.end()
	t.Logf("%d exchanges", tr.made)
	if len(tr.failed) > 0 {
		t.Errorf("%d of %d failed, the first: %v", len(tr.failed), tr.made, tr.failed[0])
	}
}
