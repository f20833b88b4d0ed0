package plane

import (
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

const shop = `
{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}}
`

var web = mesh.ServiceKey{Namespace: "shop", Hostname: "web.shop.svc.cluster.local"}

// definitions are those of Istio's kinds or the Gateway API's, as the chart has them.
func definitions(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../../deploy/charts/fairlead/crds/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const enrolled = "ambient.istio.io/redirection"

// begin is a control plane without any definitions, an agent, and a pod of a service.
func begin(t *testing.T, name string) (*Plane, *corev1.Pod, *corev1.Pod) {
	t.Helper()
	p := Start(t, cluster.ForTest(t, cluster.Options{Name: name}))
	p.Apply(shop)
	p.Node("n1", map[string]string{"topology.kubernetes.io/region": "r1"})
	agent := p.Pod("istio-system", "ztunnel-n1", "ztunnel", "n1", "10.1.0.1", nil, nil)
	pod := p.Pod("shop", "web-1", "web", "n1", "10.1.0.2", map[string]string{"app": "web"}, map[string]string{enrolled: "enabled"})
	return p, agent, pod
}

// Objects go in, workloads and policies come out; kinds may be installed while it runs,
// and an object that is wrong denies what it selects and keeps nothing else from coming.
func TestObjectsInWorkloadsOut(t *testing.T) {
	p, agent, pod := begin(t, "objects")
	p.Until("ready without definitions", func() bool { return strings.HasPrefix(p.Get("/healthz/ready"), "200") })
	s, client := p.Agent(agent)
	p.Until("the service and its endpoint", func() bool { return s.Snapshot().Service(web) != nil && len(s.Snapshot().Endpoints(web)) == 1 })
	w := s.Snapshot().Endpoints(web)[0]
	if w.Tunnel != mesh.TunnelHBONE || w.Identity().String() != "spiffe://cluster.local/ns/shop/sa/web" || w.Locality.Region != "r1" {
		t.Errorf("workload %+v", w)
	}

	pod = p.Ready(pod, "10.1.0.2", false)
	p.Until("the pod that is not ready", func() bool { return !s.Snapshot().Endpoints(web)[0].Healthy })
	p.Ready(pod, "10.1.0.2", true)
	p.Until("the pod that is", func() bool { return s.Snapshot().Endpoints(web)[0].Healthy })

	p.Apply(definitions(t, "istio"))
	p.Kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	const policy = `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: deny, namespace: shop}, spec: {selector: {matchLabels: {app: web}}, action: DENY, rules: [{from: [{source: {ipBlocks: [%s]}}]}]}}`
	p.Apply(strings.ReplaceAll(policy, "%s", "10.0.0.0/8"))
	named := func() []string {
		policies, _ := s.Snapshot().Policies(s.Snapshot().Endpoints(web)[0])
		var names []string
		for _, one := range policies {
			names = append(names, one.Name)
		}
		return names
	}
	p.Until("the policy", func() bool { return strings.Join(named(), " ") == "deny" })

	// Another is wrong from the start: it denies, and this one stays.
	p.Apply(strings.NewReplacer("%s", "10.0.0.0/64", "name: deny", "name: wrong").Replace(policy))
	p.Until("what denies for the wrong one", func() bool { return len(named()) == 2 })
	if !strings.Contains(p.Get("/debug/config"), "AuthorizationPolicy shop/wrong: spec.rules[0].from[0].source.ipBlocks[0]") {
		t.Errorf("it is not said what is wrong: %s", p.Get("/debug/config"))
	}
	// A control plane that starts with it serves all the same.
	p.Stop()
	p.Run()
	p.Until("ready in spite of it", func() bool { return strings.HasPrefix(p.Get("/healthz/ready"), "200") })
	p.Until("the agent again", func() bool { return client.State().Err == nil && strings.Contains(p.Get("/debug/syncz"), "ztunnel-n1") })
	p.Kubectl("delete", "authorizationpolicy", "-n", "shop", "wrong")
	p.Until("the right one alone", func() bool { return strings.Join(named(), " ") == "deny" })

	// What it was stays in force where it is made wrong.
	p.Apply(strings.ReplaceAll(policy, "%s", "10.0.0.0/64"))
	p.Until("the error", func() bool { return strings.Contains(p.Get("/debug/config"), "stays in force") })
	if got := strings.Join(named(), " "); got != "deny" {
		t.Errorf("policies %s", got)
	}
	p.Kubectl("delete", "crd", "authorizationpolicies.security.istio.io")
	p.Until("no policy of a kind that is gone", func() bool { return len(named()) == 0 })
}

// Objects of namespaces that no discovery selector selects appear nowhere, and a second
// after their namespace is labelled they do.
func TestDiscoverySelectors(t *testing.T) {
	p, agent, _ := begin(t, "selects")
	p.Apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: "discoverySelectors: [{matchLabels: {istio-discovery: enabled}}]"}}`)
	s, _ := p.Agent(agent)
	system := func() int { return len(s.Snapshot().Workloads()) }
	p.Until("the root namespace alone", func() bool { return system() == 1 && s.Snapshot().Service(web) == nil })
	c, stop := p.count(agent, nil)
	defer stop()
	p.Until("what an agent is told that begins now", func() bool { return c.distinct("istio-system/") > 0 })
	if n := c.distinct("shop/"); n > 0 {
		t.Errorf("%d resources of a namespace that is not selected", n)
	}
	start := time.Now()
	p.Kubectl("label", "namespace", "shop", "istio-discovery=enabled")
	p.Until("the namespace that is selected", func() bool { return system() == 2 && s.Snapshot().Service(web) != nil })
	p.Until("its resources", func() bool { return c.distinct("shop/") > 0 })
	t.Logf("kubectl label, and what follows: %v", time.Since(start))
	p.Kubectl("label", "namespace", "shop", "istio-discovery-")
	p.Until("the namespace that is not", func() bool { return system() == 1 && s.Snapshot().Service(web) == nil })
	// A pod of a namespace that is not looked at proves itself all the same: the API server is asked for it.
	p.Apply("{apiVersion: v1, kind: Namespace, metadata: {name: unseen}}")
	caller := p.Dial(p.Token(p.Pod("unseen", "caller", "caller", "n1", "10.1.0.9", nil, nil)))
	if got, err := Sign(t, caller, ""); err != nil || got != "spiffe://cluster.local/ns/unseen/sa/caller" {
		t.Errorf("a certificate for %s: %v", got, err)
	}
	if out := p.Get("/metrics"); !strings.Contains(out, `fairlead_ca_pod_lookups_total{result="found"} 1`) {
		t.Errorf("the API server was not asked: %s", grep(out, "lookups"))
	}
}
