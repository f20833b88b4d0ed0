package scenario

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// workload is one that is served on two ports, and unready from the first probe that fails.
const workload = `
apiVersion: v1
kind: Pod
metadata: {name: APP, labels: {app: APP}}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 1
  containers:
  - name: echo
    image: "` + apps.Echo + `"
    args: [--http, "8080,9080"]
    readinessProbe: {httpGet: {path: /, port: 9080}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 1}
---
apiVersion: v1
kind: Service
metadata: {name: APP}
spec: {selector: {app: APP}, ports: [{name: tcp-a, port: 8080}, {name: tcp-b, port: 9080}]}
`

// strictMesh is the tutorial's manifest of mutual TLS: STRICT for the mesh, for one workload and
// for one port of it.
const strictMesh = `
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec:
  mtls: {mode: STRICT}
  selector: {matchLabels: {app: reviews}}
  portLevelMtls: {9080: {mode: STRICT}}
`

// asking is a pod that asks every port of the workloads ten times a second, one container each.
func asking(name string, targets []string, more ...string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  nodeName: n1\n  terminationGracePeriodSeconds: 1\n  containers:\n", name)
	for _, target := range targets {
		text.WriteString(generator(container(target), append([]string{"--url", "tcp://" + target, "--bytes", "64", "--rate", "10", "--timeout", "3s"}, more...)...))
	}
	return text.String()
}

func container(target string) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(target)
}

// PeerAuthentication has four levels: the mesh, a namespace, a workload, a port, of which the
// narrower wins. What a level closes is closed to strangers' plain text at once, connections
// that go on among them; what it does not name stays as it was, and so do the mesh's own
// connections and the kubelet's probes.
func TestPeerAuthenticationHasFourLevels(t *testing.T) {
	m := installed(t)
	const ns, other, outside = "levels", "elsewhere", "plain"
	m.Namespace(t, ns, true)
	m.Namespace(t, other, true)
	m.Namespace(t, outside, false)
	for app, space := range map[string]string{"web": ns, "reviews": ns, "shop": other} {
		m.Apply(t, strings.ReplaceAll(workload, "APP", app), "-n", space)
	}
	targets := []string{"web.levels:8080", "web.levels:9080", "reviews.levels:8080", "reviews.levels:9080", "shop.elsewhere:8080", "shop.elsewhere:9080"}
	for _, space := range []string{ns, other} {
		m.Do(t, "-n", space, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
		enrolled(t, m, space)
	}
	m.Apply(t, asking("stranger", targets, "--keep-alive"), "-n", outside)
	m.Apply(t, asking("member", targets), "-n", ns)
	m.Do(t, "-n", outside, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
	ready := func() string {
		var out string
		for _, space := range []string{ns, other} {
			out += m.Do(t, "-n", space, "get", "pods", "-l", "app", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")]}{"\n"}{end}`)
		}
		return out
	}
	sinceWhen := ready()
	members := soFar(t, m, ns, "member")

	// state of a target to the stranger, whose every request either passes or is reset.
	state := func(target string, before, now answers) string {
		passed, reset := now.OK-before.OK, now.Errors["reset"]-before.Errors["reset"]
		switch others := now.Requests - before.Requests - passed - reset; {
		case others > 0:
			return fmt.Sprintf("%s: %v", target, now.Errors)
		case passed > 3 && reset == 0:
			return "open"
		case passed == 0 && reset > 3:
			return "reset"
		}
		return fmt.Sprintf("%d requests passed, %d were reset", passed, reset)
	}
	was := map[string]answers{}
	open := []string{}
	expect := func(what string, want ...string) {
		t.Helper()
		begin, latest := map[string]answers{}, map[string]answers{}
		mesh.Eventually(t, what, func() error {
			var wrong []string
			all := soFar(t, m, outside, "stranger")
			for _, target := range targets {
				now := all[container(target)]
				latest[target] = now
				if begin[target].Requests > 0 && now.Requests < begin[target].Requests+5 {
					wrong = append(wrong, target+" has been asked too seldom")
					continue
				}
				if is, should := state(target, begin[target], now), slices.Contains(want, target); begin[target].Requests == 0 || is != map[bool]string{true: "open", false: "reset"}[should] {
					wrong = append(wrong, target+" is not as it should be: "+is)
					begin[target] = now
				}
			}
			if len(wrong) > 0 {
				return errors.New(strings.Join(wrong, "; "))
			}
			return nil
		})
		for _, target := range targets {
			// What was open and is open was so in between: the connection that is kept goes on.
			if slices.Contains(open, target) && slices.Contains(want, target) && !maps.Equal(was[target].Errors, latest[target].Errors) {
				t.Errorf("%s: a connection to %s, which it leaves open, was closed: %v, then %v", what, target, was[target].Errors, latest[target].Errors)
			}
		}
		was, open = latest, want
		if now := ready(); now != sinceWhen {
			t.Errorf("%s: a probe failed: %s\nbefore: %s", what, now, sinceWhen)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	peers := func(name, space, spec string) {
		t.Helper()
		m.Apply(t, fmt.Sprintf("{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: %s, namespace: %s}, spec: {%s}}", name, space, spec))
	}

	expect("with no policy", targets...)

	strict := strictMesh
	if text, err := os.ReadFile(filepath.Join(root, "..", "shared", "seed", "manifests", "11-mtls.yaml")); err == nil {
		strict = string(text)
	}
	t.Cleanup(func() {
		if _, err := m.Kubectl(context.Background(), "-n", "istio-system", "delete", "peerauthentication", "default", "--ignore-not-found"); err != nil {
			t.Error(err)
		}
	})
	m.Apply(t, strings.ReplaceAll(strict, "namespace: default", "namespace: "+ns))
	expect("STRICT for the mesh")
	peers("all", other, "mtls: {mode: PERMISSIVE}")
	expect("PERMISSIVE for one namespace", targets[4:]...)
	peers("all", ns, "mtls: {mode: PERMISSIVE}")
	expect("PERMISSIVE for the other, of which one workload is STRICT", append(targets[:2:2], targets[4:]...)...)
	peers("web", ns, "selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}")
	peers("all", ns, "mtls: {mode: STRICT}")
	expect("PERMISSIVE for one workload", append(targets[:2:2], targets[4:]...)...)
	peers("web", ns, "selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {9080: {mode: STRICT}}")
	expect("STRICT for one of its ports", append(targets[:1:1], targets[4:]...)...)
	peers("web", ns, "selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {9080: {mode: PERMISSIVE}}")
	expect("PERMISSIVE for one of its ports", append(targets[1:2:2], targets[4:]...)...)

	// The definition of the kind says it before the webhook is asked.
	const sentence = "portLevelMtls requires selector"
	wrong := "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: ports}\nspec: {portLevelMtls: {9080: {mode: PERMISSIVE}}}\n"
	if said := try(t, m, ns, wrong); !strings.Contains(said, sentence) {
		t.Errorf("ports without a selector: the API server says %q", said)
	}
	file := filepath.Join(t.TempDir(), "ports.yaml")
	if err := os.WriteFile(file, []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := m.Fairlead(t.Context(), "validate", "-f", file); err == nil || !strings.Contains(out, sentence) {
		t.Errorf("ports without a selector: validate says %q", out)
	}

	m.Do(t, "-n", "istio-system", "delete", "peerauthentication", "default")
	m.Do(t, "-n", other, "delete", "peerauthentication", "--all")
	m.Do(t, "-n", ns, "delete", "peerauthentication", "--all")
	expect("with no policy any more", targets...)
	for target, a := range soFar(t, m, ns, "member") {
		if before := members[target]; len(a.Errors) > 0 || a.OK < before.OK+50 {
			t.Errorf("within the mesh, %s: %+v, before the policies %+v", target, a, before)
		}
	}
}
