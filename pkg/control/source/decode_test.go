package source

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lines are the problems of a text as an operator reads them.
func lines(o *Objects) []string {
	var out []string
	for _, p := range o.Problems {
		out = append(out, p.String())
	}
	return out
}

func parseOne(text string) *Objects { return Parse([]File{{"a.yaml", []byte(text)}}, nil) }

func TestMessages(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"unknown field of Istio", `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec:
  selecter:
    matchLabels: {app: a}
  rules: [{}]
`, []string{`a.yaml:6: error: AuthorizationPolicy shop/p: spec.selecter: unknown field "selecter"; did you mean "selector"?`}},
		{"unknown field deep in a list", `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec:
  rules:
  - from:
    - source:
        principal: [a]
`, []string{`a.yaml:9: error: AuthorizationPolicy default/p: spec.rules[0].from[0].source.principal: unknown field "principal"; did you mean "principals"?`}},
		{"enum", `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p}
spec:
  mtls:
    mode: STRIKT
`, []string{`a.yaml:7: error: PeerAuthentication default/p: spec.mtls.mode: "STRIKT" is not one of UNSET, DISABLE, PERMISSIVE, STRICT; did you mean "STRICT"?`}},
		{"number where text belongs", `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec: {rules: [{to: [{operation: {ports: [80]}}]}]}
`, []string{`a.yaml:5: error: AuthorizationPolicy default/p: spec.rules[0].to[0].operation.ports[0]: want text, found the integer 80: write it in quotes, "80"`}},
		{"a core kind is forgiven", `
apiVersion: v1
kind: Service
metadata: {name: s}
spec:
  ports: [{port: 80}]
  selectr: {app: a}
`, []string{`a.yaml:7: warning: Service default/s: spec.selectr: unknown field "selectr"; did you mean "selector"? (it is left out)`}},
		{"a core kind of the wrong type is not", `
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {ports: [{port: http}]}
`, []string{`a.yaml:5: error: Service default/s: spec.ports[0].port: want a whole number, found "http"`}},
		{"Gateway API is strict", `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
spec: {gatewayClass: istio-waypoint, listeners: []}
`, []string{`a.yaml:5: error: Gateway default/g: spec.gatewayClass: unknown field "gatewayClass"; did you mean "gatewayClassName"?`}},
		{"unknown kind", `
apiVersion: v1
kind: Servise
metadata: {name: s}
`, []string{`a.yaml:2: error: Servise s: kind "Servise" of the group "" is not known; did you mean "Service"?`}},
		{"kind in the wrong group", `
apiVersion: networking.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
`, []string{`a.yaml:2: error: AuthorizationPolicy p: kind AuthorizationPolicy is not known in the group "networking.istio.io": is its apiVersion security.istio.io/v1?`}},
		{"version", `
apiVersion: security.istio.io/v2
kind: PeerAuthentication
metadata: {name: p}
`, []string{`a.yaml:2: error: PeerAuthentication default/p: apiVersion: PeerAuthentication "security.istio.io/v2" is not known: use security.istio.io/v1`}},
		{"served elsewhere", `
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: v}
spec: {}
`, []string{`a.yaml:2: warning: ProxyConfig default/v: this control plane does not serve ProxyConfig: it has no effect`}},
		{"a security kind that is not served", `
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: r}
spec: {}
`, []string{`a.yaml:2: error: RequestAuthentication default/r: refused: this control plane does not serve RequestAuthentication, so nothing enforces it`}},
		{"Kubernetes' other kinds are nobody's business", "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: s}\nspec: {what: ever}\n", nil},
		{"two of a oneof", `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec: {host: a, trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}}
`, []string{`a.yaml:5: error: DestinationRule default/d: spec.trafficPolicy.loadBalancer.consistentHash: cannot be set together with simple`}},
		{"a key twice", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nkind: Pod\n", []string{`a.yaml:4: error: key "kind" appears twice, first in line 2`}},
		{"not YAML, and the rest counts", "a: b: c\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 0}]}\n", []string{
			"a.yaml:1: error: not YAML: mapping values are not allowed in this context",
			"a.yaml:6: error: Service default/s: spec.ports[0].port: port 0 is not between 1 and 65535",
		}},
		{"comments alone", "# nothing\n---\n# here\n--- # nor here\n", nil},
		{"no object", "- a\n", []string{"a.yaml:1: error: this is not an object: want apiVersion, kind and metadata"}},
		{"no name", "apiVersion: v1\nkind: Service\nmetadata: {}\n", []string{"a.yaml:3: error: Service default/: metadata.name: an object needs a name"}},
		{"bad name", "apiVersion: v1\nkind: Service\nmetadata: {name: A_b}\n", []string{`a.yaml:3: error: Service default/A_b: metadata.name: "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := lines(parseOne(tc.text))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLists(t *testing.T) {
	o := parseOne(`
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: shop}
- apiVersion: v1
  kind: Service
  metadata: {name: a, namespace: shop}
---
apiVersion: v1
kind: ServiceList
items:
- metadata: {name: b}
`)
	if len(o.Problems) != 0 || len(o.Namespaces) != 1 || len(o.Services) != 2 {
		t.Fatalf("%d namespaces, %d services, %q", len(o.Namespaces), len(o.Services), lines(o))
	}
	if s := o.Services[0]; s.Namespace != "default" || s.Name != "b" {
		t.Errorf("first service is %s/%s", s.Namespace, s.Name)
	}
}

func TestAnchorsAndYAML11(t *testing.T) {
	o := parseOne(`
apiVersion: v1
kind: Service
metadata: &meta {name: a, labels: &l {app: a}}
spec: {publishNotReadyAddresses: yes, ports: [{port: 80}], selector: *l}
---
{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"}, "spec": {"ports": [{"port": 80, "targetPort": "web"}]}}
`)
	if len(o.Problems) > 0 {
		t.Fatal(lines(o))
	}
	if a := o.Services[0]; !a.Spec.PublishNotReadyAddresses || a.Spec.Selector["app"] != "a" {
		t.Errorf("%+v", a.Spec)
	}
	if b := o.Services[1]; b.Spec.Ports[0].TargetPort.StrVal != "web" {
		t.Errorf("%+v", b.Spec)
	}
}

// A small file that stands for a huge one must not become one.
func TestAliasBomb(t *testing.T) {
	text := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'i'; c++ {
		p := string(c - 1)
		text += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+p+", ", 10), ", ") + "]\n"
	}
	o := parseOne(text)
	if len(o.Problems) != 1 || !strings.Contains(o.Problems[0].Message, "after aliases are expanded") && !strings.Contains(o.Problems[0].Message, "excessive aliasing") {
		t.Errorf("%q", lines(o))
	}
}

// Nor by one value that is long.
func TestAliasBombOfBytes(t *testing.T) {
	text := "apiVersion: v1\nkind: Service\nmetadata:\n  name: x\n  annotations:\n    big: &big '" + strings.Repeat("x", 100_000) + "'\nspec:\n  externalIPs: [" + strings.Repeat("*big, ", 500) + "x]\n"
	o := parseOne(text)
	if len(o.Problems) != 1 || !strings.Contains(o.Problems[0].Message, "more than 8 MiB after aliases are expanded") {
		t.Errorf("%.300q", lines(o))
	}
}

func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []Refused
	}{
		{"selector", `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {app: a}}, rulez: []}
`, []Refused{{Ref: Ref{groupSecurity, "AuthorizationPolicy", "shop", "p"}, Position: Position{"a.yaml", 2}, Selector: map[string]string{"app": "a"}, Reason: `spec.rulez: unknown field "rulez"; did you mean "rules"?`}}},
		{"a selector that cannot be read selects the namespace", `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p, namespace: shop}
spec: {selector: {app: a}}
`, []Refused{{Ref: Ref{groupSecurity, "PeerAuthentication", "shop", "p"}, Position: Position{"a.yaml", 2}, Selector: nil, Reason: `spec.selector.app: unknown field "app"`}}},
		{"a kind that is misspelt", `
apiVersion: security.istio.io/v1
kind: AuthorisationPolicy
metadata: {name: p, namespace: shop}
`, []Refused{{Ref: Ref{groupSecurity, "AuthorisationPolicy", "shop", "p"}, Position: Position{"a.yaml", 2}, Selector: nil, Reason: `kind "AuthorisationPolicy" of the group "security.istio.io" is not known; did you mean "AuthorizationPolicy"?`}}},
		{"text that is no YAML", `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop
spec: {}
`, []Refused{{Ref: Ref{groupSecurity, "AuthorizationPolicy", "shop", "p"}, Position: Position{"a.yaml", 5}, Selector: nil, Reason: ""}}},
		{"what a waypoint enforces", `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec: {targetRefs: [{kind: Service, group: "", name: a}], rulez: []}
`, []Refused{{Ref: Ref{groupSecurity, "AuthorizationPolicy", "default", "p"}, Position: Position{"a.yaml", 2}, Targeted: true,
			Targets: []Ref{{Kind: "Service", Name: "a"}}, Reason: `spec.rulez: unknown field "rulez"; did you mean "rules"?`}}},
		{"targets that cannot be read", `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec: {targetRefs: [{kind: Service, group: "", name: a}, {kind: Service, nam: b}]}
`, []Refused{{Ref: Ref{groupSecurity, "AuthorizationPolicy", "default", "p"}, Position: Position{"a.yaml", 2}, Targeted: true,
			Reason: `spec.targetRefs[1].nam: unknown field "nam"; did you mean "name"?`}}},
		{"other kinds", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: 7\n", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := parseOne(tc.text).Refused
			for i := range got {
				if i < len(tc.want) && tc.want[i].Reason == "" {
					got[i].Reason, got[i].Position = "", tc.want[i].Position
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMeshConfigMap(t *testing.T) {
	o := parseOne(`
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    trustDomain: example.org
  fairlead: |
    autoAllocate: {ipv4: 10.200.0.0/16}
    dryRun: true
`)
	if len(o.Problems) > 0 || o.Mesh.TrustDomain != "example.org" || o.Mesh.RootNamespace != "istio-system" {
		t.Errorf("%v %q", o.Mesh, lines(o))
	}
	want := DefaultSettings()
	want.DryRun, want.AutoAllocate.IPv4 = true, "10.200.0.0/16"
	if o.Settings != want {
		t.Errorf("settings %+v", o.Settings)
	}

	o = parseOne(`
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    # a comment
    trustDomian: example.org
  fairlead: |
    dryRun: 1
`)
	wantLines := []string{
		`a.yaml:8: error: ConfigMap istio-system/istio: data[mesh].trustDomian: unknown field "trustDomian"; did you mean "trustDomain"?`,
		`a.yaml:10: error: ConfigMap istio-system/istio: data[fairlead].dryRun: want a boolean, found the integer 1`,
	}
	if diff := cmp.Diff(wantLines, lines(o)); diff != "" {
		t.Error(diff)
	}
	if o.Mesh.TrustDomain != "cluster.local" {
		t.Errorf("a broken mesh configuration was used: %v", o.Mesh)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n"))
	f.Add([]byte("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]}\n"))
	f.Add([]byte("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec: {hosts: [a.b], ports: [{number: 1, name: x, protocol: TCP}], resolution: DNS}\n"))
	f.Add([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: 'a: [*b]', fairlead: '---'}\n"))
	f.Add([]byte("a: &a [*a]\n---\n<<: {a: b}\n? [x]\n: y\n"))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: [{kind: PodList, items: [{metadata: {name: a}, spec: {containers: [{ports: [{containerPort: 1}]}]}}]}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := Parse([]File{{"a.yaml", data}}, nil)
		for _, p := range o.Problems {
			if p.Message == "" || p.File != "a.yaml" || p.Line < 1 {
				t.Errorf("a problem that helps nobody: %+v", p)
			}
		}
		for _, r := range o.Refused {
			if r.Ref.Namespace == "" {
				t.Errorf("refused for no namespace: %+v", r)
			}
		}
	})
}

// TestTelemetryOfTheSeed holds what an operator reads of labels that are written
// as the settings of an older API had them; nothing of the object is taken.
func TestTelemetryOfTheSeed(t *testing.T) {
	o := parseOne(`
apiVersion: telemetry.istio.io/v1alpha1
kind: Telemetry
metadata: {name: custom-metrics}
spec:
  metrics:
  - providers: [{name: prometheus}]
    overrides:
    - match: {metric: REQUEST_COUNT}
      tag:
        request_method: request.method
      dimensions:
        request_host: request.host
      metrics:
      - REQUEST_COUNT
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: doubtful}
spec:
  targetRefs: [{kind: Pod, name: a}]
  tracing: [{randomSamplingPercentage: 101, providers: [{name: a}, {name: b}]}]
  metrics: [{overrides: [{tagOverrides: {x: {}, y: {operation: REMOVE, value: z}}}, {}]}]
  accessLogging: [{providers: [{}], filter: {}}]
`)
	const at = "Telemetry default/custom-metrics: spec.metrics[0].overrides[0]."
	const doubtful = "error: Telemetry default/doubtful: spec."
	want := []string{
		`a.yaml:10: error: ` + at + `tag: unknown field "tag"; did you mean "tagOverrides"? It maps a label to an object: request_method: {value: request.method}`,
		`a.yaml:12: error: ` + at + `dimensions: unknown field "dimensions"; labels are set under "tagOverrides"`,
		`a.yaml:14: error: ` + at + `metrics: unknown field "metrics"; to choose the metric: match: {metric: REQUEST_COUNT}`,
		`a.yaml:21: ` + doubtful + `targetRefs[0]: a policy can target a Service, ServiceEntry, Gateway or GatewayClass, not "Pod" of group ""`,
		`a.yaml:22: ` + doubtful + `tracing[0].providers: tracing can have one provider, and there are 2`,
		`a.yaml:22: ` + doubtful + `tracing[0].randomSamplingPercentage: 101 is not between 0 and 100`,
		`a.yaml:23: ` + doubtful + `metrics[0].overrides[0].tagOverrides[x].value: operation UPSERT needs a value, an expression such as request.method`,
		`a.yaml:23: ` + doubtful + `metrics[0].overrides[0].tagOverrides[y].value: operation REMOVE takes no value`,
		`a.yaml:23: warning` + doubtful[len("error"):] + `metrics[0].overrides[1]: an override without disabled and tagOverrides changes nothing`,
		`a.yaml:24: ` + doubtful + `accessLogging[0].filter.expression: an empty expression: leave filter out to log everything`,
		`a.yaml:24: ` + doubtful + `accessLogging[0].providers[0].name: a provider needs the name of one of the mesh configuration's extensionProviders`,
	}
	if diff := cmp.Diff(want, lines(o)); diff != "" {
		t.Error(diff)
	}
	if len(o.Telemetries) != 0 {
		t.Errorf("%d were taken", len(o.Telemetries))
	}
}

func TestPathTemplates(t *testing.T) {
	for path, want := range map[string]string{
		"/a/{*}/b/{**}": "", "/{*}": "", "/{**}/b": "", "/plain/{x": "",
		"/{**}/{*}": "nothing but text may follow {**}", "/{**}/{**}": "nothing but text may follow {**}",
		"/a{*}": "cannot hold * or braces", "/{*}/a*": "cannot hold * or braces",
		"/{*}/a b": "must be text of a URL", "/{*}//a": "must be text of a URL", "{*}/a": "begins with /",
	} {
		o := parseOne("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {rules: [{to: [{operation: {paths: ['" + path + "']}}]}]}\n")
		got := strings.Join(lines(o), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestConditionKeys(t *testing.T) {
	for key, want := range map[string]string{
		"request.headers[x-a]": "", "experimental.envoy.filters.network.x[key]": "",
		"request.headers[a b]": `"a b" is not the name of a header`, "experimental.envoy.filters.x": "want experimental.envoy.filters.<filter>[<key>]",
	} {
		o := parseOne("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {rules: [{when: [{key: '" + key + "', values: [a]}]}]}\n")
		got := strings.Join(lines(o), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}
