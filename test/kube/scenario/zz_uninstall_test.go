package scenario

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// The last scenario of the shared mesh: it takes the mesh away.
func TestUninstallLeavesNothing(t *testing.T) {
	m := installed(t)
	const ns = "after"
	m.Namespace(t, ns, true)
	m.Apply(t, server+"\n---\n"+client, "-n", ns)
	m.Do(t, "-n", ns, "rollout", "status", "deploy/server", "--timeout=60s")
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	enrolled(t, m, ns)
	call := func() error {
		_, err := m.Exec(t.Context(), ns, "client", "curl", "-sS", "-m", "5", "http://server/")
		return err
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	kernel := attached(t, m, ns)
	if kernel["node n1"] == 0 || kernel["pod client"] == 0 {
		t.Fatalf("no programs of the mesh are attached: %v; the check below would prove nothing", kernel)
	}
	const look = `ls /sys/fs/bpf /opt/cni/bin /etc/cni/net.d; cat /etc/cni/net.d/*; ls -A /var/run/fairlead /var/lib/fairlead 2>&1`
	for _, n := range m.Nodes {
		out, err := n.Run(t.Context(), "sh", "-c", look)
		if err != nil && !strings.Contains(out, "fairlead") || !strings.Contains(out, "fairlead-cni") {
			t.Errorf("node %s has no trace of the mesh to remove: %s", n.Name, out)
		}
	}
	if _, err := m.Fairlead(t.Context(), "uninstall", "--purge", "-y"); err != nil {
		t.Fatal(err)
	}
	for _, n := range m.Nodes {
		mesh.Eventually(t, "node "+n.Name+" is as it was", func() error {
			out, _ := n.Run(t.Context(), "sh", "-c", `ls /sys/fs/bpf | grep -v debug; ls /opt/cni/bin | grep fairlead; grep -l fairlead /etc/cni/net.d/*; ls -A /etc/cni/net.d | grep -v 10-bridge.conflist`)
			if out != "" {
				return errors.New("left: " + out)
			}
			return nil
		})
	}
	mesh.Eventually(t, "no program of the mesh is attached", func() error {
		for where, n := range attached(t, m, ns) {
			if n > 0 {
				return fmt.Errorf("%s has %d", where, n)
			}
		}
		return nil
	})
	left := m.Do(t, "get", "crd,clusterrole,clusterrolebinding,validatingwebhookconfiguration,namespace", "-o", "name", "--ignore-not-found")
	for line := range strings.Lines(left) {
		if strings.Contains(line, "istio") || strings.Contains(line, "fairlead") || strings.Contains(line, "ztunnel") {
			t.Errorf("left in the cluster: %s", line)
		}
	}
	if still := m.Do(t, "-n", ns, "get", "pods", "-o", `jsonpath={.items[*].metadata.annotations.ambient\.istio\.io/redirection}`); still != "" {
		t.Errorf("pods are annotated still: %s", still)
	}
	// Pods that were in the mesh go on without it, unchanged.
	mesh.Eventually(t, "pods talk without the mesh", call)
	m.Do(t, "-n", ns, "delete", "pod", "client", "--now")
	m.Apply(t, client, "-n", ns)
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	mesh.Eventually(t, "a new pod starts and talks", call)
}

// attached counts the BPF programs on each node's cgroup v2 root, where the agent
// captures connections, and in the client's network namespace, where it listens.
func attached(t *testing.T, m *mesh.Mesh, ns string) map[string]int {
	t.Helper()
	count := map[string]int{}
	for _, n := range m.Nodes {
		root := filepath.Join("/proc", strconv.Itoa(n.PID()), "root", "sys", "fs", "cgroup")
		if dir := filepath.Join(root, "unified"); exists(dir) {
			root = dir
		}
		dir, err := os.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []ebpf.AttachType{ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect, ebpf.AttachCGroupInetSockCreate, ebpf.AttachCGroupSockOps} {
			count["node "+n.Name] += programs(t, int(dir.Fd()), kind)
		}
		_ = dir.Close()
	}
	// The pod's first process, as its node counts, by the pod's UID in its cgroup.
	uid := m.Do(t, "-n", ns, "get", "pod", "client", "-o", "jsonpath={.metadata.uid}")
	out, err := m.Nodes[0].Run(t.Context(), "sh", "-c", "grep -l "+uid+" /proc/[0-9]*/cgroup | head -1")
	if err != nil {
		t.Fatal(err)
	}
	space := filepath.Join("/proc", strconv.Itoa(m.Nodes[0].PID()), "root", filepath.Dir(strings.TrimSpace(out)), "ns", "net")
	pod, err := os.Open(space)
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	count["pod client"] = programs(t, int(pod.Fd()), ebpf.AttachSkLookup)
	return count
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func programs(t *testing.T, target int, kind ebpf.AttachType) int {
	t.Helper()
	found, err := link.QueryPrograms(link.QueryOptions{Target: target, Attach: kind})
	if err != nil {
		t.Fatalf("query %v: %v", kind, err)
	}
	return len(found.Programs)
}
