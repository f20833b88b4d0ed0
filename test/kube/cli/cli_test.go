// Package cli runs the command line's commands on a real API server, and those that
// look into proxies on a node with real ones.
package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// built is the command line and the images.
var built mesh.Shared

func TestMain(m *testing.M) { os.Exit(built.Run(m)) }

// build makes them, for tests that are asked for.
func build(t *testing.T, o cluster.Options) *mesh.Built {
	t.Helper()
	cluster.Asked(t, o)
	return built.Built(t, "../../..")
}

// shell is a cluster with the command line.
type shell struct {
	*testing.T
	*cluster.Cluster
	binary string
}

func start(t *testing.T, o cluster.Options) *shell {
	t.Helper()
	b := build(t, o)
	return &shell{t, cluster.ForTest(t, o), b.Binary}
}

// run runs the command line; want is its exit code.
func (m *shell) run(want int, args ...string) (stdout, stderr string) {
	m.Helper()
	cmd := exec.CommandContext(m.Context(), m.binary, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+m.Kubeconfig)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	ended := (*exec.ExitError)(nil)
	if err != nil && !errors.As(err, &ended) {
		m.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		m.Fatalf("fairlead %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// says runs the command line, which must succeed and say all of these.
func (m *shell) says(wants []string, args ...string) string {
	m.Helper()
	out, errs := m.run(0, args...)
	for _, want := range wants {
		if !strings.Contains(plain(out+errs), want) {
			m.Errorf("fairlead %s does not say %q:\n%s%s", strings.Join(args, " "), want, out, errs)
		}
	}
	return out
}

// plain is text with one blank for many.
func plain(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	return strings.Join(lines, "\n")
}

func (m *shell) apply(text string, args ...string) {
	m.Helper()
	if out, err := m.KubectlInput(m.Context(), text, append([]string{"apply", "-f", "-"}, args...)...); err != nil {
		m.Fatalf("kubectl apply: %v\n%s", err, out)
	}
}

// definitions are those of Istio's kinds and the Gateway API's, as the chart has them.
func (m *shell) definitions() {
	m.Helper()
	for _, name := range []string{"istio", "gateway-api"} {
		file := "../../../deploy/charts/fairlead/crds/" + name + ".yaml"
		if out, err := m.Kubectl(m.Context(), "apply", "--server-side", "-f", file); err != nil {
			m.Fatalf("%v\n%s", err, out)
		}
	}
	if out, err := m.Kubectl(m.Context(), "wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"); err != nil {
		m.Fatalf("%v\n%s", err, out)
	}
}

func TestWaypoints(t *testing.T) {
	m := start(t, cluster.Options{Name: "cliw"})
	_, errs := m.run(1, "waypoint", "apply")
	if !strings.Contains(errs, "missing Kubernetes Gateway CRDs") {
		t.Errorf("without the definitions: %s", errs)
	}
	m.definitions()
	m.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")
	m.says([]string{"No waypoints found."}, "waypoint", "list", "-A")
	m.says([]string{"namespace is not enrolled in ambient", "waypoint shop/waypoint applied", `namespace shop labeled with "istio.io/use-waypoint: waypoint"`},
		"waypoint", "apply", "-n", "shop", "--enroll-namespace", "--for", "all")
	m.says([]string{"Consider adding the `--overwrite` flag"}, "waypoint", "apply", "-n", "shop", "--enroll-namespace")
	m.says([]string{"waypoint shop/second applied"}, "waypoint", "apply", "-n", "shop", "--name", "second", "--revision", "r2")
	m.says([]string{"NAMESPACE NAME REVISION TRAFFIC TYPE PROGRAMMED", "shop second r2 service Unknown", "shop waypoint default all Unknown"}, "waypoint", "list", "-A")
	m.says([]string{"waypoint Unknown Programmed Pending"}, "waypoint", "status", "-n", "shop", "--wait=false")
	if _, errs := m.run(1, "waypoint", "apply", "-n", "shop", "--wait", "--waypoint-timeout", "1s"); !strings.Contains(errs, "timed out while waiting for waypoint") {
		t.Errorf("nobody programs it: %s", errs)
	}
	if _, errs := m.run(1, "waypoint", "apply", "-n", "shop", "--for", "everything"); !strings.Contains(errs, "Valid options are: [all none service workload]") {
		t.Errorf("for everything: %s", errs)
	}
	m.says([]string{"waypoint shop/second deleted", "waypoint shop/third not found"}, "waypoint", "delete", "second", "third", "-n", "shop")
	m.says([]string{"waypoint shop/waypoint deleted"}, "waypoint", "delete", "--all", "-n", "shop")
	m.says([]string{"No waypoints found."}, "waypoint", "list", "-n", "shop")
	m.apply("{apiVersion: v1, kind: Namespace, metadata: {name: old, labels: {istio.io/rev: canary}}}")
	m.says([]string{"TAG REVISION NAMESPACES", "canary default old"}, "tag", "list")
	if _, errs := m.run(1, "tag", "set", "prod", "--revision", "1-20"); !strings.Contains(errs, "one revision") {
		t.Errorf("tag set: %s", errs)
	}
	if out, errs := m.run(0, "version"); !strings.Contains(out, "client version: test") || !strings.Contains(errs, "Istio is not present in the cluster") {
		t.Errorf("version: %s%s", out, errs)
	}
}

// TestAnalyze looks at a cluster, at it as it would be with a file, and for fields that
// the API server has pruned.
func TestAnalyze(t *testing.T) {
	m := start(t, cluster.Options{Name: "clia"})
	m.definitions()
	m.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}")
	m.apply("{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}, ports: [{name: http, port: 80}]}}")
	m.says([]string{"Info [FL0104] (Namespace shop)", "kubectl label namespace shop istio.io/dataplane-mode=ambient"}, "analyze", "-n", "shop")
	m.apply(`
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: labels, namespace: shop}
spec: {metrics: [{providers: [{name: prometheus}], overrides: [{tags: {a: b}}]}]}
`, "--validate=false")
	out, errs := m.run(79, "analyze", "-A", "-o", "log")
	if !strings.Contains(out, `Error [FL0103] (Telemetry shop/labels) spec.metrics[0].overrides[0].tags: unknown field "tags"; did you mean "tagOverrides"?`) ||
		!strings.Contains(errs, "Error: Analyzers found issues when analyzing all namespaces.") {
		t.Errorf("a pruned field:\n%s%s", out, errs)
	}
	m.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules: [{backendRefs: [{name: web, port: 80}], retry: {attempts: 2}, sessionPersistence: {sessionName: s}}]
`, "--validate=false")
	out, _ = m.run(79, "analyze", "-n", "shop", "-S", "FL0103=Telemetry *.shop")
	for _, field := range []string{"retry", "sessionPersistence"} {
		if want := "Error [FL0103] (HTTPRoute shop/web) spec.rules[0]." + field + ": the cluster's definition of HTTPRoute is of the standard channel"; !strings.Contains(out, want) {
			t.Errorf("%q is not said of a field of the experimental channel:\n%s", want, out)
		}
	}
	m.apply("{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: web, namespace: shop}, spec: {parentRefs: [{group: \"\", kind: Service, name: web, port: 80}], rules: [{backendRefs: [{name: web, port: 80}]}]}}")
	file := filepath.Join(t.TempDir(), "route.yaml")
	text := "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec:\n  hosts: [web]\n  http:\n  - route:\n    - destination: {host: wep}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ = m.run(79, "analyze", "-n", "shop", "-S", "FL0103=Telemetry *.shop", file)
	if !strings.Contains(out, `Error [IST0101] (VirtualService shop/web `+file+`:8) Referenced host not found: "wep"`) || strings.Contains(out, "FL0103") {
		t.Errorf("a file over the cluster:\n%s", out)
	}
	out, _ = m.run(0, "analyze", "-n", "shop", "-o", "json", file)
	var list []struct{ Code, Level, Origin, Reference, Message string }
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) < 3 {
		t.Errorf("as JSON: %v %s", err, out)
	}
	m.run(0, "analyze", "-n", "kube-system")
}
