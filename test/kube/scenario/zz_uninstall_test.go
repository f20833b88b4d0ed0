package scenario

import (
	"errors"
	"strings"
	"testing"

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
	left := m.Do(t, "get", "crd,clusterrole,clusterrolebinding,validatingwebhookconfiguration,gatewayclass,namespace", "-o", "name", "--ignore-not-found")
	for line := range strings.Lines(left) {
		if strings.Contains(line, "istio") || strings.Contains(line, "fairlead") || strings.Contains(line, "ztunnel") {
			t.Errorf("left in the cluster: %s", line)
		}
	}
	// Pods that were in the mesh go on without it, unchanged.
	mesh.Eventually(t, "pods talk without the mesh", call)
	m.Do(t, "-n", ns, "delete", "pod", "client", "--now")
	m.Apply(t, client, "-n", ns)
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	mesh.Eventually(t, "a new pod starts and talks", call)
}
