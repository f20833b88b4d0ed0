package install

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/capture"
	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
	"github.com/fairlead-mesh/fairlead/test/kube/page"
)

// talkers are two pods on two nodes.
const talkers = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers: [{name: tools, image: "` + apps.Tools + `"}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: shop, labels: {app: server}}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 1
  containers: [{name: echo, image: "` + apps.Echo + `", args: [--http, "8080"]}]
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: shop}
spec: {selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080}]}
`

// commandLine is how docs/remote.md starts the control plane.
const commandLine = "control-plane --kubeconfig=mesh.kubeconfig --waypoint-image=HUB/waypoint:TAG"

// remote installs agents alone, with a control plane on a machine beside the cluster, as
// docs/remote.md says. Pods join, and what they say passes between the nodes in TLS.
func remote(t *testing.T, c *cluster.Cluster) {
	file := filepath.Join(root, "docs", "remote.md")
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "\n"+commandLine+"\n") {
		t.Fatalf("the page has not the command line %q (%v)", commandLine, err)
	}
	p := page.Open(t, file, c, "CONTROL_PLANE="+cluster.BesideAddress, "API_SERVER="+cluster.BesideServer)
	p.Program(t, "fairlead", binary(t))
	for i, block := range p.Blocks[""] { // from the tree's images
		p.Blocks[""][i] = strings.Replace(block, "install -y", "install -y --set hub="+mesh.Hub+" --set tag="+mesh.Tag, 1)
	}
	p.Run(t, "", 0)
	p.Run(t, "", 1)
	program, err := mesh.Program(t.Context(), root, p.Dir, "control-plane")
	if err != nil {
		t.Fatal(err)
	}
	line := strings.NewReplacer("control-plane ", program+" ", "HUB", mesh.Hub, "TAG", mesh.Tag, "mesh.kubeconfig", filepath.Join(p.Dir, "mesh.kubeconfig")).Replace(commandLine)
	if err := c.Beside(t.Context(), "remote", strings.Fields(line)...); err != nil {
		t.Fatal(err)
	}
	p.Run(t, "", 2)
	if out := kubectl(t, c, "", "get", "pods", "-n", "istio-system", "-o", "name"); strings.Contains(out, "istiod") || strings.Count(out, "ztunnel") != 2 {
		t.Errorf("pods of the mesh: %s", out)
	}

	kubectl(t, c, talkers, "apply", "-f", "-")
	kubectl(t, c, "", "-n", "shop", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
	says := func(word string) (seen, tls bool) {
		t.Helper()
		wire, err := capture.Start(c.Nodes[0].NetNS().Path())
		if err != nil {
			t.Fatal(err)
		}
		mesh.Eventually(t, "the server answers", func() error {
			_, err := c.Kubectl(context.Background(), "-n", "shop", "exec", "client", "--", "curl", "-sS", "-m", "5", "http://server/"+word)
			return err
		})
		if err := wire.Stop(); err != nil {
			t.Fatal(err)
		}
		for _, p := range wire.Packets() {
			seen = seen || p.Device == "eth0" && strings.Contains(string(p.Payload), word)
		}
		return seen, wire.TLS13(15008)
	}
	if seen, tls := says("before-the-label"); !seen || tls {
		t.Errorf("before the pods join, what they say was seen: %v; TLS: %v", seen, tls)
	}
	kubectl(t, c, "", "label", "namespace", "shop", "istio.io/dataplane-mode=ambient")
	for _, pod := range []string{"client", "server"} {
		kubectl(t, c, "", "-n", "shop", "wait", `--for=jsonpath={.metadata.annotations.ambient\.istio\.io/redirection}=enabled`, "pod/"+pod, "--timeout=60s")
	}
	if seen, tls := says("after-the-label"); seen || !tls {
		t.Errorf("after the pods have joined, what they say was seen: %v; TLS: %v", seen, tls)
	}
	// A waypoint is made by the control plane outside, and finds it.
	must(t, c, "waypoint", "apply", "-n", "shop", "--enroll-namespace", "--wait")
	kubectl(t, c, "", "-n", "shop", "rollout", "status", "deploy/waypoint", "--timeout=60s")
	mesh.Eventually(t, "requests pass the waypoint", func() error {
		out, err := c.Kubectl(context.Background(), "-n", "shop", "exec", "client", "--", "curl", "-sS", "-m", "5", "-D-", "-o", "/dev/null", "http://server/")
		if err == nil && !strings.Contains(out, "istio-envoy") {
			err = errors.New(out)
		}
		return err
	})
	// It is no pod that could be asked, and is asked by its address.
	if out, code := fairlead(t, c, "proxy-status"); code == 0 || !strings.Contains(out, "--xds-address") {
		t.Errorf("without an address: %d\n%s", code, out)
	}
	p.Beside(c)
	said := p.Run(t, "", 3)
	for _, want := range []string{"control plane version: ", "data plane version: ", "ztunnel-", "waypoint-", "SYNCED"} {
		if !strings.Contains(said, want) {
			t.Errorf("the control plane outside does not say %q:\n%s", want, said)
		}
	}
	kubectl(t, c, "", "delete", "namespace", "shop", "--wait=false")
	must(t, c, "uninstall", "--purge", "-y")
}
