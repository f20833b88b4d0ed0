package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// answers is the report of `fairlead app load`.
type answers struct {
	Requests, OK int
	Errors       map[string]int
	Answers      map[string]int `json:"counts"`
}

// load runs the load generator in the client's pod.
func load(t *testing.T, m *mesh.Mesh, ns string, args ...string) answers {
	t.Helper()
	out, err := m.Exec(t.Context(), ns, "client", args...)
	var a answers
	if jsonErr := json.Unmarshal([]byte(out), &a); jsonErr != nil {
		t.Fatalf("load: %v (%v): %s", err, jsonErr, out)
	}
	return a
}

// server is an echo server of two replicas behind a Service.
const server = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: server}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: server}
spec:
  replicas: 2
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      serviceAccountName: server
      nodeSelector: {kubernetes.io/hostname: n2}
      containers:
      - name: echo
        image: "` + apps.Echo + `"
        args: [--http, "8080"]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080}]}
`

func TestRollingRestartsUnderLoadLoseNoRequest(t *testing.T) {
	m := installed(t)
	const ns = "rolling"
	m.Namespace(t, ns, true)
	m.Apply(t, server+"\n---\n"+client, "-n", ns)
	m.Do(t, "-n", ns, "rollout", "status", "deploy/server", "--timeout=60s")
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	waypoint(t, m, ns)
	enrolled(t, m, ns)
	for _, c := range []struct{ what, namespace, object, url string }{
		{"the node agent", "istio-system", "daemonset/ztunnel", "http://server/"},
		{"the control plane", "istio-system", "deployment/istiod", "http://server/"},
		{"the waypoint", ns, "deployment/waypoint", "http://server/"},
	} {
		if c.namespace == ns {
			m.Do(t, "-n", ns, "label", "service", "server", "istio.io/use-waypoint=waypoint")
			mesh.Eventually(t, "requests pass the waypoint", func() error {
				out, err := m.Exec(t.Context(), ns, "client", "curl", "-sS", "-D-", "-o", "/dev/null", c.url)
				if err == nil && !strings.Contains(strings.ToLower(out), "x-envoy-upstream-service-time") && !strings.Contains(out, "istio-envoy") {
					err = errors.New(out)
				}
				return err
			})
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan string, 1)
		go func() {
			out, _ := m.Exec(ctx, ns, "client", "fairlead", "app", "load", "--url", c.url, "--rate", "100", "--concurrency", "20", "--duration", "45s", "--timeout", "5s")
			done <- out
		}()
		begin := time.Now()
		m.Do(t, "-n", c.namespace, "rollout", "restart", c.object)
		m.Do(t, "-n", c.namespace, "rollout", "status", c.object, "--timeout=80s")
		took := time.Since(begin)
		out := <-done
		stop()
		var a answers
		if err := json.Unmarshal([]byte(out), &a); err != nil {
			t.Fatalf("%s: load: %v: %s", c.what, err, out)
		}
		if a.Requests < 1000 || len(a.Errors) > 0 || a.OK != a.Requests {
			t.Errorf("%s was restarted in %s under load: %s", c.what, took.Round(time.Second), out)
		} else {
			t.Logf("%s was restarted in %s under load: %d requests, none failed", c.what, took.Round(time.Second), a.Requests)
		}
	}
}

// hasty connects with its first act, and says what it met.
const hasty = `
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: hasty}}
spec:
  nodeName: n1
  restartPolicy: Never
  serviceAccountName: client
  containers:
  - name: curl
    image: "` + apps.Tools + `"
    command: [curl, -sS, -m, "5", "http://server.hasty/MARK"]
`

func TestPodThatConnectsAtOnceIsInTheMesh(t *testing.T) {
	m := installed(t)
	const ns, outside, mark = "hasty", "stranger", "said-in-the-first-millisecond"
	m.Namespace(t, ns, true)
	m.Apply(t, server+"\n---\n"+client, "-n", ns)
	m.Do(t, "-n", ns, "rollout", "status", "deploy/server", "--timeout=60s")
	run := func(name, space string) {
		t.Helper()
		m.Apply(t, strings.NewReplacer("NAME", name, "MARK", mark+"-"+space).Replace(hasty), "-n", space)
		m.Do(t, "-n", space, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/"+name, "--timeout=60s")
	}
	// Positive control: a pod outside of the mesh says the same, and the capture has it.
	m.Namespace(t, outside, false)
	m.Do(t, "-n", outside, "create", "serviceaccount", "client")
	wire := between(t, m)
	run("outside", outside)
	for i := range 5 {
		run("inside-"+string(rune('a'+i)), ns)
	}
	if err := wire.Stop(); err != nil {
		t.Fatal(err)
	}
	if !onWire(wire, mark+"-"+outside) {
		t.Error("the capture does not have what the pod outside said: it proves nothing")
	}
	if onWire(wire, mark+"-"+ns) {
		t.Error("a pod of the mesh said its first words in clear")
	}
}
