package install

import (
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

// A fit cluster is said to be fit; of another each thing that is missing is named, with
// what to do about it.
func TestPrecheck(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{Name: "instpre"})
	if out, code := fairlead(t, c, "x", "precheck"); code != 0 || !strings.Contains(out, "✔ The cluster is fit") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	must(t, c, "install", "-y", noWait)
	if out, code := fairlead(t, c, "x", "precheck"); code != 0 {
		t.Errorf("with the mesh in it, exit code %d:\n%s", code, out)
	}
	must(t, c, "uninstall", "--purge", "-y")
	kubectl(t, c, `
apiVersion: v1
kind: Namespace
metadata: {name: istio-system, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cilium-config, namespace: kube-system}
data: {kube-proxy-replacement: "true", cni-exclusive: "true"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: istiod, namespace: istio-system, labels: {app: istiod}}
spec: {replicas: 0, selector: {matchLabels: {app: istiod}}, template: {metadata: {labels: {app: istiod}}, spec: {containers: [{name: discovery, image: istio/pilot:1.29}]}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-sidecar-injector}
---
apiVersion: v1
kind: Node
metadata: {name: old}
`, "apply", "-f", "-")
	kubectl(t, c, "", "patch", "node", "old", "--subresource=status", "-p", `{"status":{"nodeInfo":{"kernelVersion":"5.4.0-42-generic","architecture":"s390x"}}}`)
	out, code := fairlead(t, c, "x", "precheck")
	if code != 2 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		"Node old has Linux 5.4.0-42-generic. Fairlead needs Linux 5.15 or newer",
		"Node old is of the architecture s390x.",
		"Set socketLB.hostNamespaceOnly=true in Cilium's values.",
		"Set cni.exclusive=false in Cilium's values.",
		"Deployment istio-system/istiod is Istio's control plane. Take Istio away",
		"! warning: MutatingWebhookConfiguration istio-sidecar-injector puts sidecars",
		"kubectl label namespace istio-system pod-security.kubernetes.io/enforce=privileged",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said:\n%s", want, out)
		}
	}
	out, code = fairlead(t, c, "x", "precheck", "--as", "nobody")
	if code != 2 || !strings.Contains(out, "You may not create clusterroles. Install as a user with the ClusterRole cluster-admin.") {
		t.Errorf("of someone without rights, exit code %d:\n%s", code, out)
	}
}
