package scenario

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

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
	for _, c := range []struct{ what, namespace, object, selector string }{
		{"the node agent", "istio-system", "daemonset/ztunnel", "app=ztunnel"},
		{"the control plane", "istio-system", "deployment/istiod", "app=istiod"},
		{"the waypoint", ns, "deployment/waypoint", "gateway.networking.k8s.io/gateway-name=waypoint"},
	} {
		if c.namespace == ns {
			m.Do(t, "-n", ns, "label", "service", "server", "istio.io/use-waypoint=waypoint")
			mesh.Eventually(t, "requests pass the waypoint", func() error { return throughWaypoint(t, m, ns) })
		}
		s := begin(t, m, ns, "load-"+strings.ReplaceAll(c.object, "/", "-"), "--rate", "100", "--concurrency", "20")
		took := rolled(t, m, c.namespace, c.object, c.selector, func() { m.Do(t, "-n", c.namespace, "rollout", "restart", c.object) })
		s.end(fmt.Sprintf("%s was restarted in %s under load", c.what, took))
	}
}

// throughWaypoint is the error of a request for the server that did not pass a waypoint.
func throughWaypoint(t *testing.T, m *mesh.Mesh, ns string) error {
	out, err := m.Exec(t.Context(), ns, "client", "curl", "-sS", "-D-", "-o", "/dev/null", "http://server/")
	if err == nil && !strings.Contains(out, "istio-envoy") {
		err = errors.New(out)
	}
	return err
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
