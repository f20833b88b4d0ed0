package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lab/token"
)

var labsCluster = twoNodes + `---
apiVersion: v1
kind: Node
metadata: {name: n3, labels: {fairlead.dev/agent: none}}
` + namespace("shop", "ambient") + echoPod("shop", "server", "n2") + echoPod("shop", "client", "n1") + echoPod("shop", "elsewhere", "n3")

// tunnelled asks the server and wants the answer to have come in mutual TLS.
func (l *lab) tunnelled(t *testing.T) {
	t.Helper()
	eventually(t, l.name+" carries in mutual TLS", func() bool {
		out := l.run(t, "lab", "exec", "--name", l.name, "shop/client", "--", "sh", "-c", "curl -sS -m 10 -o /dev/null -w '%{http_code}' http://server/ || true")
		page := l.run(t, "lab", "exec", "--name", l.name, "node/n1", "--", "curl", "-sS", "-m", "10", "http://localhost:15020/metrics")
		n, _ := sum(page, `istio_tcp_connections_opened_total{reporter="source",source_workload="client",destination_workload="server",connection_security_policy="mutual_tls"}`)
		return out == "200" && n > 0
	})
}

// TestLabsSideBySide runs two labs of the same objects at once, the second under a
// control plane elsewhere. One node of each has no agent. Taking one down does
// nothing to the other.
func TestLabsSideBySide(t *testing.T) {
	needRoot(t)
	build(t)
	first := newLab(t, labsCluster)
	second := &lab{name: first.name + "-b", dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(second.dir, "cluster.yaml"), []byte(labsCluster), 0o644); err != nil {
		t.Fatal(err)
	}
	address, root, tokens := elsewhere(t, second.dir)
	t.Cleanup(func() { second.run(t, "lab", "down", "--name", second.name) })
	second.run(t, "lab", "up", "--name", second.name, "--control-plane", address, "--control-plane-root", root, "--token-dir", tokens, "--detach", second.dir)
	first.tunnelled(t)
	second.tunnelled(t)
	view := second.view(t)
	if view.ControlPlane.External != address {
		t.Errorf("the control plane is %q, want %q", view.ControlPlane.External, address)
	}
	for _, n := range view.Nodes {
		if (n.Agent == nil) != (n.Name == "n3") {
			t.Errorf("node %s: agent %v", n.Name, n.Agent)
		}
	}
	first.run(t, "lab", "down", "--name", first.name)
	second.tunnelled(t)
}

// elsewhere starts a control plane that no lab started, for the objects in dir.
func elsewhere(t *testing.T, dir string) (address, root, tokens string) {
	t.Helper()
	place := t.TempDir()
	signer, err := token.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	key, err := signer.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(place, "tokens.pem")
	if err := os.WriteFile(keys, key, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"n1", "n2"} {
		if err := signer.Write(filepath.Join(place, node), token.Subject{
			Namespace: "istio-system", ServiceAccount: "ztunnel", ServiceAccountUID: "1", Pod: "ztunnel-" + node, PodUID: node, Node: node,
		}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = free.Addr().String()
	free.Close()
	root = filepath.Join(place, "root.pem")
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "control-plane"), "--config-dir", dir, "--derived-dir", filepath.Join(dir, ".fairlead", "objects"),
		"--state-dir", filepath.Join(place, "state"), "--token-keys", keys, "--listen", address, "--admin-address", "127.0.0.1:0", "--root-cert-out", root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log strings.Builder
	cmd.Stderr, cmd.Stdout = &log, &log
	if err := os.MkdirAll(filepath.Join(dir, ".fairlead", "objects"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait()
		if t.Failed() {
			fmt.Println(lastLines(log.String(), 30))
		}
	})
	eventually(t, "the control plane listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		c.Close()
		_, err = os.Stat(root)
		return err == nil
	})
	return address, root, place
}
