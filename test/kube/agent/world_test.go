package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lab/app"
	"github.com/fairlead-mesh/fairlead/test/capture"
	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// The image of the program that talks in its first millisecond, and what it says.
const (
	early  = "localhost/fairlead/early:1"
	secret = "said-in-clear"
)

// world is a cluster of two nodes, the product's images, and what tests ask of them.
type world struct {
	*testing.T
	c        *cluster.Cluster
	fairlead string
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = "../../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// begin makes the images and the cluster, installs the mesh, and applies the apps.
func begin(t *testing.T, name string) *world {
	t.Helper()
	o := cluster.Options{Name: name, Nodes: 2}
	dir := t.TempDir()
	cluster.Asked(t, o)
	fairlead, err := mesh.Program(t.Context(), "../../..", dir, "fairlead")
	if err != nil {
		t.Fatal(err)
	}
	images, err := apps.Write(t.Context(), fairlead, dir)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "early")
	run(t, "go", "build", "-trimpath", "-o", program, "./test/kube/agent/early")
	talker := filepath.Join(dir, "early.tar")
	if err := (cluster.Archive{Files: map[string]string{"/early": program}, Images: map[string][]string{early: {"/early"}}}).Write(talker); err != nil {
		t.Fatal(err)
	}
	for tag, more := range map[string]string{"n": "", "next": "nextlayout"} { // two versions: the next one's maps in the kernel have another layout
		run(t, "go", "run", "./deploy/images", "--platform", "linux/amd64", "--tag", tag, "--tags", more, "--out", filepath.Join(dir, tag))
	}
	o.Images = []string{images, talker, filepath.Join(dir, "n", "control-plane.tar"), filepath.Join(dir, "n", "node-agent.tar"), filepath.Join(dir, "next", "node-agent.tar")}
	w := &world{T: t, c: cluster.ForTest(t, o), fairlead: fairlead}
	w.install()
	w.apply(workloads)
	w.until("the pods run", func() bool {
		return w.kubectl("-n", "shop", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s") != ""
	})
	return w
}

func (w *world) install() {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), w.fairlead, "install", "-y", "--set", "tag=n", "--set", "hub=localhost/fairlead", "--set", "pullPolicy=Never")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.c.Kubeconfig)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("install: %v\n%s\n%s", err, out, w.agents())
	}
}

// agents is the end of the agents' logs.
func (w *world) agents() string {
	out, _ := w.c.Kubectl(context.Background(), "-n", "istio-system", "logs", "-l", "app=ztunnel", "--tail=60", "--prefix")
	var kept []string
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "connection complete") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func (w *world) kubectl(args ...string) string {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 2*time.Minute)
	defer cancel()
	out, err := w.c.Kubectl(ctx, args...)
	if err != nil {
		w.Fatal(err)
	}
	return out
}

func (w *world) apply(manifest string) {
	w.Helper()
	if _, err := w.c.KubectlInput(w.Context(), manifest, "apply", "-f-"); err != nil {
		w.Fatal(err)
	}
}

func (w *world) until(what string, ok func() bool) {
	w.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			w.Fatalf("waited in vain: %s\n%s\n%s", what, w.kubectl("get", "pods", "-A", "-o", "wide"), w.agents())
		}
	}
}

// of is a field of a pod.
func (w *world) of(pod, path string) string {
	w.Helper()
	namespace, name, _ := strings.Cut(pod, "/")
	out, err := w.c.Kubectl(w.Context(), "-n", namespace, "get", "pod", name, "--ignore-not-found", "-o", "jsonpath={"+path+"}")
	if err != nil {
		w.Fatal(err)
	}
	return out
}

const annotation = `.metadata.annotations.ambient\.istio\.io/redirection`

// said are the lines that the talker of a pod has printed.
func (w *world) said(pod string) []string {
	w.Helper()
	namespace, name, _ := strings.Cut(pod, "/")
	out, err := w.c.Kubectl(w.Context(), "-n", namespace, "logs", name)
	if err != nil {
		return nil // it has not started
	}
	return strings.Fields(strings.ReplaceAll(strings.TrimSpace(out), " ", "_"))
}

// lastSaid is what the talker of a pod said last.
func (w *world) lastSaid(pod string) string {
	w.Helper()
	if lines := w.said(pod); len(lines) > 0 {
		return lines[len(lines)-1]
	}
	return ""
}

// lastLoad is what a load that is a pod's program has said last.
func (w *world) lastLoad(pod string) (last app.LoadResult) {
	w.Helper()
	namespace, name, _ := strings.Cut(pod, "/")
	out, _ := w.c.Kubectl(w.Context(), "-n", namespace, "logs", name, "--tail=3") // it may not have started
	for line := range strings.Lines(out) {
		_ = json.Unmarshal([]byte(line), &last) // what is no line of the load's leaves it
	}
	return last
}

// listen captures on all devices of a node until the returned function is called,
// which says whether the secret was seen.
func (w *world) listen(node int) func() bool {
	w.Helper()
	c, err := capture.Start(w.c.Nodes[node].NetNS().Path())
	if err != nil {
		w.Fatal(err)
	}
	return func() bool {
		w.Helper()
		seen := c.Contains(secret)
		if err := c.Stop(); err != nil {
			w.Error(err)
		}
		return seen
	}
}

// load asks the server from the client's pod for as long as work takes, and returns
// what it says of it.
func (w *world) load(work func(), args ...string) string {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	args = append([]string{"-n", "shop", "exec", "client", "--", "fairlead", "app", "load", "--url", "http://server:8080/"}, args...)
	type end struct {
		out string
		err error
	}
	done := make(chan end, 1)
	go func() {
		out, err := w.c.Kubectl(ctx, args...)
		done <- end{out, err}
	}()
	work()
	e := <-done
	if e.err != nil {
		w.Fatal(e.err)
	}
	return e.out
}

// talker is a pod that talks in its first millisecond.
func talker(pod, node string) string {
	namespace, name, _ := strings.Cut(pod, "/")
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: %s, imagePullPolicy: Never, args: ["server.shop:9000", %s]}]
`, name, namespace, node, early, secret)
}

const workloads = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: plain}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: shop, labels: {app: server}}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: localhost/fairlead/echo:1
    imagePullPolicy: Never
    args: [--http, "8080", --tcp, "9000"]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {tcpSocket: {port: 9000}, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 2}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: shop}
spec: {selector: {app: server}, ports: [{name: http, port: 8080}, {name: tcp, port: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: "localhost/fairlead/tools:1", imagePullPolicy: Never}]
`

// The pods whose programs hold connections without a tunnel: out of the mesh, and in.
var holding = []string{"shop/teller", "plain/caller"}

const held = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: open, namespace: shop, labels: {for: held}}
spec: {selector: {matchLabels: {app: open}}, mtls: {mode: PERMISSIVE}}
---
apiVersion: v1
kind: Pod
metadata: {name: open, namespace: shop, labels: {app: open, for: held}}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: "localhost/fairlead/echo:1", imagePullPolicy: Never, args: [--http, "8080", --tcp, "9000"]}]
---
apiVersion: v1
kind: Service
metadata: {name: open, namespace: shop, labels: {for: held}}
spec: {selector: {app: open}, ports: [{name: tcp, port: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: peer, namespace: plain, labels: {app: peer, for: held}}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: "localhost/fairlead/echo:1", imagePullPolicy: Never, args: [--http, "8080", --tcp, "9000"]}]
---
apiVersion: v1
kind: Service
metadata: {name: peer, namespace: plain, labels: {for: held}}
spec: {selector: {app: peer}, ports: [{name: tcp, port: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: teller, namespace: shop}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: localhost/fairlead/tools:1
    imagePullPolicy: Never
    command: [fairlead, app, load, --keep-alive, --url, "tcp://peer.plain:9000", --bytes, "2000", --rate, "10", --concurrency, "2", --interval, 1s]
---
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: plain}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: localhost/fairlead/tools:1
    imagePullPolicy: Never
    command: [fairlead, app, load, --keep-alive, --url, "tcp://open.shop:9000", --bytes, "2000", --rate, "10", --concurrency, "2", --interval, 1s]
`
