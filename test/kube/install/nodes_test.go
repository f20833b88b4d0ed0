package install

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// On real nodes the installation waits until what it installed is ready, says why it is
// not, and verifies it; and a precheck looks at each node from within.
func TestOnNodes(t *testing.T) {
	if os.Getenv(cluster.Required) == "" {
		t.Skip("no cluster was asked for: `make test-kube` runs this")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	built, err := mesh.Build(ctx, root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := cluster.ForTest(t, cluster.Options{Name: "instnod", Nodes: 2, Images: built.Images})
	out, code := fairlead(t, c, "x", "precheck", "--on-nodes", "--set", "hub="+mesh.Hub, "--set", "tag="+mesh.Tag)
	if code != 0 {
		t.Fatalf("precheck, exit code %d:\n%s", code, out)
	}
	images := []string{"--set", "hub=" + mesh.Hub, "--set", "tag=" + mesh.Tag, "--set", "profile=demo", "-y"}
	out = must(t, c, append([]string{"install", "--readiness-timeout=3m"}, images...)...)
	for _, want := range []string{"✔ Deployment istio-system/istiod: 1 of 1 ready", "✔ DaemonSet istio-system/ztunnel: 2 of 2 nodes ready", "✔ Installation complete"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said:\n%s", want, out)
		}
	}
	if out := must(t, c, append([]string{"install", "--readiness-timeout=3m"}, images...)...); !strings.Contains(out, "✔ Nothing to do") {
		t.Errorf("the second installation:\n%s", out)
	}
	if out := must(t, c, "verify-install"); !strings.Contains(out, "are there, unchanged and healthy") {
		t.Errorf("verify-install:\n%s", out)
	}

	// An image that nobody has is named, with the pod and the node; the old ones go on.
	out, code = fairlead(t, c, append(append([]string{"install"}, images...), "--set", "tag=nowhere", "--readiness-timeout=20s")...)
	if code != 1 || !strings.Contains(out, "not ready after 20s") || !strings.Contains(out, "localhost/fairlead/control-plane:nowhere") {
		t.Errorf("an image that nobody has, exit code %d:\n%s", code, out)
	}
	if out, code := fairlead(t, c, "verify-install"); code != 1 || !strings.Contains(out, "✘ Deployment istio-system/istiod is not healthy") {
		t.Errorf("verify-install after it, exit code %d:\n%s", code, out)
	}
	must(t, c, append([]string{"install", "--readiness-timeout=3m"}, images...)...)

	kubectl(t, c, "", "-n", "istio-system", "delete", "daemonset", "ztunnel")
	if out, code := fairlead(t, c, "verify-install"); code != 1 || !strings.Contains(out, "✘ DaemonSet istio-system/ztunnel is missing") {
		t.Errorf("verify-install without agents, exit code %d:\n%s", code, out)
	}
	must(t, c, "upgrade", "-y", "--readiness-timeout=3m")
	must(t, c, "verify-install")

	// Agents that are not wanted any more are gone, and their nodes clean, before their rights go.
	out = must(t, c, append([]string{"install", "--readiness-timeout=3m"}, append(images, "--set", "profile=minimal")...)...)
	if !strings.Contains(out, "- delete DaemonSet istio-system/ztunnel") || !strings.Contains(out, "- delete ServiceAccount istio-system/ztunnel") {
		t.Errorf("the profile without agents:\n%s", out)
	}
	for _, n := range c.Nodes {
		if left := ours(ctx, t, n); left != "" {
			t.Errorf("left on %s by an installation without agents:\n%s", n.Name, left)
		}
	}
	must(t, c, append([]string{"install", "--readiness-timeout=3m"}, images...)...)

	// A node that is away when the mesh is taken out is named, with what to run there.
	n := c.Nodes[1]
	n.Kill()
	for kubectl(t, c, "", "get", "node", n.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`) == "True" ||
		strings.Contains(kubectl(t, c, "", "-n", "istio-system", "get", "pods", "-l", "app=ztunnel", "--field-selector", "spec.nodeName="+n.Name,
			"-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`), "True") {
		if ctx.Err() != nil {
			t.Fatal("the cluster does not notice that a node is away")
		}
		pause(ctx)
	}
	out, code = fairlead(t, c, "uninstall", "-y")
	command := "kubectl debug node/" + n.Name + " --profile=sysadmin --image=" + mesh.Hub + "/node-agent:" + mesh.Tag + " -- node-agent uninstall --host=/host"
	if code != 3 || !strings.Contains(out, "1 nodes had no ready agent to clean them: "+n.Name) || !strings.Contains(out, command) || strings.Contains(out, "node/"+c.Nodes[0].Name) {
		t.Errorf("uninstall with a node that is away, exit code %d:\n%s", code, out)
	}
	if left := ours(ctx, t, c.Nodes[0]); left != "" {
		t.Errorf("left on %s, whose agent was there:\n%s", c.Nodes[0].Name, left)
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if ours(ctx, t, n) == "" {
		t.Error("nothing is left on the node that was away: the command below proves nothing")
	}
	kubectl(t, c, "", strings.Fields(command)[1:]...)
	for left := ours(ctx, t, n); left != ""; left = ours(ctx, t, n) {
		if ctx.Err() != nil {
			t.Fatalf("left after the command that was named:\n%s\n%s", left, kubectl(t, c, "", "get", "pods", "-A", "-o", "wide"))
		}
		pause(ctx)
	}
	must(t, c, "uninstall", "--purge", "-y")
	t.Run("helm", func(t *testing.T) { helmOnNodes(t, c) })
	t.Run("remote", func(t *testing.T) { remote(t, c) })
}

// pause is between two looks at a cluster.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}

// ours is what an agent has put on a node.
func ours(ctx context.Context, t *testing.T, n *cluster.Node) string {
	t.Helper()
	out, err := n.Run(ctx, "sh", "-ec", `find /sys/fs/bpf /run/fairlead /var/lib/fairlead /opt/cni/bin -mindepth 1 | grep -i -e fairlead/ -e fairlead-cni || true
grep -l fairlead /etc/cni/net.d/* || true`)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
