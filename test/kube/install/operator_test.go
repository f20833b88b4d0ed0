package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

// operator is an IstioOperator file as people have it.
const operator = `apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata: {namespace: istio-system, name: istio-controlplane}
spec:
  profile: production
  meshConfig:
    accessLogFile: /dev/stdout
    accessLogEncoding: JSON
    defaultConfig: {tracing: {zipkin: {address: "zipkin.istio-system:9411"}, sampling: 10.0}, holdApplicationUntilProxyStarts: true}
    outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  components:
    pilot:
      enabled: true
      k8s:
        resources: {requests: {cpu: 500m, memory: 512Mi}, limits: {cpu: 1000m, memory: 1Gi}}
        hpaSpec: {minReplicas: 2, maxReplicas: 5}
    ingressGateways: [{name: istio-ingressgateway, enabled: true}]
    egressGateways: [{name: istio-egressgateway, enabled: true}]
`

// Of an IstioOperator file what has a meaning is in the cluster, and what has none is said, with
// its line. Another profile's name is refused before (TestNothingIsTouched).
func TestOperatorFile(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{Name: "instope"})
	file := filepath.Join(root, "..", "shared", "seed", "manifests", "01-istio-install.yaml")
	if _, err := os.Stat(file); err != nil {
		file = filepath.Join(t.TempDir(), "mesh.yaml")
		if err := os.WriteFile(file, []byte(operator), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := must(t, c, "install", "-f", file, "-y", noWait)
	for _, want := range []string{
		"profile production", file + ":", "spec.meshConfig.defaultConfig: kept, without effect", "spec.meshConfig.outboundTrafficPolicy: kept, and not enforced yet",
		"istio-ingressgateway: Fairlead has no ingress and egress gateways", "istio-egressgateway: Fairlead has no ingress and egress gateways",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said:\n%s", want, out)
		}
	}
	for _, is := range []struct{ object, path, want string }{
		{"hpa/istiod", "{.spec.minReplicas}-{.spec.maxReplicas} {.spec.scaleTargetRef.kind}/{.spec.scaleTargetRef.name}", "2-5 Deployment/istiod"},
		{"deployment/istiod", "{.spec.template.spec.containers[0].resources.limits.memory}", "1Gi"},
		{"daemonset/ztunnel", "{.spec.template.spec.containers[0].args}", "--access-log=json"},
		{"configmap/istio", "{.data.mesh}", "mode: REGISTRY_ONLY"},
	} {
		if got := kubectl(t, c, "", "-n", "istio-system", "get", is.object, "-o", "jsonpath="+is.path); !strings.Contains(got, is.want) {
			t.Errorf("%s has %s, want %s", is.object, got, is.want)
		}
	}
	if out := must(t, c, "install", "-f", file, "-y", noWait); !strings.Contains(out, "Nothing to do") {
		t.Errorf("the second installation:\n%s", out)
	}
}
