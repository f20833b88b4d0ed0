package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

	// Positive control: without the label the capture sees what the application says.
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
	for _, edge := range [][2]string{{"productpage", "details"}, {"productpage", "reviews"}, {"reviews", "ratings"}, {"client", "productpage"}} {
		if !recorded(records, ns, edge[0], edge[1]) {
			t.Errorf("no access record of %s -> %s with both identities", edge[0], edge[1])
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

// recorded reports an access record from one service account of a namespace to another.
func recorded(records, namespace, from, to string) bool {
	name := func(s string) string {
		if s != "client" {
			s = "bookinfo-" + s
		}
		return `identity="spiffe://cluster.local/ns/` + namespace + "/sa/" + s + `"`
	}
	for line := range strings.Lines(records) {
		if strings.Contains(line, "src."+name(from)) && strings.Contains(line, "dst."+name(to)) {
			return true
		}
	}
	return false
}

func TestStrictRefusesStrangersAndNotProbes(t *testing.T) {
	m := installed(t)
	const ns, outside = "strict", "outside"
	m.Namespace(t, ns, true)
	m.Namespace(t, outside, false)
	m.Apply(t, client, "-n", outside)
	bookinfo(t, m, ns)
	m.Do(t, "-n", outside, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	if err := whole(page(t.Context(), m, ns, outside)); err != nil {
		t.Fatalf("without a policy a stranger may call: %v", err)
	}
	m.Apply(t, "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n", "-n", ns)
	mesh.Eventually(t, "a stranger's plain text is refused", func() error {
		if out, err := page(t.Context(), m, ns, outside); err == nil {
			return fmt.Errorf("it is answered: %s", out)
		}
		return nil
	})
	if err := whole(page(t.Context(), m, ns, ns)); err != nil {
		t.Errorf("within the mesh: %v", err)
	}
	// The pods' readiness is asked for every ten seconds, three failures make them
	// unready; a new pod shows it in one.
	m.Do(t, "-n", ns, "rollout", "restart", "deploy/productpage-v1")
	m.Do(t, "-n", ns, "rollout", "status", "deploy/productpage-v1", "--timeout=60s")
	begin := time.Now()
	mesh.Eventually(t, "probes go on for half a minute", func() error {
		if out := m.Do(t, "-n", ns, "get", "events", "--field-selector=reason=Unhealthy", "-o", "jsonpath={.items[*].message}"); strings.Contains(out, "reset") || strings.Contains(out, "EOF") {
			t.Fatalf("probes were refused: %s", out)
		}
		if time.Since(begin) < 30*time.Second {
			return errors.New("not over")
		}
		return nil
	})
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=10s")
}

func TestSampleOfTheTutorialComesUp(t *testing.T) {
	m := installed(t)
	manifest, err := filepath.Abs(filepath.Join(root, "..", "shared", "seed", "manifests", "02-bookinfo-deployment.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Skip("the tutorial's manifests are not beside this tree")
	}
	const ns = "tutorial"
	m.Namespace(t, ns, true)
	m.Apply(t, strings.ReplaceAll(string(text), "namespace: default", "namespace: "+ns), "-n", ns)
	m.Apply(t, client, "-n", ns)
	m.Do(t, "-n", ns, "rollout", "status", "deploy/productpage", "--timeout=80s")
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	for name, p := range people(t, m, ns) {
		if p.Containers != 1 {
			t.Errorf("%s has %d containers: the sidecar annotations ask for none here", name, p.Containers)
		}
	}
	out, err := m.Exec(t.Context(), ns, "client", "curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "http://productpage:9080/health")
	if err != nil || out != "200" {
		t.Errorf("productpage answers %s (%v)", out, err)
	}
}
