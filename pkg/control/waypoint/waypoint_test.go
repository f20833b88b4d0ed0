package waypoint

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

const shop = `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "accessLogFile: /dev/stdout"}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: w}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: w, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{value: 10.96.0.9}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: cart}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, uid: a, labels: {app: cart}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: cart, containers: [{name: c}]}
status: {phase: Running, podIP: 10.88.1.1, podIPs: [{ip: 10.88.1.1}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: targeted, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: cart}], rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: layer4, namespace: shop}
spec: {rules: [{from: [{source: {namespaces: [shop]}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  http: [{route: [{destination: {host: cart}}]}]
  tcp: [{route: [{destination: {host: cart}}]}]
`

// TestWhoGetsLayer4 holds that every client but our own waypoint, which knows
// them otherwise, is sent the policies of layer 4 as filters.
func TestWhoGetsLayer4(t *testing.T) {
	out, err := translate.Translate(source.Parse([]source.File{{Name: "a.yaml", Data: []byte(shop)}}, nil), translate.Options{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		client Client
		layer4 bool
	}{
		"our own waypoint": {Client{Own: true}, false},
		"an Envoy":         {Client{}, true},
		"Istio's Envoy":    {Client{Options: envoy.Options{IstioExtensions: true}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := New(out, nil).Generate(out.Model.Waypoints[0], tc.client)
			if err != nil {
				t.Fatal(err)
			}
			main := prototext.Format(r.Listeners["main_internal"])
			for what, want := range map[string]bool{
				"ns[shop]-policy[targeted]-rule[0]": true, "ns[shop]-policy[layer4]-rule[0]": tc.layer4, "envoy.access_loggers.file": true,
			} {
				if got := strings.Contains(main, what); got != want {
					t.Errorf("main_internal has %s: %v, want %v", what, got, want)
				}
			}
		})
	}
}

// TestStatusIsOnePerObject holds that what the translations say of a
// VirtualService, one of its requests and one of its connections, is kept together.
func TestStatusIsOnePerObject(t *testing.T) {
	out, err := translate.Translate(source.Parse([]source.File{{Name: "a.yaml", Data: []byte(shop)}}, nil), translate.Options{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	one := New(out, nil)
	if _, err := one.Generate(out.Model.Waypoints[0], Client{}); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, s := range one.Status() {
		seen[s.Object.Kind+" "+s.Object.Name]++
		if s.Object.Kind == "VirtualService" && len(s.Conditions) < 2 {
			t.Errorf("the VirtualService has %v", s.Conditions)
		}
	}
	if seen["VirtualService cart"] != 1 || seen["AuthorizationPolicy targeted"] != 1 {
		t.Errorf("statuses: %v", seen)
	}
}

// TestLayer4OfWhatRoutesLeadTo holds that an Envoy in the waypoint's place refuses by the
// policies of those whom a service's routes lead to, also in copies: their nodes leave it
// to the waypoint.
func TestLayer4OfWhatRoutesLeadTo(t *testing.T) {
	const more = `---
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: shop}
spec: {clusterIP: 10.96.0.NUMBER, selector: {app: NAME}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: shop, uid: NAME, labels: {app: NAME}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: NAME, containers: [{name: c}]}
status: {phase: Running, podIP: 10.88.1.NUMBER, podIPs: [{ip: 10.88.1.NUMBER}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: of-NAME, namespace: shop}
spec: {action: DENY, selector: {matchLabels: {app: NAME}}, rules: [{from: [{source: {namespaces: [far]}}]}]}
`
	text := strings.Replace(shop, "http: [{route: [{destination: {host: cart}}]}]", "http: [{route: [{destination: {host: next}}], mirrors: [{destination: {host: copy}}]}]", 1)
	text = strings.Replace(text, "tcp: [{route: [{destination: {host: cart}}]}]", "tcp: [{route: [{destination: {host: stream, port: {number: 8080}}}]}]", 1)
	text = strings.Replace(text, "ports: [{name: http, port: 80}]", "ports: [{name: http, port: 80}, {name: tcp, port: 81}]", 1)
	for i, name := range []string{"next", "copy", "stream", "other"} {
		text += strings.NewReplacer("NAME", name, "NUMBER", strconv.Itoa(20+i)).Replace(more)
	}
	out, err := translate.Translate(source.Parse([]source.File{{Name: "a.yaml", Data: []byte(text)}}, nil), translate.Options{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(out, nil).Generate(out.Model.Waypoints[0], Client{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"|80|http|cart.": {"of-next", "of-copy"}, "|81|tcp|cart.": {"of-stream"}}
	for _, c := range r.Listeners["main_internal"].FilterChains {
		for part, policies := range want {
			if !strings.Contains(c.Name, part) {
				continue
			}
			delete(want, part)
			chain := prototext.Format(c)
			for _, p := range []string{"of-next", "of-copy", "of-stream", "of-other"} {
				if has := strings.Contains(chain, "policy["+p+"]"); has != slices.Contains(policies, p) {
					t.Errorf("chain %s has policy %s: %t", c.Name, p, has)
				}
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("no chains for %v", want)
	}
}
