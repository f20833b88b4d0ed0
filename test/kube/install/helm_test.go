package install

import (
	"bytes"
	"errors"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// helm runs the real Helm on the cluster, and returns what it said and the exit code.
func helm(t *testing.T, c *cluster.Cluster, args ...string) (string, int) {
	t.Helper()
	path, err := cluster.Part("helm")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	// Nothing of the user's Helm.
	dir := t.TempDir()
	cmd.Env = []string{"KUBECONFIG=" + c.Kubeconfig, "HOME=" + dir}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	ended := (*exec.ExitError)(nil)
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// mustHelm runs Helm, which has to succeed.
func mustHelm(t *testing.T, c *cluster.Cluster, args ...string) string {
	t.Helper()
	out, code := helm(t, c, args...)
	if code != 0 {
		t.Fatalf("helm %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// packed is the chart as a release publishes it, of the version Tag.
func packed(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	dir := t.TempDir()
	mustHelm(t, c, "package", filepath.Join(root, "deploy", "charts", "fairlead"), "--version", "1.2.3", "--app-version", mesh.Tag, "-d", dir)
	return filepath.Join(dir, "fairlead-1.2.3.tgz")
}

// objectsOf are the objects of a manifest, by kind and name.
func objectsOf(t *testing.T, manifest string) map[string]*unstructured.Unstructured {
	t.Helper()
	out := map[string]*unstructured.Unstructured{}
	for doc := range strings.SplitSeq("\n"+manifest, "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if len(u.Object) > 0 {
			out[u.GetKind()+"/"+u.GetName()] = u
		}
	}
	return out
}

// The real Helm renders what `fairlead` renders, finds nothing wrong with the chart, and
// says what is wrong with values.
func TestHelmRenders(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{Name: "insthlm"})
	chart := packed(t, c)
	mustHelm(t, c, "lint", "--strict", filepath.Join(root, "deploy", "charts", "fairlead"))
	for _, values := range [][]string{
		nil, {"--set", "networkPolicy.enabled=true,settings.injectionLabel=true,network=here"},
		{"--set", "controlPlane.enabled=false,remote.address=10.1.2.3"},
	} {
		ours := objectsOf(t, must(t, c, append([]string{"manifest", "generate"}, values...)...))
		theirs := objectsOf(t, mustHelm(t, c, append([]string{"template", "fairlead", chart, "-n", "istio-system", "--include-crds", "--no-hooks"}, values...)...))
		// What `fairlead` remembers, and the namespace, which is Helm's --create-namespace.
		delete(ours, "ConfigMap/fairlead-install")
		delete(ours, "Namespace/istio-system")
		if d := cmp.Diff(ours, theirs); d != "" {
			t.Errorf("%v: Helm renders other objects (-fairlead +helm):\n%s", values, d)
		}
	}
	for _, wrong := range []struct{ set, want string }{
		{"controlPlane.replica=3", "at '/controlPlane': additional properties 'replica' not allowed"},
		{"controlPlane.replicas=many", "at '/controlPlane/replicas': got string, want integer"},
		{"webhook.failurePolicy=fail", "at '/webhook/failurePolicy': value must be one of 'Ignore', 'Fail'"},
		{"controlPlane.enabled=false", "remote.address: where controlPlane.enabled is false, the address of the control plane that serves this cluster is required"},
	} {
		if out, code := helm(t, c, "install", "fairlead", chart, "-n", "istio-system", "--create-namespace", "--set", wrong.set); code != 1 || !strings.Contains(out, wrong.want) {
			t.Errorf("helm install --set %s: exit code %d, %q is not said:\n%s", wrong.set, code, wrong.want, out)
		}
	}
	if out, code := helm(t, c, "install", "fairlead", chart); code != 1 || !strings.Contains(out, "the mesh is installed into the namespace istio-system, and this release is of default: give helm `-n istio-system`") {
		t.Errorf("into another namespace, exit code %d:\n%s", code, out)
	}
	t.Run("beside fairlead", func(t *testing.T) { besideFairlead(t, c, chart) })
	t.Run("pod security", func(t *testing.T) { podSecurity(t, c, chart) })
}

// besideFairlead: a mesh has one owner, Helm or `fairlead`; the other refuses it, says so, and
// takes it over when it is told to.
func besideFairlead(t *testing.T, c *cluster.Cluster, chart string) {
	release := []string{"install", "fairlead", chart, "-n", "istio-system"}
	must(t, c, "install", "-y", noWait)
	if out, code := helm(t, c, release...); code != 1 || !strings.Contains(out, "invalid ownership metadata") {
		t.Errorf("helm install over an installation by fairlead, exit code %d:\n%s", code, out)
	}
	mustHelm(t, c, append(release, "--take-ownership", "--force-conflicts")...)

	const whose = "the mesh in this cluster is the release fairlead of Helm: `helm upgrade fairlead CHART -n istio-system` changes it, `helm uninstall fairlead -n istio-system` takes it out"
	held := everything(t, c)
	for _, args := range [][]string{{"install", "-y", noWait}, {"upgrade", "-y", noWait}, {"uninstall", "-y"}, {"uninstall", "--purge", "-y"}} {
		out, code := fairlead(t, c, args...)
		if code != 1 || !strings.Contains(out, whose) || strings.Contains(out, "with --force") != (args[0] != "uninstall") {
			t.Errorf("fairlead %s over a release of Helm, exit code %d:\n%s", strings.Join(args, " "), code, out)
		}
	}
	if now := everything(t, c); now != held {
		t.Errorf("what was refused changed something: from\n%s\nto\n%s", held, now)
	}

	const forget = "kubectl delete secret -n istio-system -l owner=helm,name=fairlead"
	out := must(t, c, "install", "-y", "--force", noWait)
	if !strings.Contains(out, forget) {
		t.Errorf("how Helm forgets the release is not said:\n%s", out)
	}
	if out := must(t, c, "install", "-y", noWait); !strings.Contains(out, "Nothing to do") {
		t.Errorf("the installation after it was taken over:\n%s", out)
	}
	kubectl(t, c, "", strings.Fields(forget)[1:]...)
	if out := mustHelm(t, c, "list", "-A", "-q"); strings.TrimSpace(out) != "" {
		t.Errorf("Helm remembers:\n%s", out)
	}
	must(t, c, "uninstall", "-y")
}

// podSecurity: the control plane and what Helm runs before an uninstallation are admitted at
// Pod Security's level restricted. The agent is not, for what it cannot do without.
func podSecurity(t *testing.T, c *cluster.Cluster, chart string) {
	for level, name := range map[string]string{"restricted": "strict", "privileged": "open"} {
		kubectl(t, c, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+name+", labels: {pod-security.kubernetes.io/enforce: "+level+"}}\n", "create", "-f", "-")
	}
	objects := objectsOf(t, mustHelm(t, c, "template", "fairlead", chart, "-n", "istio-system"))
	try := func(object, namespace string) (string, error) {
		pod := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "tried", "namespace": namespace}}}
		spec, ok, err := unstructured.NestedMap(objects[object].Object, "spec", "template", "spec")
		if err != nil || !ok {
			t.Fatalf("%s has no pods: %v; there are %v", object, err, slices.Sorted(maps.Keys(objects)))
		}
		delete(spec, "serviceAccountName")
		delete(spec, "priorityClassName") // its class is admitted in kube-system alone by some
		pod.Object["spec"] = spec
		text, err := yaml.Marshal(pod.Object)
		if err != nil {
			t.Fatal(err)
		}
		return c.KubectlInput(t.Context(), string(text), "create", "--dry-run=server", "-f", "-")
	}
	for _, object := range []string{"Deployment/istiod", "Job/fairlead-withdraw"} {
		mesh.Eventually(t, object+" is admitted at the level restricted", func() error { // once the namespace's account is there
			_, err := try(object, "strict")
			return err
		})
	}
	mesh.Eventually(t, "the agent is admitted at the level privileged", func() error {
		_, err := try("DaemonSet/ztunnel", "open")
		return err
	})
	_, err := try("DaemonSet/ztunnel", "strict")
	if err == nil {
		t.Fatal("the agent is admitted at the level restricted: docs/install.md says otherwise")
	}
	for _, fault := range []string{"privileged", "allowPrivilegeEscalation", "seccompProfile", "host namespaces"} {
		if strings.Contains(strings.ReplaceAll(err.Error(), "privileged\":", ""), fault) {
			t.Errorf("the agent is refused for %s too: %v", fault, err)
		}
	}
	for _, need := range []string{"hostPath", `"SYS_ADMIN"`} {
		if !strings.Contains(err.Error(), need) {
			t.Errorf("the agent is not refused for %s: %v", need, err)
		}
	}
}
