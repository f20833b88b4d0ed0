package plane

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

// class is the GatewayClass of the chart.
const class = `{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio-waypoint}, spec: {controllerName: istio.io/mesh-controller}}`

// installed is a control plane of a cluster with all definitions, with the permissions
// that the chart gives it.
func installed(t *testing.T, name string, args ...string) *Plane {
	t.Helper()
	c := cluster.ForTest(t, cluster.Options{Name: name})
	p := &Plane{t: t, Cluster: c}
	p.Apply(definitions(t, "istio"))
	p.Apply(definitions(t, "gateway-api"))
	p.Kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	p.Apply(shop)
	p.Apply(class)
	p = Start(t, c, args...)
	t.Cleanup(func() {
		if strings.Contains(p.Log(), "forbidden") {
			t.Errorf("something is forbidden:\n%s", grep(p.Log(), "forbidden"))
		}
	})
	p.Until("ready", func() bool { return strings.HasPrefix(p.Get("/healthz/ready"), "200") })
	return p
}

// field is a JSONPath of an object, or "" while it is not there.
func (p *Plane) field(kind, namespace, name, path string) string {
	out, err := p.Cluster.Kubectl(p.t.Context(), "get", kind, "-n", namespace, name, "-o", "jsonpath="+path)
	if err != nil {
		return ""
	}
	return out
}

// condition is the status, reason and message of a condition.
func (p *Plane) condition(kind, namespace, name, which string) string {
	return p.field(kind, namespace, name, `{range .status.conditions[?(@.type=="`+which+`")]}{.status} {.reason} {.message}{end}`)
}

const waypointGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop, labels: {istio.io/waypoint-for: service}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]INFRASTRUCTURE}
`

func waypointWith(infrastructure string) string {
	if infrastructure != "" {
		infrastructure = ", infrastructure: " + infrastructure
	}
	return strings.Replace(waypointGateway, "INFRASTRUCTURE", infrastructure, 1)
}

// What the control plane says about objects stands on them, in Istio's words; what others
// say there stays.
func TestStatusIsWritten(t *testing.T) {
	p := installed(t, "status", "--log-level", "debug")
	p.Until("the class", func() bool {
		return strings.HasPrefix(p.condition("gatewayclass", "", "istio-waypoint", "Accepted"), "True Accepted")
	})
	// Another controller's condition on the Service, which must stay.
	s, err := p.Kube.CoreV1().Services("shop").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.Status.Conditions = []metav1.Condition{{Type: "example.com/Seen", Status: metav1.ConditionTrue, Reason: "Seen", LastTransitionTime: metav1.Now()}}
	if _, err := p.Kube.CoreV1().Services("shop").UpdateStatus(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	p.Apply(waypointWith(""))
	p.Kubectl("label", "namespace", "shop", "istio.io/use-waypoint=waypoint")
	p.Until("the Gateway is programmed", func() bool {
		return strings.HasPrefix(p.condition("gateway", "shop", "waypoint", "Programmed"), "True Programmed Resource programmed, assigned to service(s) waypoint.shop.svc.cluster.local:15008")
	})
	ip := p.field("service", "shop", "waypoint", "{.spec.clusterIP}")
	if got := p.field("gateway", "shop", "waypoint", "{.status.addresses[*].value}"); ip == "" || got != "waypoint.shop.svc.cluster.local "+ip {
		t.Errorf("addresses %q, the service has %s", got, ip)
	}
	if got := p.field("gateway", "shop", "waypoint", "{.status.listeners[0].name} {.status.listeners[0].conditions[*].type}"); got != "mesh Accepted Conflicted Programmed ResolvedRefs" {
		t.Errorf("listeners %q", got)
	}
	p.Until("the Service is bound", func() bool {
		return p.condition("service", "shop", "web", "istio.io/WaypointBound") == "True WaypointAccepted Successfully attached to waypoint shop/waypoint"
	})
	if got := p.condition("service", "shop", "web", "example.com/Seen"); !strings.HasPrefix(got, "True Seen") {
		t.Errorf("the other's condition is %q", got)
	}

	p.Apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web, port: 80}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bad, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web, port: 80}], rules: [{matches: [{path: {type: RegularExpression, value: "("}}], backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec: {hosts: [out.example.com], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: lost, namespace: shop}
spec: {hosts: [nowhere.example.com], http: [{route: [{destination: {host: nowhere.example.com}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: layer4, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, action: DENY, rules: [{from: [{source: {namespaces: [evil]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: wrong, namespace: shop}
spec: {selector: {matchLabels: {app: none}}, action: ALLOW, rules: [{from: [{source: {ipBlocks: [300.0.0.1]}}]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec: {selector: {matchLabels: {app: none}}, jwtRules: [{issuer: i, jwksUri: "https://i.example.com/jwks"}]}
`)
	parent := func(which string) string {
		return p.field("httproute", "shop", "web", `{range .status.parents[?(@.controllerName=="fairlead.dev/gateway-controller")].conditions[?(@.type=="`+which+`")]}{.status} {.observedGeneration}{end}`)
	}
	p.Until("the route is accepted", func() bool { return parent("Accepted") == "True 1" && parent("ResolvedWaypoints") == "True 1" })
	p.Until("the route that is wrong is not", func() bool {
		got := p.field("httproute", "shop", "bad", `{range .status.parents[*].conditions[?(@.type=="Accepted")]}{.status} {.reason} {.message}{end}`)
		return strings.HasPrefix(got, "False UnsupportedValue") && strings.Contains(got, "spec.rules[0].matches[0].path")
	})
	p.Until("addresses of the entry", func() bool {
		return strings.HasPrefix(p.field("serviceentry", "shop", "out", "{.status.addresses[*].value}"), "240.240.")
	})
	p.Until("what is not there", func() bool {
		return strings.HasPrefix(p.condition("virtualservice", "shop", "lost", "fairlead.dev/InEffect"), "False")
	})
	p.Until("the policy", func() bool {
		return strings.HasPrefix(p.condition("authorizationpolicy", "shop", "layer4", "ZtunnelAccepted"), "True")
	})
	p.Until("what is wrong", func() bool {
		got := p.condition("authorizationpolicy", "shop", "wrong", "ZtunnelAccepted")
		return strings.HasPrefix(got, "False Invalid") && strings.Contains(got, "300.0.0.1")
	})
	p.Until("what is not served", func() bool {
		return strings.HasPrefix(p.condition("requestauthentication", "shop", "tokens", "fairlead.dev/Accepted"), "False NotServed")
	})

	// An edit moves the observed generation and not the time; nothing else is written.
	times := `{.status.parents[0].conditions[*].lastTransitionTime}`
	since := p.field("httproute", "shop", "web", times)
	version := p.field("service", "shop", "web", "{.metadata.resourceVersion}")
	p.Kubectl("patch", "httproute", "-n", "shop", "web", "--type=json", `-p=[{"op":"add","path":"/spec/hostnames","value":["a.example.com"]}]`)
	p.Until("the new generation", func() bool { return parent("Accepted") == "True 2" })
	if got := p.field("httproute", "shop", "web", times); got != since {
		t.Errorf("times moved from %s to %s", since, got)
	}
	if got := p.field("service", "shop", "web", "{.metadata.resourceVersion}"); got != version {
		t.Errorf("the Service was written without need")
	}

	// Whoever takes conditions away is put right; a control plane that starts again
	// writes nothing that is there.
	p.Kubectl("patch", "service", "-n", "shop", "web", "--subresource=status", "--type=merge", `-p={"status":{"conditions":null}}`)
	p.Until("the condition again", func() bool { return p.condition("service", "shop", "web", "istio.io/WaypointBound") != "" })
	p.Stop()
	p.Run()
	p.Until("it leads again", func() bool { return strings.Contains(p.Get("/metrics"), "fairlead_leader 1") })
	p.Kubectl("label", "namespace", "shop", "istio.io/use-waypoint-")
	p.Until("the condition is taken back", func() bool {
		return p.condition("service", "shop", "web", "istio.io/WaypointBound") == "" && strings.HasPrefix(parent("ResolvedWaypoints"), "False")
	})
	// The label is of these three; all else has been as it is since before the start.
	for line := range strings.Lines(grep(p.Get("/metrics"), "fairlead_status_writes_total{")) {
		switch strings.TrimSpace(line) {
		case `fairlead_status_writes_total{kind="HTTPRoute",result="ok"} 2`, `fairlead_status_writes_total{kind="Service",result="ok"} 1`, `fairlead_status_writes_total{kind="ServiceEntry",result="ok"} 1`:
		default:
			t.Errorf("written after a start: %s%s", line, grep(p.Log(), "status written"))
		}
	}
}

func grep(text, part string) (out string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			out += line
		}
	}
	return out
}

// A Gateway becomes what runs a waypoint, as its parameters say, and what it made goes
// with it.
func TestWaypointIsDeployed(t *testing.T) {
	p := installed(t, "deploys", "--waypoint-image", "localhost/fairlead/waypoint:1", "--waypoint-pull-policy", "Never")
	p.Apply(waypointWith("{labels: {team: shop}, annotations: {note: kept}}"))
	p.Until("a Deployment", func() bool { return p.field("deployment", "shop", "waypoint", "{.spec.replicas}") == "1" })
	p.Until("a Service", func() bool { return p.field("service", "shop", "waypoint", "{.spec.clusterIP}") != "" })
	for path, want := range map[string]string{
		"{.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}":                         "Gateway/waypoint",
		"{.metadata.labels.team} {.metadata.annotations.note}":                                            "shop kept",
		`{.metadata.labels.gateway\.istio\.io/managed}`:                                                   "istio.io-mesh-controller",
		"{.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].imagePullPolicy}":   "localhost/fairlead/waypoint:1 Never",
		"{.spec.template.spec.serviceAccountName}":                                                        "waypoint",
		"{.spec.strategy.rollingUpdate.maxSurge} {.spec.strategy.rollingUpdate.maxUnavailable}":           "1 0",
		"{.spec.template.spec.volumes[0].projected.sources[0].serviceAccountToken.audience}":              "istio-ca",
		"{.spec.template.spec.containers[0].securityContext.capabilities.drop[0]}":                        "ALL",
		"{range .metadata.managedFields[*]}{.manager} {end}":                                              "fairlead-waypoint ",
		"{.spec.template.spec.containers[0].args[0]} {.spec.template.spec.terminationGracePeriodSeconds}": "--xds-address=istiod.istio-system.svc:15012 40",
	} {
		if got := strings.Replace(p.field("deployment", "shop", "waypoint", path), "kubetools ", "", 1); !strings.HasPrefix(got, want) {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	// The pods are such that the strictest standard admits them.
	p.Kubectl("label", "namespace", "shop", "pod-security.kubernetes.io/enforce=restricted")
	if out, err := p.Cluster.Kubectl(t.Context(), "create", "--dry-run=server", "-f", p.podOf("shop", "waypoint")); err != nil {
		t.Errorf("a pod of the waypoint is not admitted: %v\n%s", err, out)
	}

	// Scaling by hand stays; parameters come and go.
	p.Kubectl("annotate", "gateway", "-n", "shop", "waypoint", "fairlead.dev/waypoint-replicas=2")
	p.Until("as many as the Gateway says", func() bool { return p.field("deployment", "shop", "waypoint", "{.spec.replicas}") == "2" })
	p.Kubectl("annotate", "gateway", "-n", "shop", "waypoint", "fairlead.dev/waypoint-replicas-")
	p.Until("the number that is nobody's", func() bool {
		return strings.Contains(p.field("deployment", "shop", "waypoint", "{range .metadata.managedFields[*]}{.manager} {end}"), "fairlead-waypoint-replicas")
	})
	if got := p.field("deployment", "shop", "waypoint", "{.spec.replicas}"); got != "2" {
		t.Errorf("%s replicas where the Gateway does not say any more, after 2", got)
	}
	p.Kubectl("scale", "deployment", "-n", "shop", "waypoint", "--replicas=3")
	p.Apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: defaults, namespace: istio-system, labels: {gateway.istio.io/defaults-for-class: istio-waypoint}}, data: {deployment: "spec: {template: {spec: {priorityClassName: system-cluster-critical}}}"}}`)
	p.Until("the class's parameters", func() bool {
		return p.field("deployment", "shop", "waypoint", "{.spec.template.spec.priorityClassName}") == "system-cluster-critical"
	})
	if got := p.field("deployment", "shop", "waypoint", "{.spec.replicas}"); got != "3" {
		t.Errorf("%s replicas after scaling to 3", got)
	}
	p.Apply(waypointWith("{parametersRef: {group: \"\", kind: ConfigMap, name: own}}"))
	p.Until("what is missing", func() bool {
		return strings.Contains(p.condition("gateway", "shop", "waypoint", "Accepted"), "InvalidParameters spec.infrastructure.parametersRef: there is no ConfigMap shop/own")
	})
	p.Apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: own, namespace: shop}, data: {deployment: "spec: {template: {spec: {containers: [{name: istio-proxy, resources: {requests: {cpu: 10m}}}]}}}", horizontalPodAutoscaler: "spec: {minReplicas: 2, maxReplicas: 4}", podDisruptionBudget: "spec: {minAvailable: 1}"}}`)
	p.Until("an autoscaler and a budget", func() bool {
		return p.field("hpa", "shop", "waypoint", "{.spec.maxReplicas} {.spec.scaleTargetRef.name}") == "4 waypoint" && p.field("pdb", "shop", "waypoint", "{.spec.minAvailable}") == "1"
	})
	p.Until("its own parameters", func() bool {
		return p.field("deployment", "shop", "waypoint", "{.spec.template.spec.containers[0].resources.requests.cpu}") == "10m"
	})
	// Who hands over to the autoscaler does not drop to one pod on the way.
	if got := p.field("deployment", "shop", "waypoint", "{.spec.replicas}"); got != "3" {
		t.Errorf("%s replicas with an autoscaler, after 3", got)
	}
	p.Until("no complaint", func() bool { return strings.HasPrefix(p.condition("gateway", "shop", "waypoint", "Accepted"), "True") })
	p.Apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: own, namespace: shop}, data: {service: "metadata: {labels: {extra: \"yes\"}}"}}`)
	p.Until("no autoscaler", func() bool {
		return p.field("hpa", "shop", "waypoint", "{.metadata.name}") == "" && p.field("pdb", "shop", "waypoint", "{.metadata.name}") == "" && p.field("service", "shop", "waypoint", "{.metadata.labels.extra}") == "yes"
	})

	// What is taken away or changed by hand is put right.
	p.Kubectl("delete", "service", "-n", "shop", "waypoint")
	p.Until("the Service again", func() bool { return p.field("service", "shop", "waypoint", "{.metadata.labels.extra}") == "yes" })
	p.Kubectl("set", "image", "-n", "shop", "deployment/waypoint", "istio-proxy=other")
	p.Until("the image again", func() bool {
		return p.field("deployment", "shop", "waypoint", "{.spec.template.spec.containers[0].image}") == "localhost/fairlead/waypoint:1"
	})
	// What is someone else's is left alone, and named.
	p.Apply(`{apiVersion: v1, kind: Service, metadata: {name: taken, namespace: shop}, spec: {selector: {app: other}, ports: [{port: 1}]}}`)
	p.Apply(strings.Replace(waypointWith(""), "name: waypoint,", "name: taken,", 1))
	p.Until("what is in the way", func() bool {
		return strings.Contains(p.condition("gateway", "shop", "taken", "Programmed"), "there is a Service taken without the label gateway.istio.io/managed")
	})
	if got := p.field("service", "shop", "taken", "{.spec.selector.app}"); got != "other" {
		t.Errorf("the other's Service selects %q", got)
	}

	// A waypoint of another name takes the place of that of the first.
	p.Kubectl("annotate", "gateway", "-n", "shop", "waypoint", "gateway.istio.io/name-override=second", "gateway.istio.io/service-account=second")
	p.Until("what was of the first name is gone", func() bool {
		out := p.Kubectl("get", "serviceaccount,deployment,service", "-n", "shop", "-l", "gateway.networking.k8s.io/gateway-name=waypoint", "-o", "name")
		return strings.Join(strings.Fields(out), " ") == "serviceaccount/second deployment.apps/second service/second"
	})

	p.Kubectl("delete", "gateway", "-n", "shop", "waypoint")
	p.Until("nothing is left", func() bool {
		out := p.Kubectl("get", "serviceaccount,deployment,service,hpa,pdb", "-n", "shop", "-l", "gateway.networking.k8s.io/gateway-name=waypoint", "-o", "name")
		return strings.TrimSpace(out) == ""
	})
}

// podOf is a file with a pod of a Deployment.
func (p *Plane) podOf(namespace, name string) string {
	p.t.Helper()
	template := p.field("deployment", namespace, name, "{.spec.template}")
	var pod map[string]any
	if err := json.Unmarshal([]byte(template), &pod); err != nil {
		p.t.Fatalf("%v: %s", err, template)
	}
	pod["apiVersion"], pod["kind"] = "v1", "Pod"
	meta := pod["metadata"].(map[string]any)
	meta["name"], meta["namespace"] = "probe", namespace
	return p.file(pod)
}

func (p *Plane) file(object any) string {
	p.t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		p.t.Fatal(err)
	}
	path := filepath.Join(p.t.TempDir(), "object.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}
