package plane

import (
	"strings"
	"testing"
)

// configuration is the chart's, with a webhook at an address and not at a Service, which
// nobody runs here.
const configuration = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: istio-validator-istio-system}
webhooks:
  - name: rev.validation.istio.io
    clientConfig: {url: "https://ADDRESS/validate"}
    rules:
      - {operations: [CREATE, UPDATE], apiGroups: [security.istio.io, networking.istio.io, telemetry.istio.io, extensions.istio.io], apiVersions: ["*"], resources: ["*"]}
      - {operations: [CREATE, UPDATE], apiGroups: [gateway.networking.k8s.io], apiVersions: ["*"], resources: [gateways, httproutes, grpcroutes, tcproutes, tlsroutes]}
    sideEffects: None
    timeoutSeconds: 5
    admissionReviewVersions: [v1]
`

// try writes objects in YAML. It returns what kubectl complains of, warnings too.
func (p *Plane) try(text string) string {
	if _, err := p.Cluster.KubectlInput(p.t.Context(), text, "apply", "--server-side", "--warnings-as-errors", "-f", "-"); err != nil {
		return err.Error()
	}
	return ""
}

// What is wrong is refused, in the sentences that files get; while no control plane is
// there to say so, what it would be asked about is not stored.
func TestWebhookRefuses(t *testing.T) {
	address := freePort(t)
	p := installed(t, "webhook", "--webhook-listen", address)
	const route = `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: NAME, namespace: shop}, spec: {hosts: [web], http: [{match: [{uri: {regex: "PATTERN"}}], route: [{destination: {host: web}}]}]}}`
	virtualService := func(name, pattern string) string {
		return strings.NewReplacer("NAME", name, "PATTERN", pattern).Replace(route)
	}
	p.Apply(virtualService("old", "(")) // before there is a webhook

	p.Apply(strings.Replace(configuration, "ADDRESS", address, 1))
	p.Until("the webhook in force", func() bool {
		return p.field("validatingwebhookconfiguration", "", "istio-validator-istio-system", `{.webhooks[0].failurePolicy} {.metadata.annotations.fairlead\.dev/webhook-answered}`) == "Fail true"
	})
	for name, c := range map[string]struct{ object, want string }{
		"a wrong route":        {virtualService("new", "("), "VirtualService shop/new is invalid: spec.http[0].match[0].uri"},
		"a wrong old one":      {virtualService("old", "(("), "VirtualService shop/old is invalid: spec.http[0].match[0].uri"},
		"a wrong policy":       {`{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a, namespace: shop}, spec: {rules: [{from: [{source: {ipBlocks: [300.1.1.1]}}]}]}}`, "spec.rules[0].from[0].source.ipBlocks[0]"},
		"a port that is wrong": {`{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: s, namespace: shop}, spec: {hosts: [a.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTPP}]}}`, `did you mean "HTTP"`},
		"what nobody enforces": {`{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: r, namespace: shop}, spec: {jwtRules: [{issuer: i, jwksUri: "https://i.example.com/jwks"}]}}`, "does not serve RequestAuthentication"},
	} {
		if said := p.try(c.object); !strings.Contains(said, c.want) || !strings.Contains(said, `admission webhook "rev.validation.istio.io" denied the request`) {
			t.Errorf("%s: %s\nwant %s", name, said, c.want)
		}
	}
	for name, object := range map[string]string{
		"a right route":      virtualService("new", "/a.*"),
		"a label on a wrong": strings.Replace(virtualService("old", "("), "name: old,", "name: old, labels: {a: b},", 1),
	} {
		if said := p.try(object); said != "" {
			t.Errorf("%s: %s", name, said)
		}
	}
	// The Gateway API has conditions for what is wrong: it is stored, with a warning.
	const httpRoute = `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: h, namespace: shop}, spec: {parentRefs: [{group: "", kind: Service, name: web, port: 80}], rules: [{matches: [{path: {type: RegularExpression, value: "("}}], backendRefs: [{name: web, port: 80}]}]}}`
	if said := p.try(httpRoute); !strings.Contains(said, "Warning: spec.rules[0].matches[0].path") {
		t.Errorf("said %s", said)
	}
	if p.field("httproute", "shop", "h", "{.metadata.name}") != "h" {
		t.Error("it is not stored")
	}
	if m := p.Get("/metrics"); !strings.Contains(m, `fairlead_validations_total{result="refused"}`) {
		t.Errorf("metrics: %s", grep(m, "validations"))
	}

	// Nobody answers: what it would be asked about is not stored, all else is, and what is
	// there can go.
	p.Stop()
	if said := p.try(virtualService("late", "/a.*")); !strings.Contains(said, "failed calling webhook") {
		t.Errorf("with nobody to check it: %s", said)
	}
	p.Apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: shop}}`)
	p.Kubectl("delete", "virtualservice", "-n", "shop", "old")
	p.Run()
	p.Until("stored again", func() bool { return p.try(virtualService("late", "/a.*")) == "" })

	// Another CA: the API server knows the webhook by its new roots at once.
	before := p.field("validatingwebhookconfiguration", "", "istio-validator-istio-system", "{.webhooks[0].clientConfig.caBundle}")
	p.Stop()
	p.Kubectl("delete", "secret", "-n", "istio-system", "istio-ca-secret")
	p.Run()
	p.Until("the new root", func() bool {
		now := p.field("validatingwebhookconfiguration", "", "istio-validator-istio-system", "{.webhooks[0].clientConfig.caBundle}")
		return now != "" && now != before
	})
	p.Until("refused again", func() bool { return strings.Contains(p.try(virtualService("new", "(")), "is invalid") })
}
