package cluster_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

const workloads = `
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  nodeName: n1
  containers: [{name: echo, image: localhost/fairlead/echo:1, args: [--http, "8080"], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}]
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: n2
  containers: [{name: tools, image: localhost/fairlead/tools:1}]
`

func TestPodsOfTwoNodesTalkByName(t *testing.T) {
	o := cluster.Options{Name: "two", Nodes: 2}
	cluster.Asked(t, o)
	dir := t.TempDir()
	binary, err := mesh.Program(t.Context(), "../../..", dir, "fairlead")
	if err != nil {
		t.Fatal(err)
	}
	images, err := apps.Write(t.Context(), binary, dir)
	if err != nil {
		t.Fatal(err)
	}
	o.Images = []string{images}
	c := cluster.ForTest(t, o)
	kubectl := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := c.Kubectl(ctx, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if _, err := c.KubectlInput(t.Context(), workloads, "apply", "-f-"); err != nil {
		t.Fatal(err)
	}
	call := func() {
		t.Helper()
		kubectl("wait", "--for=condition=Ready", "pod/server", "pod/client", "--timeout=60s")
		out := kubectl("exec", "client", "--", "curl", "-sS", "--retry", "20", "--retry-all-errors", "--retry-delay", "1", "http://server/")
		if !strings.Contains(out, "server") {
			t.Errorf("the echo server does not say its name: %s", out)
		}
	}
	call()

	// A node's process 1 is the node: it ends with it, and comes back with its pods.
	node := c.Nodes[0]
	if ns, err := node.Run(t.Context(), "readlink", "/proc/1/ns/net"); err != nil || ns == link(t, "/proc/self/ns/net") {
		t.Errorf("/proc/1 of the node is in the network namespace %q (%v)", ns, err)
	}
	node.Kill()
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	if err := node.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	call()
	overcommit, err := os.ReadFile("/proc/sys/kernel/panic_on_oops")
	if err != nil || strings.TrimSpace(string(overcommit)) != before {
		t.Errorf("the kubelet changed this machine: kernel.panic_on_oops is %s, was %s (%v)", overcommit, before, err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, "kube-two-")
}

var before = func() string {
	b, _ := os.ReadFile("/proc/sys/kernel/panic_on_oops")
	return strings.TrimSpace(string(b))
}()

func link(t *testing.T, path string) string {
	t.Helper()
	s, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return s + "\n"
}

func nothingLeft(t *testing.T, prefix string) {
	t.Helper()
	spaces, err := netns.List()
	if err != nil {
		t.Fatal(err)
	}
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*/" + prefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(spaces, cgroups...) {
		if strings.HasPrefix(filepath.Base(name), prefix) {
			t.Errorf("left behind: %s", name)
		}
	}
	if strings.Contains(string(mounts), prefix) {
		t.Errorf("mounts left behind:\n%s", mounts)
	}
}
