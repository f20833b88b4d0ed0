package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// asked is a small service behind a waypoint, with a rule for it.
const asked = `
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers: [{name: tools, image: "` + apps.Tools + `"}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 1
  containers: [{name: tools, image: "` + apps.Tools + `"}]
---
apiVersion: v1
kind: Service
metadata: {name: server, labels: {istio.io/use-waypoint: waypoint}}
spec: {selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: server}
spec:
  hosts: [server]
  http:
  - match: [{uri: {prefix: /canary}}]
    route: [{destination: {host: server}}]
  - route: [{destination: {host: server}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec: {action: DENY, selector: {matchLabels: {app: client}}, rules: [{from: [{source: {principals: [cluster.local/ns/asked/sa/nobody]}}]}]}
`

// TestIstioctlSeesTheMesh runs istioctl as a person does, against pods: it goes through
// the API server and the kubelets to our agents, our waypoint and our control plane.
func TestIstioctlSeesTheMesh(t *testing.T) {
	m := installed(t)
	binary, err := cluster.Part("istioctl")
	if err != nil {
		t.Fatal(err)
	}
	const ns = "asked"
	m.Namespace(t, ns, true)
	m.Apply(t, asked, "-n", ns)
	waypoint(t, m, ns)
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=80s")
	enrolled(t, m, ns)
	istioctl := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+m.Kubeconfig, "HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		var rows []string
		for line := range strings.Lines(string(out)) {
			rows = append(rows, strings.Join(strings.Fields(line), " "))
		}
		return strings.Join(rows, "\n"), err
	}
	agent := m.Do(t, "-n", "istio-system", "get", "pod", "-l", "app=ztunnel", "--field-selector", "spec.nodeName=n2", "-o", "jsonpath={.items[0].metadata.name}")
	proxy := m.Do(t, "-n", ns, "get", "pod", "-l", "gateway.networking.k8s.io/gateway-name=waypoint", "-o", "jsonpath={.items[0].metadata.name}")
	server := m.Do(t, "-n", ns, "get", "pod", "server", "-o", "jsonpath={.status.podIP}")
	vip := m.Do(t, "-n", ns, "get", "service", "server", "-o", "jsonpath={.spec.clusterIP}")
	of := "inbound-vip|80|http|server.asked.svc.cluster.local"
	for _, c := range []struct {
		args string
		want []string
	}{
		{"ztunnel-config all " + agent + ".istio-system", []string{"asked server " + server + " n2 None HBONE", "asked server " + vip + " waypoint 1/1", "asked nobody Deny WorkloadSelector"}},
		{"ztunnel-config workload " + agent + ".istio-system --workload-namespace asked", []string{"asked client ", "asked server " + server}},
		{"ztunnel-config service " + agent + ".istio-system --service-namespace asked", []string{"asked server " + vip + " waypoint 1/1"}},
		{"ztunnel-config workload", []string{"asked client ", "asked server " + server}},
		{"ztunnel-config policy ds/ztunnel.istio-system", []string{"asked nobody Deny WorkloadSelector"}},
		{"ztunnel-config certificate " + agent + ".istio-system", []string{"spiffe://cluster.local/ns/asked/sa/default Leaf Available true"}},
		{"ztunnel-config connections " + agent + ".istio-system", []string{"WORKLOAD DIRECTION LOCAL REMOTE REMOTE TARGET PROTOCOL"}},
		{"proxy-status", []string{agent + ".istio-system Kubernetes istiod-", proxy + ".asked Kubernetes istiod-", "(WADS,WDS)", "CDS,LDS"}},
		{"proxy-status " + proxy + ".asked", []string{"Clusters Match", "Listeners Match", "Routes Match"}},
		{"proxy-config listener " + proxy + ".asked", []string{"Route: " + of, "0.0.0.0 15008 ALL Inline Route:"}},
		{"proxy-config cluster " + proxy + ".asked", []string{"server.asked.svc.cluster.local 80 http inbound-vip EDS"}},
		{"proxy-config route " + proxy + ".asked", []string{of, "/canary*"}},
		{"proxy-config endpoint " + proxy + ".asked", []string{server + ":8080", of}},
		{"proxy-config secret " + proxy + ".asked", []string{"default Cert Chain ACTIVE true", "ROOTCA CA ACTIVE true"}},
		{"analyze -n asked", []string{"No validation issues found"}},
		{"waypoint list -n asked", []string{"waypoint default none True"}},
		{"waypoint status -n asked", []string{"waypoint True"}},
		{"version", []string{"client version"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			got := ""
			mesh.Eventually(t, "istioctl "+c.args, func() error {
				var err error
				if got, err = istioctl(strings.Fields(c.args)...); err != nil {
					return fmt.Errorf("%w: %s", err, got)
				}
				for _, want := range c.want {
					if !strings.Contains(got, want) {
						return errors.New("no " + want + " in:\n" + got)
					}
				}
				return nil
			})
		})
	}
}
