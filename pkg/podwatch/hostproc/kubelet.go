package hostproc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// kubelets are the names of programs that are a kubelet, or have one inside.
var kubelets = []string{"kubelet", "kubelite", "k3s-server", "k3s-agent", "k3s", "k0s"}

// KubeletCgroup returns the cgroup v2 directory of the node's kubelet, under root:
// that of a process of a kubelet's name which is in the node's network namespace
// and no pod's. It fails where the kubelet shares the root with everything.
func (p *Proc) KubeletCgroup(root string) (string, error) {
	path := ""
	// As the node's first process sees it: a container may have a view of its own.
	err := netns.InCgroup(filepath.Join(p.path, p.node, "ns/cgroup"), func() (err error) {
		path, err = p.kubelet()
		return err
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(root, path), nil
}

func (p *Proc) kubelet() (string, error) {
	home, err := os.Readlink(p.NodeNetNS())
	if err != nil {
		return "", fmt.Errorf("the node's network namespace: %w", err)
	}
	entries, err := os.ReadDir(p.path)
	if err != nil {
		return "", fmt.Errorf("processes of the node: %w", err)
	}
	alone := false
	for _, e := range entries {
		pid := e.Name()
		if pid[0] < '0' || pid[0] > '9' || !p.named(pid, kubelets) {
			continue
		}
		if ns, err := os.Readlink(filepath.Join(p.path, pid, "ns/net")); err != nil || ns != home {
			continue
		}
		b, err := os.ReadFile(filepath.Join(p.path, pid, "cgroup"))
		if err != nil || uidOf(b) != "" {
			continue
		}
		for line := range bytes.Lines(b) {
			path, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "0::")
			switch {
			case !ok:
			case path == "/":
				alone = true
			default:
				return path, nil
			}
		}
	}
	if alone {
		return "", errors.New("the kubelet is in the root of cgroup v2, with everything else: its probes cannot be told; start it in a cgroup of its own (a systemd service is), or name one with --kubelet-cgroup")
	}
	return "", fmt.Errorf("no process named %s in the node's network namespace: name the kubelet's cgroup with --kubelet-cgroup", strings.Join(kubelets, ", "))
}

func (p *Proc) named(pid string, names []string) bool {
	b, err := os.ReadFile(filepath.Join(p.path, pid, "comm"))
	if err != nil {
		return false
	}
	for _, n := range names {
		if strings.TrimSpace(string(b)) == n {
			return true
		}
	}
	return false
}
