package install

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// caller asks the server of talkers ten times a second, and writes down what failed.
const caller = `
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: shop}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers: [{name: tools, image: "` + apps.Tools + `", command: [sh, -c, "while :; do curl -sS -m 10 -o /dev/null http://server/ && echo served || echo failed; sleep 0.1; done"]}]
`

// helmOnNodes installs, upgrades and uninstalls with the real Helm, while pods of the mesh
// talk. The uninstallation has to let them go, though it takes the agents' rights along.
func helmOnNodes(t *testing.T, c *cluster.Cluster) {
	before := strings.Fields(everything(t, c))
	chart := packed(t, c)
	captured := func() string {
		return strings.TrimSpace(kubectl(t, c, "", "-n", "shop", "get", "pods", "-o", `jsonpath={.items[*].metadata.annotations.ambient\.istio\.io/redirection}`))
	}
	served := func() (served, failed int) {
		out := kubectl(t, c, "", "-n", "shop", "logs", "caller")
		return strings.Count(out, "served"), strings.Count(out, "failed")
	}
	mustHelm(t, c, "install", "fairlead", chart, "-n", "istio-system", "--create-namespace", "-f", filepath.Join(root, "deploy/charts/fairlead/profiles/demo.yaml"),
		"--set", "hub="+mesh.Hub, "--wait", "--timeout", "3m")
	kubectl(t, c, talkers, "apply", "-f", "-")
	kubectl(t, c, "", "label", "namespace", "shop", "istio.io/dataplane-mode=ambient")
	kubectl(t, c, "", "-n", "shop", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
	kubectl(t, c, caller, "apply", "-f", "-")
	kubectl(t, c, "", "-n", "shop", "wait", "--for=condition=Ready", "pod/caller", "--timeout=60s")
	mesh.Eventually(t, "all pods are captured, and requests served", func() error {
		if n, _ := served(); captured() != "enabled enabled enabled" || n == 0 {
			return errors.New(captured())
		}
		return nil
	})

	for _, n := range c.Nodes { // the runtime holds the agent to its profile
		if out, err := n.Run(t.Context(), "sh", "-ec", "grep -h ^Seccomp: $(grep -l '^Name:.node-agent$' /proc/[0-9]*/status)"); err != nil || strings.Join(strings.Fields(out), "") != "Seccomp:2" {
			t.Errorf("the agent on %s has %q (%v)", n.Name, out, err)
		}
	}

	_, failed := served() // those before the server was ready
	mustHelm(t, c, "upgrade", "fairlead", chart, "-n", "istio-system", "--reuse-values", "--set", "nodeAgent.logLevel=debug", "--wait", "--timeout", "3m")
	if args := kubectl(t, c, "", "-n", "istio-system", "get", "daemonset", "ztunnel", "-o", "jsonpath={.status.updatedNumberScheduled} {.spec.template.spec.containers[0].args}"); !strings.HasPrefix(args, "2 ") || !strings.Contains(args, "--log-level=debug") {
		t.Errorf("after the upgrade the agents have %s", args)
	}
	if n, now := served(); now > failed {
		t.Errorf("%d of %d requests failed during the upgrade", now-failed, n)
	}

	// An upgrade that wants no agents lets pods go as an uninstallation does, and brings them back.
	released := func(how string) {
		t.Helper()
		if got := captured(); got != "" {
			t.Errorf("after %s pods are said to be in the mesh: %s", how, got)
		}
		for _, n := range c.Nodes {
			if left := ours(context.Background(), t, n); left != "" {
				t.Errorf("%s leaves on %s:\n%s", how, n.Name, left)
			}
		}
		mesh.Eventually(t, "pods talk after "+how, func() error {
			_, err := c.Kubectl(context.Background(), "-n", "shop", "exec", "client", "--", "curl", "-sS", "-m", "5", "http://server/")
			return err
		})
	}
	mustHelm(t, c, "upgrade", "fairlead", chart, "-n", "istio-system", "--reuse-values", "--set", "nodeAgent.enabled=false", "--wait", "--timeout", "3m")
	released("an upgrade without agents")
	mustHelm(t, c, "upgrade", "fairlead", chart, "-n", "istio-system", "--reuse-values", "--set", "nodeAgent.enabled=true", "--wait", "--timeout", "3m")
	mesh.Eventually(t, "all pods are captured again", func() error {
		if captured() != "enabled enabled enabled" {
			return errors.New(captured())
		}
		return nil
	})
	out := mustHelm(t, c, "uninstall", "fairlead", "-n", "istio-system", "--wait", "--timeout", "3m")
	if !strings.Contains(out, "the agents of 2 nodes have cleaned them and are gone") {
		t.Errorf("helm uninstall does not say what became of the nodes:\n%s", out)
	}
	released("helm uninstall")

	kubectl(t, c, "", "delete", "namespace", "shop", "--timeout=60s")
	// What Helm leaves is what docs/install.md names, and a purge takes it.
	more := func() (more []string) {
		for _, o := range strings.Fields(everything(t, c)) {
			if !slices.Contains(before, o) && !slices.ContainsFunc(c.Nodes, func(n *cluster.Node) bool { return o == "lease.coordination.k8s.io/"+n.Name }) {
				more = append(more, o)
			}
		}
		return more
	}
	for _, o := range more() {
		if !strings.HasPrefix(o, "customresourcedefinition.") && !slices.Contains([]string{"configmap/istio-ca-root-cert", "secret/istio-ca-secret", "lease.coordination.k8s.io/fairlead-leader", "namespace/istio-system"}, o) {
			t.Errorf("helm uninstall leaves %s", o)
		}
	}
	must(t, c, "uninstall", "--purge", "-y")
	kubectl(t, c, "", "delete", "namespace", "istio-system", "--timeout=60s") // Helm made it, and does not say so on it
	if left := more(); len(left) > 0 {
		t.Errorf("a purge after it leaves %s", left)
	}
}
