package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/capture"
	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// client is a pod to call from, on the node that serves most of the sample's other half.
const client = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: client}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  serviceAccountName: client
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers: [{name: tools, image: "` + apps.Tools + `"}]
`

// bookinfo applies the sample and a client to a namespace and waits until all are ready.
func bookinfo(t *testing.T, m *mesh.Mesh, namespace string) {
	t.Helper()
	sample, err := filepath.Abs(filepath.Join(root, "examples", "bookinfo", "bookinfo.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	m.Do(t, "-n", namespace, "apply", "-f", sample)
	m.Apply(t, client, "-n", namespace)
	m.Do(t, "-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=80s")
}

// page calls the sample's front page from the client and returns it with its status.
func page(ctx context.Context, m *mesh.Mesh, namespace, from string, args ...string) (string, error) {
	url := "http://productpage." + namespace + ":9080/productpage"
	return m.Exec(ctx, from, "client", append([]string{"curl", "-sS", "-m", "5", "-w", "\n%{http_code}", url}, args...)...)
}

// whole is the error of a page on which something of the sample is missing.
func whole(out string, err error) error {
	if err != nil {
		return err
	}
	for _, part := range []string{"The Comedy of Errors", "Book Details", "PublisherA", "Reviewer1", "\n200"} {
		if !strings.Contains(out, part) {
			return fmt.Errorf("the page has no %q: %s", part, out)
		}
	}
	return nil
}

// person is what a pod must keep when it joins the mesh.
type person struct {
	UID                  string
	Restarts, Containers int
}

func people(t *testing.T, m *mesh.Mesh, namespace string) map[string]person {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name, UID string }
			Status   struct {
				ContainerStatuses []struct{ RestartCount int }
			}
		}
	}
	if err := json.Unmarshal([]byte(m.Do(t, "-n", namespace, "get", "pods", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]person{}
	for _, p := range list.Items {
		one := person{UID: p.Metadata.UID, Containers: len(p.Status.ContainerStatuses)}
		for _, c := range p.Status.ContainerStatuses {
			one.Restarts += c.RestartCount
		}
		out[p.Metadata.Name] = one
	}
	return out
}

// enrolled waits until every pod of a namespace says that it is in the mesh;
// waypoints are it without.
func enrolled(t *testing.T, m *mesh.Mesh, namespace string) {
	t.Helper()
	mesh.Eventually(t, "every pod is enrolled", func() error {
		out := m.Do(t, "-n", namespace, "get", "pods", "-l", "!gateway.networking.k8s.io/gateway-name", "-o", `jsonpath={range .items[*]}{.metadata.name}={.metadata.annotations.ambient\.istio\.io/redirection}{"\n"}{end}`)
		for line := range strings.Lines(out) {
			if name, state, _ := strings.Cut(strings.TrimSpace(line), "="); state != "enabled" {
				return errors.New(name + " is not")
			}
		}
		return nil
	})
}

// between captures what passes between the nodes.
func between(t *testing.T, m *mesh.Mesh) *capture.Capture {
	t.Helper()
	c, err := capture.Start(m.Nodes[0].NetNS().Path())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// onWire returns the payloads of a capture that left the node or came to it.
func onWire(c *capture.Capture, text string) bool {
	for _, p := range c.Packets() {
		if p.Device == "eth0" && strings.Contains(string(p.Payload), text) {
			return true
		}
	}
	return false
}

func TestNamespaceJoinsByLabelWithoutChangeToItsPods(t *testing.T) {
	m := installed(t)
	const ns = "bookinfo"
	m.Namespace(t, ns, false)
	bookinfo(t, m, ns)
	m.Do(t, "-n", ns, "scale", "deploy/productpage-v1", "--replicas=2")
	m.Do(t, "-n", ns, "rollout", "status", "deploy/productpage-v1", "--timeout=60s")
	before := people(t, m, ns)

	// The label of those who come from sidecars does nothing by itself, and is told from that which does.
	m.Do(t, "label", "namespace", ns, "istio-injection=enabled")
	if out, _ := m.Fairlead(t.Context(), "analyze", "-n", ns); !strings.Contains(out, "kubectl label namespace "+ns+" istio.io/dataplane-mode=ambient") {
		t.Errorf("analyze does not say how the namespace joins: %s", out)
	}

	// Positive control: without the label of the mesh the capture sees what the application says.
	wire := between(t, m)
	if err := whole(page(t.Context(), m, ns, ns)); err != nil {
		t.Fatal(err)
	}
	mesh.Eventually(t, "the plain text is seen between the nodes", func() error {
		if !onWire(wire, "Reviewer1") && !onWire(wire, "PublisherA") {
			return errors.New("the capture has none of it")
		}
		return nil
	})
	if err := wire.Stop(); err != nil {
		t.Fatal(err)
	}
	if out := m.Do(t, "-n", ns, "get", "pods", "-o", `jsonpath={.items[*].metadata.annotations.ambient\.istio\.io/redirection}`); out != "" {
		t.Errorf("before the namespace has the label, pods say of their enrolment: %s", out)
	}

	begin := time.Now()
	m.Do(t, "label", "namespace", ns, "istio.io/dataplane-mode=ambient")
	enrolled(t, m, ns)
	t.Logf("%d running pods were enrolled %s after the label", len(before), time.Since(begin).Round(10*time.Millisecond))
	for name, was := range before {
		if is := people(t, m, ns)[name]; is != was || is.Containers != 1 {
			t.Errorf("%s was %+v, is %+v: one container, not restarted", name, was, is)
		}
	}

	wire = between(t, m)
	for range 12 {
		if err := whole(page(t.Context(), m, ns, ns)); err != nil {
			t.Fatal(err)
		}
	}
	if err := wire.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"Reviewer1", "PublisherA", "Comedy of Errors", "GET /"} {
		if onWire(wire, text) {
			t.Errorf("%q passed between the nodes in clear", text)
		}
	}
	if !wire.TLS13(15008) {
		t.Error("no TLS 1.3 handshake of port 15008 was seen")
	}

	records := m.Do(t, "-n", "istio-system", "logs", "-l", "app=ztunnel", "--tail=-1", "--prefix=false")
	var metrics string
	for agent := range strings.FieldsSeq(m.Do(t, "-n", "istio-system", "get", "pods", "-l", "app=ztunnel", "-o", "jsonpath={.items[*].metadata.name}")) {
		metrics += m.Do(t, "get", "--raw", "/api/v1/namespaces/istio-system/pods/"+agent+":15020/proxy/metrics")
	}
	for _, edge := range [][2]string{{"productpage", "details"}, {"productpage", "reviews"}, {"reviews", "ratings"}, {"client", "productpage"}} {
		from, to := identity(ns, edge[0]), identity(ns, edge[1])
		if !hasLine(records, `src.identity="`+from+`"`, `dst.identity="`+to+`"`) {
			t.Errorf("no access record of %s -> %s with both identities", edge[0], edge[1])
		}
		if !hasLine(metrics, "istio_tcp_connections_opened_total{", `source_principal="`+from+`"`, `destination_principal="`+to+`"`, `connection_security_policy="mutual_tls"`) {
			t.Errorf("no connections of %s -> %s are counted with both identities", edge[0], edge[1])
		}
	}

	// Without the label the pods are as before, and were never restarted.
	m.Do(t, "label", "namespace", ns, "istio.io/dataplane-mode-")
	wire = between(t, m)
	mesh.Eventually(t, "without the label the pods talk in clear again", func() error {
		if err := whole(page(t.Context(), m, ns, ns)); err != nil {
			t.Fatal(err)
		}
		if !onWire(wire, "PublisherA") {
			return errors.New("the capture has nothing in clear")
		}
		return nil
	})
	if err := wire.Stop(); err != nil {
		t.Fatal(err)
	}
	for name, was := range before {
		if is := people(t, m, ns)[name]; is != was {
			t.Errorf("%s was %+v, is %+v", name, was, is)
		}
	}
}

// identity is that of a service account of the sample.
func identity(namespace, account string) string {
	if account != "client" {
		account = "bookinfo-" + account
	}
	return "spiffe://cluster.local/ns/" + namespace + "/sa/" + account
}

// hasLine reports a line with all of the parts.
func hasLine(text string, parts ...string) bool {
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			return true
		}
	}
	return false
}

// tutorial is the sample as people have it who come from sidecars: what the annotations ask for
// has no meaning here.
const tutorial = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: productpage, namespace: default, labels: {app: productpage, version: v1}}
spec:
  replicas: 2
  selector: {matchLabels: {app: productpage, version: v1}}
  template:
    metadata:
      labels: {app: productpage, version: v1}
      annotations: {sidecar.istio.io/inject: "true", sidecar.istio.io/proxyCPU: "100m", sidecar.istio.io/proxyMemory: "128Mi"}
    spec:
      containers:
      - name: productpage
        image: istio/examples-bookinfo-productpage-v1:1.18.0
        ports: [{containerPort: 9080}]
        readinessProbe: {httpGet: {path: /health, port: 9080}, initialDelaySeconds: 5, periodSeconds: 10}
---
apiVersion: v1
kind: Service
metadata: {name: productpage, namespace: default}
spec: {selector: {app: productpage}, ports: [{name: http, port: 9080}]}
`

// The tutorial's sample comes up under STRICT: two replicas of one container, which the kubelet
// asks for their health; strangers are refused; and its annotations are no errors.
func TestSampleOfTheTutorialComesUpUnderStrict(t *testing.T) {
	m := installed(t)
	sample := tutorial
	if text, err := os.ReadFile(filepath.Join(root, "..", "shared", "seed", "manifests", "02-bookinfo-deployment.yaml")); err == nil {
		sample = string(text)
	}
	const ns, outside = "tutorial", "outside"
	sample = strings.ReplaceAll(sample, "namespace: default", "namespace: "+ns)
	m.Namespace(t, ns, true)
	m.Namespace(t, outside, false)
	m.Apply(t, "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n", "-n", ns)
	m.Apply(t, sample, "-n", ns)
	for _, space := range []string{ns, outside} {
		m.Apply(t, client, "-n", space)
		m.Do(t, "-n", space, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	}
	m.Do(t, "-n", ns, "rollout", "status", "deploy/productpage", "--timeout=80s")
	if ready := m.Do(t, "-n", ns, "get", "deploy/productpage", "-o", "jsonpath={.status.readyReplicas}"); ready != "2" {
		t.Errorf("%s replicas are ready", ready)
	}
	for name, p := range people(t, m, ns) {
		if p.Containers != 1 {
			t.Errorf("%s has %d containers: the sidecar annotations ask for none here", name, p.Containers)
		}
	}
	health := func(from string) (string, error) {
		return m.Exec(t.Context(), from, "client", "curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "http://productpage."+ns+":9080/health")
	}
	if out, err := health(ns); err != nil || out != "200" {
		t.Errorf("productpage answers %s (%v)", out, err)
	}
	mesh.Eventually(t, "a stranger's plain text is reset", func() error {
		out, err := health(outside)
		if err == nil {
			t.Fatalf("a stranger is answered: %s", out)
		}
		if !strings.Contains(err.Error(), "reset by peer") { // until the Service is known on its node
			return err
		}
		return nil
	})
	file := filepath.Join(t.TempDir(), "sample.yaml")
	if err := os.WriteFile(file, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := m.Fairlead(t.Context(), "analyze", "-n", ns, file)
	if err != nil || strings.Contains(out, "Error [") {
		t.Errorf("annotations for sidecars are no errors: %v", out)
	}
	for _, annotation := range []string{"inject", "proxyCPU", "proxyMemory"} {
		if !hasLine(out, "Info [", "sidecar.istio.io/"+annotation) {
			t.Errorf("analyze has no note about sidecar.istio.io/%s:\n%s", annotation, out)
		}
	}
}
