package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	labs "github.com/fairlead-mesh/fairlead/pkg/lab"
	"github.com/fairlead-mesh/fairlead/pkg/lab/app"
)

// lab is a running cluster of a test written in Go.
type lab struct{ name, dir string }

// newLab brings a cluster up and takes it down at the end of the test.
func newLab(t *testing.T, yaml string) *lab {
	t.Helper()
	l := &lab{name: fmt.Sprintf("e2e-%d-%d", os.Getpid(), time.Now().UnixNano()%1_000_000), dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(l.dir, "cluster.yaml"), []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the cluster was %s; logs of its agents are above", l.dir)
		}
		l.run(t, "lab", "down", "--name", l.name)
	})
	more, err := upArgs(l.name)
	if err != nil {
		t.Fatal(err)
	}
	l.run(t, append([]string{"lab", "up", "--name", l.name, "--detach", l.dir}, more...)...)
	return l
}

func (l *lab) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(binaries, "fairlead"), args...)
	out, err := cmd.Output()
	if err != nil {
		stderr := ""
		if e, ok := err.(*exec.ExitError); ok {
			stderr = string(e.Stderr)
		}
		t.Fatalf("fairlead %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr)
	}
	return string(out)
}

// view is what `lab ps -o json` says.
func (l *lab) view(t *testing.T) (v labs.View) {
	t.Helper()
	if err := json.Unmarshal([]byte(l.run(t, "lab", "ps", "--name", l.name, "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (l *lab) node(t *testing.T, name string) labs.NodeView {
	t.Helper()
	nodes := l.view(t).Nodes
	i := slices.IndexFunc(nodes, func(n labs.NodeView) bool { return n.Name == name })
	if i < 0 {
		t.Fatalf("no node %s", name)
	}
	return nodes[i]
}

// pod is "namespace/name".
func (l *lab) pod(t *testing.T, name string) labs.PodView {
	t.Helper()
	pods := l.view(t).Pods
	i := slices.IndexFunc(pods, func(p labs.PodView) bool { return p.Namespace+"/"+p.Name == name })
	if i < 0 {
		t.Fatalf("no pod %s", name)
	}
	return pods[i]
}

// podIP is the address of "namespace/name" in a family: 0 is IPv4, 1 IPv6.
func (l *lab) podIP(t *testing.T, pod string, family int) string {
	t.Helper()
	for _, ip := range l.pod(t, pod).IPs {
		if strings.Contains(ip, ":") == (family == 1) {
			return ip
		}
	}
	t.Fatalf("no address of family %d for %s", family, pod)
	return ""
}

// load is what the load generator in a pod has said last.
func (l *lab) load(t *testing.T, pod string) app.LoadResult {
	t.Helper()
	last, _ := lastLoad(l.run(t, "lab", "logs", "--name", l.name, pod))
	return last
}

// lastLoad is the last word of a load generator's log, and how many lines it has.
func lastLoad(log string) (last app.LoadResult, lines int) {
	for line := range strings.Lines(log) {
		_ = json.Unmarshal([]byte(line), &last) // what is no line of the load's leaves it
		lines++
	}
	return last, lines
}

// eventually waits until done.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for start := time.Now(); !done(); {
		if time.Since(start) > retryFor {
			t.Fatalf("not in %s: %s", retryFor, what)
		}
	}
}

// answersMore waits until the load had n more answers.
func (l *lab) answersMore(t *testing.T, pod string, n int64) {
	t.Helper()
	before := l.load(t, pod)
	eventually(t, fmt.Sprintf("%d more answers for %s than %+v", n, pod, before), func() bool { return l.load(t, pod).OK >= before.OK+n })
}

// failsMore waits until the load had more errors: what was killed is noticed.
func (l *lab) failsMore(t *testing.T, pod string) {
	t.Helper()
	before := l.load(t, pod)
	eventually(t, pod+" notices that something was killed", func() bool { return l.load(t, pod).Failed > before.Failed })
}

const twoNodes = `
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
`

// echoPod is a pod that echoes HTTP and more on 8080, and bytes on 9000.
func echoPod(namespace, name, node string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]s, labels: {app: %[2]s}}
spec:
  nodeName: %[3]s
  containers: [{name: app, image: echo, ports: [{name: http, containerPort: 8080}, {name: tcp-echo, containerPort: 9000}]}]
---
apiVersion: v1
kind: Service
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  selector: {app: %[2]s}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000, targetPort: 9000}]
`, namespace, name, node)
}

// loadPod is a pod that asks a service of its namespace's for bytes.
func loadPod(namespace, name, node string, args ...string) string {
	quoted, _ := json.Marshal(append([]string{"--bytes", "500", "--interval", "100ms"}, args...)) // strings
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  nodeName: %s
  containers: [{name: app, image: load, args: %s}]
`, name, namespace, node, quoted)
}

// namespace is a namespace in a mode: ambient or none.
func namespace(name, mode string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {istio.io/dataplane-mode: %s}}\n", name, mode)
}
