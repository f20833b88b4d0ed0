package scenario

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// try writes objects; it returns what kubectl complains of.
func try(t *testing.T, m *mesh.Mesh, ns, objects string) string {
	t.Helper()
	if _, err := m.KubectlInput(t.Context(), objects, "apply", "--server-side", "-n", ns, "-f", "-"); err != nil {
		return err.Error()
	}
	return ""
}

// What is wrong is refused by the webhook, which the API server reaches at its Service;
// with no control plane nothing that it would check is stored, and what is there can go.
func TestWhatIsWrongIsRefused(t *testing.T) {
	m := installed(t)
	const ns = "refused"
	m.Namespace(t, ns, false)
	t.Cleanup(func() {
		if out, err := m.Kubectl(context.Background(), "logs", "-n", "istio-system", "deployment/istiod", "--tail=40"); t.Failed() {
			t.Logf("the control plane said (%v):\n%s", err, out)
		}
	})
	const route = `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: %s}, spec: {hosts: [web], http: [{match: [{uri: {regex: "%s"}}], route: [{destination: {host: web}}]}]}}`
	mesh.Eventually(t, "the webhook is in force", func() error {
		out := m.Do(t, "get", "validatingwebhookconfiguration", "istio-validator-istio-system", "-o", `jsonpath={.webhooks[*].failurePolicy} {.metadata.annotations.fairlead\.dev/webhook-answered}`)
		if out != "Fail true" {
			return errors.New(out)
		}
		return nil
	})
	const denied = `admission webhook "rev.validation.istio.io" denied the request: VirtualService refused/wrong is invalid: spec.http[0].match[0].uri.regex`
	if said := try(t, m, ns, fmt.Sprintf(route, "wrong", "(")); !strings.Contains(said, denied) {
		t.Errorf("said %q, want %q", said, denied)
	}
	if said := try(t, m, ns, fmt.Sprintf(route, "right", "/a.*")); said != "" {
		t.Error(said)
	}
	replicas := m.Do(t, "get", "deployment", "-n", "istio-system", "istiod", "-o", "jsonpath={.spec.replicas}")
	m.Do(t, "scale", "-n", "istio-system", "deployment/istiod", "--replicas=0")
	m.Do(t, "wait", "--for=delete", "pod", "-n", "istio-system", "-l", "app=istiod", "--timeout=60s")
	if said := try(t, m, ns, fmt.Sprintf(route, "late", "/a.*")); !strings.Contains(said, "failed calling webhook") {
		t.Errorf("without a control plane: %q", said)
	}
	m.Do(t, "delete", "virtualservice", "-n", ns, "right")
	m.Do(t, "scale", "-n", "istio-system", "deployment/istiod", "--replicas="+replicas)
	m.Do(t, "rollout", "status", "-n", "istio-system", "deployment/istiod", "--timeout=80s")
	mesh.Eventually(t, "it is stored again", func() error {
		if said := try(t, m, ns, fmt.Sprintf(route, "late", "/a.*")); said != "" {
			return errors.New(said)
		}
		return nil
	})
}

// An edit of a Gateway, and of the ConfigMap that it names, rolls its pods under load and
// loses no request; what runs it goes with it.
func TestEditedWaypointLosesNoRequest(t *testing.T) {
	m := installed(t)
	const ns = "edited"
	m.Namespace(t, ns, true)
	m.Apply(t, server+"\n---\n"+client, "-n", ns)
	m.Do(t, "-n", ns, "rollout", "status", "deploy/server", "--timeout=60s")
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	waypoint(t, m, ns)
	enrolled(t, m, ns)
	m.Do(t, "-n", ns, "label", "service", "server", "istio.io/use-waypoint=waypoint")
	mesh.Eventually(t, "requests pass the waypoint", func() error { return throughWaypoint(t, m, ns) })
	for name, edit := range map[string]func(){
		"infrastructure": func() {
			m.Do(t, "-n", ns, "patch", "gateway", "waypoint", "--type=merge", "-p", `{"spec":{"infrastructure":{"annotations":{"example.com/edit":"yes"}}}}`)
		},
		"parameters": func() {
			m.Apply(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: own}, data: {deployment: "spec: {replicas: 2, template: {spec: {containers: [{name: istio-proxy, env: [{name: EDIT, value: \"1\"}]}]}}}", podDisruptionBudget: "spec: {minAvailable: 1}"}}`, "-n", ns)
			m.Do(t, "-n", ns, "patch", "gateway", "waypoint", "--type=merge", "-p", `{"spec":{"infrastructure":{"parametersRef":{"group":"","kind":"ConfigMap","name":"own"}}}}`)
		},
	} {
		load := begin(t, m, ns, "load-"+name, "--rate", "100", "--concurrency", "20")
		took := rolled(t, m, ns, "deployment/waypoint", "gateway.networking.k8s.io/gateway-name=waypoint", edit)
		load.end(fmt.Sprintf("its %s was edited, and the waypoint rolled in %s under load", name, took))
	}
	if err := throughWaypoint(t, m, ns); err != nil {
		t.Errorf("not through the waypoint any more: %v", err)
	}
	if out := m.Do(t, "-n", ns, "get", "gateway", "waypoint", "-o", `jsonpath={.status.addresses[*].value} {.status.conditions[?(@.type=="Programmed")].status}`); !strings.HasPrefix(out, "waypoint.edited.svc.cluster.local ") || !strings.HasSuffix(out, " True") {
		t.Errorf("the Gateway says %q", out)
	}
	m.Do(t, "-n", ns, "label", "service", "server", "istio.io/use-waypoint-")
	m.Do(t, "-n", ns, "delete", "gateway", "waypoint")
	mesh.Eventually(t, "nothing is left of the waypoint", func() error {
		if out := m.Do(t, "-n", ns, "get", "serviceaccount,deployment,service,pod,pdb", "-l", "gateway.networking.k8s.io/gateway-name=waypoint", "-o", "name"); strings.TrimSpace(out) != "" {
			return errors.New(out)
		}
		return nil
	})
}
