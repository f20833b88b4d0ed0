package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/capture"
)

const killCluster = `
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: MODE}}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: shop}
spec:
  selector: {app: server}
  ports: [{name: tcp, port: 9000, targetPort: 9000}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: shop, labels: {app: server}}
spec:
  nodeName: n2
  containers: [{name: app, image: echo, ports: [{name: tcp-echo, containerPort: 9000}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: fresh, namespace: shop, labels: {app: fresh}}
spec:
  nodeName: n1
  containers: [{name: app, image: load, args: ["--url", "tcp://server:9000", "--rate", "100", "--concurrency", "8", "--bytes", "500", "--timeout", "3s", "--interval", "100ms"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: held, namespace: shop, labels: {app: held}}
spec:
  nodeName: n1
  containers: [{name: app, image: load, args: ["--url", "tcp://server:9000", "--rate", "50", "--concurrency", "4", "--bytes", "500", "--keep-alive", "--timeout", "3s", "--interval", "100ms"]}]
`

// sent is what the load's connections carry.
const sent = "echo 0123456789 abcdefghijklmnopqrstuvwxyz"

// progress is a line of the load's.
type progress struct {
	OK     float64          `json:"ok"`
	Errors map[string]int64 `json:"errors"`
}

func (l *lab) progress(t *testing.T, pod string) (p progress) {
	t.Helper()
	for line := range strings.Lines(l.run(t, "lab", "logs", "--name", l.name, pod)) {
		_ = json.Unmarshal([]byte(line), &p) // what is no line of the load's leaves it
	}
	return p
}

// answersMore waits until the load had n more answers.
func (l *lab) answersMore(t *testing.T, pod string, n float64) {
	t.Helper()
	before := l.progress(t, pod)
	for start := time.Now(); l.progress(t, pod).OK < before.OK+n; {
		if time.Since(start) > retryFor {
			t.Fatalf("%s: no %v more answers since %+v: %+v", pod, n, before, l.progress(t, pod))
		}
	}
}

// failsMore waits until the load had more errors: what was killed is noticed.
func (l *lab) failsMore(t *testing.T, pod string) {
	t.Helper()
	failures := func() (n int64) {
		for _, v := range l.progress(t, pod).Errors {
			n += v
		}
		return n
	}
	before := failures()
	for start := time.Now(); failures() == before; {
		if time.Since(start) > retryFor {
			t.Fatalf("%s notices nothing", pod)
		}
	}
}

// TestKilledUnderLoad kills the agents and the control plane while connections are
// made and used. To be refused is allowed; plaintext on the wire or a wrong answer
// never is.
func TestKilledUnderLoad(t *testing.T) {
	needRoot(t)
	build(t)
	l := newLab(t, strings.Replace(killCluster, "MODE", "none", 1))
	both := []string{"shop/fresh", "shop/held"}
	// plain counts packets with the load's bytes, as seen where all of the
	// server's node passes.
	plain := func(during func()) (n int) {
		t.Helper()
		witness, err := capture.Start(l.nodeNetNS(t, "n2"))
		if err != nil {
			t.Fatal(err)
		}
		during()
		if err := witness.Stop(); err != nil {
			t.Fatal(err)
		}
		for _, p := range witness.Packets() {
			if bytes.Contains(p.Payload, []byte(sent)) {
				n++
			}
		}
		return n
	}
	answered := func(n float64) {
		t.Helper()
		for _, pod := range both {
			l.answersMore(t, pod, n)
		}
	}
	if plain(func() { answered(20) }) == 0 {
		t.Fatal("the witness does not see the bytes without the mesh either")
	}
	if err := os.WriteFile(filepath.Join(l.dir, "cluster.yaml"), []byte(strings.Replace(killCluster, "MODE", "ambient", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	// A connection older than the enrolment stays as it is; the new pod has none.
	l.run(t, "lab", "delete", "--name", l.name, "pod", "shop/held")
	for start := time.Now(); ; {
		if plain(func() { answered(20) }) == 0 {
			break
		}
		if time.Since(start) > retryFor {
			t.Fatal("the namespace does not join the mesh")
		}
	}
	kill := func(part string) { l.run(t, "lab", "kill", "--name", l.name, part) }
	start := func(part string) { l.run(t, "lab", "start", "--name", l.name, part) }
	if n := plain(func() {
		for _, agent := range []string{"agent/n1", "agent/n2"} {
			kill(agent)
			l.failsMore(t, "shop/fresh")
			start(agent)
			answered(50)
		}
		kill("control-plane")
		answered(50)
		start("control-plane")
		answered(50)
		// All at once; then without the control plane, from the last state.
		kill("control-plane")
		kill("agent/n2")
		kill("agent/n1")
		l.failsMore(t, "shop/fresh")
		start("agent/n1")
		start("agent/n2")
		answered(50)
		start("control-plane")
		answered(20)
	}); n > 0 {
		t.Errorf("%d packets with the application's bytes in plain text", n)
	}
	for _, pod := range both {
		p := l.progress(t, pod)
		t.Logf("%s: %+v", pod, p)
		for kind := range p.Errors {
			if !slices.Contains([]string{"refused", "reset", "eof", "timeout"}, kind) {
				t.Errorf("%s: %s", pod, kind)
			}
		}
	}
}
