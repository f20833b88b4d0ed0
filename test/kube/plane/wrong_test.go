package plane

import (
	"strings"
	"testing"
)

// wrong is objects of every other kind that has a status: those of Istio are wrong in a way that
// the definitions let pass.
const wrong = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: wrong, namespace: shop}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}, {name: v1, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: wrong, namespace: shop}
spec: {address: 10.1.2.3, labels: {"a b": c}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: wrong, namespace: shop}
spec: {portLevelMtls: {8080: {mode: STRICT}}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: wrong, namespace: shop}
spec: {tracing: [{providers: [{name: one}, {name: two}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: web, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web, port: 80}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: web, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web, port: 80}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: web, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web, port: 80}], hostnames: [web.example.com], rules: [{backendRefs: [{name: web, port: 80}]}]}
`

// What is wrong in objects that came past the webhook, and past definitions of an Istio that
// did not check it yet, stands on the objects.
func TestWhatIsStoredAndWrongIsSaid(t *testing.T) {
	p := installed(t, "wrong")
	const rules = "/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations"
	p.Kubectl("patch", "crd", "peerauthentications.security.istio.io", "--type=json", `-p=[{"op":"remove","path":"/spec/versions/0`+rules+`"},{"op":"remove","path":"/spec/versions/1`+rules+`"}]`)
	p.Until("such definitions", func() bool {
		_, err := p.Cluster.KubectlInput(t.Context(), wrong, "apply", "-f", "-")
		return err == nil
	})
	for kind, want := range map[string]string{
		"destinationrule":    `spec.subsets[1].name: subset "v1" stands already in spec.subsets[0]`,
		"workloadentry":      `spec.labels: "a b"`,
		"peerauthentication": "spec.portLevelMtls: portLevelMtls requires selector",
		"telemetry":          "spec.tracing[0].providers: tracing can have one provider, and there are 2",
	} {
		p.Until("the "+kind+" says what is wrong", func() bool {
			return strings.Contains(p.field(kind, "shop", "wrong", "{.status.conditions[*].message}"), want)
		})
	}
	for _, kind := range []string{"grpcroute", "tcproute", "tlsroute"} {
		p.Until("the "+kind+" says what becomes of it", func() bool {
			return p.field(kind, "shop", "web", `{.status.parents[?(@.controllerName=="fairlead.dev/gateway-controller")].conditions[?(@.type=="Accepted")].status}`) != ""
		})
	}
}
