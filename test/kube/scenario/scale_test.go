package scenario

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// elastic are parameters of a waypoint with an autoscaler that sees half of 20 thousandths of a
// core as the load of one pod.
const elastic = `
apiVersion: v1
kind: ConfigMap
metadata: {name: elastic}
data:
  deployment: |
    spec: {template: {spec: {containers: [{name: istio-proxy, resources: {requests: {cpu: 20m}}}]}}}
  horizontalPodAutoscaler: |
    spec:
      minReplicas: 1
      maxReplicas: 2
      metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, labels: {istio.io/waypoint-for: service}}
spec:
  gatewayClassName: istio-waypoint
  infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: elastic}}
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`

// The autoscaler that a waypoint's parameters ask for sees its pods' CPU, and makes one into
// two under load: the second serves, and no request fails on the way.
func TestWaypointScalesUnderLoad(t *testing.T) {
	m := installed(t)
	if err := m.Metrics(t.Context()); err != nil {
		t.Fatal(err)
	}
	const ns, of = "elastic", "gateway.networking.k8s.io/gateway-name=waypoint"
	m.Namespace(t, ns, true)
	m.Apply(t, server+"\n---\n"+client+"\n---\n"+elastic, "-n", ns)
	m.Do(t, "-n", ns, "rollout", "status", "deploy/server", "--timeout=60s")
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	m.Do(t, "-n", ns, "wait", "--for=condition=Programmed", "gateway/waypoint", "--timeout=60s")
	enrolled(t, m, ns)
	m.Do(t, "-n", ns, "label", "service", "server", "istio.io/use-waypoint=waypoint")
	mesh.Eventually(t, "requests pass the waypoint", func() error { return throughWaypoint(t, m, ns) })
	scaler := func() string {
		return m.Do(t, "-n", ns, "get", "hpa", "waypoint", "-o", `jsonpath={.status.conditions[?(@.type=="AbleToScale")].status} {.status.conditions[?(@.type=="ScalingActive")].status} {.status.currentReplicas}/{.status.desiredReplicas} {.status.currentMetrics[0].resource.current.averageValue}`)
	}
	mesh.Eventually(t, "the autoscaler reads its target and its pods' CPU, and leaves one", func() error {
		if said := scaler(); !strings.HasPrefix(said, "True True 1/1 ") {
			return errors.New(said + " " + m.Do(t, "-n", ns, "get", "hpa", "waypoint", "-o", "jsonpath={.status.conditions[*].message}"))
		}
		return nil
	})
	idle := scaler()
	load := begin(t, m, ns, "load-scale", "--rate", "400", "--concurrency", "50")
	start := time.Now()
	mesh.Eventually(t, "two pods are ready", func() error {
		if ready := m.Do(t, "-n", ns, "get", "deploy/waypoint", "-o", "jsonpath={.status.readyReplicas}"); ready != "2" {
			return errors.New(ready + " of them, " + scaler())
		}
		return nil
	})
	took := time.Since(start).Round(time.Second)
	pods := strings.Fields(m.Do(t, "-n", ns, "get", "pods", "-l", of, "-o", "jsonpath={.items[*].metadata.name}"))
	mesh.Eventually(t, "each of the two serves", func() error {
		for _, pod := range pods {
			if out := m.Do(t, "get", "--raw", "/api/v1/namespaces/"+ns+"/pods/"+pod+":15020/proxy/stats/prometheus"); !hasLine(out, "istio_requests_total{", `destination_service_name="server"`, `response_code="200"`) {
				return errors.New(pod + " has served nothing")
			}
		}
		return nil
	})
	load.end("one waypoint (" + idle + ") became two in " + took.String() + " (" + scaler() + ")")
}
