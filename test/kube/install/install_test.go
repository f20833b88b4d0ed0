package install

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

const root = "../../.."

// command is the command line, built when it is first asked for.
var command struct {
	once      sync.Once
	dir, path string
	err       error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if command.dir != "" {
		_ = os.RemoveAll(command.dir)
	}
	os.Exit(code)
}

func binary(t *testing.T) string {
	t.Helper()
	command.once.Do(func() {
		if command.dir, command.err = os.MkdirTemp("", "fairlead-install"); command.err == nil {
			command.path, command.err = mesh.Program(context.Background(), root, command.dir, "fairlead")
		}
	})
	if command.err != nil {
		t.Fatal(command.err)
	}
	return command.path
}

// fairlead runs the command line on the cluster, and returns what it said and the exit code.
func fairlead(t *testing.T, c *cluster.Cluster, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary(t), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	ended := (*exec.ExitError)(nil)
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// must runs the command line, which has to succeed.
func must(t *testing.T, c *cluster.Cluster, args ...string) string {
	t.Helper()
	out, code := fairlead(t, c, args...)
	if code != 0 {
		t.Fatalf("fairlead %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// kubectl runs kubectl, which has to succeed.
func kubectl(t *testing.T, c *cluster.Cluster, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.KubectlPath(), append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// noWait is for an API server without nodes, where no pod gets ready.
const noWait = "--readiness-timeout=0"

// everything are the objects of all kinds that an installation could leave.
func everything(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	return kubectl(t, c, "", "get", "--ignore-not-found", "-A", "-o", "name",
		"all,configmaps,secrets,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,leases,poddisruptionbudgets,horizontalpodautoscalers,"+
			"endpointslices,validatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings,customresourcedefinitions,namespaces")
}

// What is installed is there; a second installation changes nothing; what is lost is named
// and restored; and a purge leaves the cluster as it was found.
func TestInstallAndPurge(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{Name: "instone"})
	before := everything(t, c)
	if out := must(t, c, "install", "--set", "profile=production", "-y", noWait); !strings.Contains(out, "54 to create, 0 to change, 0 to delete") {
		t.Errorf("the first installation:\n%s", out)
	}
	if out := must(t, c, "install", "--set", "profile=production", "-y", noWait); !strings.Contains(out, "0 to create, 0 to change, 0 to delete, 54 unchanged\n✔ Nothing to do") {
		t.Errorf("the second installation changes something:\n%s", out)
	}
	kubectl(t, c, "", "-n", "istio-system", "delete", "daemonset", "ztunnel")
	kubectl(t, c, "", "-n", "istio-system", "patch", "service", "istiod", "--type=json", "-p", `[{"op":"replace","path":"/spec/ports/1/targetPort","value":15999}]`)
	out, code := fairlead(t, c, "verify-install")
	if code != 1 || !strings.Contains(out, "✘ DaemonSet istio-system/ztunnel is missing") || !strings.Contains(out, "✘ Service istio-system/istiod was changed: (spec.ports)") {
		t.Errorf("verify-install, exit code %d:\n%s", code, out)
	}
	if out := must(t, c, "upgrade", "-y", noWait); !strings.Contains(out, "profile production") || !strings.Contains(out, "+ create DaemonSet istio-system/ztunnel") || !strings.Contains(out, "~ change Service istio-system/istiod (spec.ports)") {
		t.Errorf("the upgrade does not restore what was lost, as it was asked for:\n%s", out)
	}
	// The API server takes what each profile renders.
	for profile, more := range map[string]string{"default": "network=", "demo": "network=", "minimal": "network=", "remote": "remote.address=10.1.2.3", "production": "settings.injectionLabel=true"} {
		must(t, c, "install", "--set", "profile="+profile, "--set", more, "--dry-run")
	}
	// An upgrade goes on from what was asked for.
	if out := must(t, c, "upgrade", "--set", "controlPlane.logLevel=debug", "-y", noWait); !strings.Contains(out, "profile production") || !strings.Contains(out, "0 to create, 2 to change, 0 to delete") {
		t.Errorf("an upgrade with a setting:\n%s", out)
	}
	// Another profile takes away what it does not have.
	if out := must(t, c, "install", "--set", "profile=demo", "-y", noWait); !strings.Contains(out, "- delete HorizontalPodAutoscaler istio-system/istiod") {
		t.Errorf("the change of the profile:\n%s", out)
	}
	must(t, c, "uninstall", "-y")
	if left := kubectl(t, c, "", "get", "all,cm,sa,role,rolebinding,clusterrole,clusterrolebinding,validatingwebhookconfiguration", "-A", "-l", "fairlead.dev/component", "-o", "name"); left != "" {
		t.Errorf("uninstall leaves:\n%s", left)
	}
	if kept := kubectl(t, c, "", "get", "crd", "-o", "name"); !strings.Contains(kept, "virtualservices") {
		t.Errorf("uninstall without --purge takes the definitions of kinds along:\n%s", kept)
	}
	must(t, c, "uninstall", "--purge", "-y")
	if after := everything(t, c); after != before {
		t.Errorf("a purge leaves, or took:\nbefore:\n%s\nafter:\n%s", before, after)
	}
	if out := must(t, c, "uninstall", "--purge", "-y"); !strings.Contains(out, "Nothing to do") {
		t.Errorf("a second purge:\n%s", out)
	}
	if out, code := fairlead(t, c, "verify-install"); code != 1 || !strings.Contains(out, "fairlead has installed no mesh") {
		t.Errorf("verify-install without an installation, exit code %d:\n%s", code, out)
	}
}

// A wrong request, a dry run and an answer no leave the cluster alone.
func TestNothingIsTouched(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{Name: "insttwo"})
	file := filepath.Join(t.TempDir(), "mesh.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  profile: prodution\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := everything(t, c)
	for _, step := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"install", "-f", file, "-y"}, 2, file + `:4: spec.profile: no profile "prodution": there are default, demo, minimal, production, remote; did you mean "production"?`},
		{[]string{"install", "--set", "controlPlane.replica=2", "-y"}, 2, `--set controlPlane.replica: no such value; did you mean "replicas"?`},
		{[]string{"install", "-f", "/nowhere.yaml", "-y"}, 2, "no such file"},
		{[]string{"install", "--dry-run"}, 0, "54 to create"},
		{[]string{"install"}, 1, "not confirmed"}, // with nobody there to answer
		{[]string{"upgrade", "-y"}, 1, "fairlead has installed no mesh"},
		{[]string{"install", "--set", "nodeAgent.affinity.nodeAfinity.x=1", "-y", noWait}, 2, "nodeAfinity"},
	} {
		out, code := fairlead(t, c, step.args...)
		if code != step.code || !strings.Contains(out, step.want) {
			t.Errorf("fairlead %s: exit code %d, want %d and %q:\n%s", strings.Join(step.args, " "), code, step.code, step.want, out)
		}
	}
	if after := everything(t, c); after != before {
		t.Errorf("something was touched:\nbefore:\n%s\nafter:\n%s", before, after)
	}
}

// What another installation put there is not taken over unasked, and definitions of
// others serve, and stay when the mesh goes.
func TestOthersObjects(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{Name: "instthr"})
	kubectl(t, c, `
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: istiod, namespace: istio-system}
spec:
  selector: {matchLabels: {app: istiod, istio.io/rev: default}}
  template:
    metadata: {labels: {app: istiod, istio.io/rev: default}}
    spec: {containers: [{name: discovery, image: istio/pilot:1.29}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: sidecars.networking.istio.io}
spec:
  group: networking.istio.io
  names: {kind: Sidecar, listKind: SidecarList, plural: sidecars, singular: sidecar}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`, "apply", "-f", "-")
	out, code := fairlead(t, c, "install", "-y", noWait)
	if code != 1 || !strings.Contains(out, "were not installed by fairlead: Deployment istio-system/istiod.") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if image := kubectl(t, c, "", "-n", "istio-system", "get", "deploy", "istiod", "-o", "jsonpath={.spec.template.spec.containers[*].image}"); image != "istio/pilot:1.29" {
		t.Errorf("the other's Deployment runs %s", image)
	}
	out = must(t, c, "install", "-y", "--force", noWait)
	if !strings.Contains(out, "leave 1 definitions of kinds to who installed them") {
		t.Errorf("with --force:\n%s", out)
	}
	must(t, c, "uninstall", "--purge", "-y")
	if left := kubectl(t, c, "", "get", "namespace,crd", "-o", "name"); !strings.Contains(left, "istio-system") || !strings.Contains(left, "sidecars.networking.istio.io") || strings.Contains(left, "virtualservices") {
		t.Errorf("the purge takes what is not fairlead's, or leaves what is:\n%s", left)
	}
}
