package waypoint

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/test/bench/cluster"
	"github.com/fairlead-mesh/fairlead/test/bench/measure"
)

const nodesYAML = `apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
`

// engines are the namespaces of the mesh's scenarios, by the proxy of their waypoint.
var engines = []string{"fairlead", "envoy"}

// namespaceYAML is a client on one node and two versions of a server on the other,
// behind a waypoint.
func namespaceYAML(ns, engine, self string) string {
	out := fmt.Sprintf(`apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: %[1]s, annotations: {fairlead.dev/waypoint-engine: %[2]s}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: %[1]s, labels: {app: client}}
spec: {nodeName: n1, containers: [{name: app, image: curlimages/curl}]}
`, ns, engine)
	for _, version := range []string{"v1", "v2"} {
		out += fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: server-%[2]s, namespace: %[1]s, labels: {app: server, version: %[2]s}}
spec:
  nodeName: n2
  containers: [{name: app, image: echo, command: ["%[3]s", l7-origin, --v1, ":8080", --v2, ":8081", --admin, ":8082"]}]
`, ns, version, self)
	}
	return out
}

// splitYAML is the route of the scenarios: a header that chooses, else 90 to 10.
func splitYAML(ns string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: server, namespace: %[1]s}
spec: {selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server, namespace: %[1]s}
spec: {host: server, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: server, namespace: %[1]s}
spec:
  hosts: [server]
  http:
  - match: [{headers: {x-canary: {exact: always}}}]
    route: [{destination: {host: server, subset: v2}}]
  - route:
    - {destination: {host: server, subset: v1}, weight: 90}
    - {destination: {host: server, subset: v2}, weight: 10}
`, ns)
}

// meshLoads are what clients in the mesh do: closed loops, and one at a fixed rate.
var meshLoads = []struct {
	name, what  string
	conns, rate int // rate: requests a second of all connections; 0 is what comes
}{
	{"w3-4", "4 connections, 1 KiB", 4, 0}, {"w3-16", "16 connections, 1 KiB", 16, 0}, {"w3-128", "128 connections, 1 KiB", 128, 0},
	{"w3-rate", "1,000 requests a second, 4 connections, 1 KiB", 4, 1000},
}

// inMesh measures waypoints where they belong: between two node agents, with a tunnel
// in and a tunnel out, as the control plane configures them.
func (w *world) inMesh(ctx context.Context) (any, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	envoy, err := filepath.Abs(filepath.Join(w.o.Peers, "envoy", "envoy"))
	if err != nil {
		return nil, err
	}
	if err := os.Setenv("FAIRLEAD_ENVOY", envoy); err != nil { // where the lab finds it
		return nil, err
	}
	yaml := nodesYAML
	for _, e := range engines {
		yaml += "---\n" + namespaceYAML(e, e, self) + "---\n" + splitYAML(e)
	}
	c, err := cluster.Up(ctx, w.o.Bin, map[string]string{"cluster.yaml": yaml})
	if err != nil {
		return nil, err
	}
	defer c.Down()
	if err := pinWaypoints(ctx, c); err != nil {
		return nil, err
	}
	var all []Sample
	for _, l := range meshLoads {
		var of []Sample
		for round := range w.o.Rounds + 1 {
			for i := range engines {
				e := engines[(i+round)%len(engines)]
				got, err := w.inMeshSample(ctx, c, e, l.name, l.conns, l.rate)
				if err != nil {
					return nil, fmt.Errorf("%s, %s, round %d: %w", l.name, e, round, err)
				}
				if got.Round = round; round > 0 {
					of = append(of, got)
				}
			}
			fmt.Fprintf(os.Stderr, "\r%s: round %d of %d ", l.name, round, w.o.Rounds)
		}
		fmt.Fprint(os.Stderr, "\r")
		report(scenario{name: l.name, what: "tunnels in and out, " + l.what, peers: engines}, of)
		all = append(all, of...)
	}
	return all, nil
}

// pinWaypoints waits for the waypoints' pods and gives each the first CPU.
func pinWaypoints(ctx context.Context, c *cluster.Cluster) error {
	for _, e := range engines {
		pid, err := waypointPID(ctx, c, e)
		if err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, "taskset", "-a", "-p", "-c", proxyCPU, strconv.Itoa(pid)).CombinedOutput(); err != nil {
			return fmt.Errorf("taskset: %w: %s", err, out)
		}
	}
	return nil
}

// waypointPID waits until a namespace's waypoint is ready.
func waypointPID(ctx context.Context, c *cluster.Cluster, ns string) (int, error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		for _, p := range c.Pods {
			if p.Namespace != ns || !strings.HasPrefix(p.Name, "waypoint") || !p.Ready {
				continue
			}
			for _, container := range p.Containers {
				if container.PID != 0 && (len(p.Containers) == 1 || strings.Contains(container.Name, "proxy") || strings.Contains(container.Name, "envoy")) {
					return container.PID, nil
				}
			}
		}
		if err := c.Look(ctx); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("the waypoint of namespace %s is not ready", ns)
}

func (w *world) inMeshSample(ctx context.Context, c *cluster.Cluster, ns, name string, conns, rate int) (out Sample, err error) {
	out = Sample{Scenario: name, Proxy: ns, Load: measure.Load()}
	pid, err := waypointPID(ctx, c, ns)
	if err != nil {
		return out, err
	}
	pod := c.Pod(ns, "waypoint")
	had, err := requestsTotal(ctx, pod)
	if err != nil {
		return out, err
	}
	stolen := measure.Steal()
	before, err := measure.CPU(pid)
	if err != nil {
		return out, err
	}
	client := "nsenter --net=" + c.Pod(ns, "client").NetNS
	l := load{conns: conns, per: 1, size: 1 << 10, inside: strings.Fields(client), addr: c.Service(ns, "server") + ":80", rate: rate}
	var o outcome
	if rate > 0 {
		o, err = l.h2load(ctx, w, 0, w.o.Duration)
	} else {
		o, err = l.wrk(ctx, 0, w.o.Duration)
	}
	if err != nil {
		return out, err
	}
	after, err := measure.CPU(pid)
	if err != nil {
		return out, err
	}
	has, err := requestsTotal(ctx, pod)
	if err != nil {
		return out, err
	}
	if o.Errors > 0 {
		return out, fmt.Errorf("%d of %d requests failed", o.Errors, o.Requests)
	}
	if counted := int64(has - had); counted < o.Requests || counted > o.Requests+int64(2*conns) {
		return out, fmt.Errorf("the clients counted %d answers, the waypoint %d requests in mutual TLS", o.Requests, counted)
	}
	rss, err := measure.RSS(pid)
	if err != nil {
		return out, err
	}
	out.CPU = float64((after - before).Microseconds()) / float64(o.Requests)
	out.Rate, out.P50, out.P99, out.RSS = float64(o.Requests)/o.Seconds, o.P50, o.P99, float64(rss)
	out.Steal = (measure.Steal() - stolen).Seconds() / o.Seconds / 2
	return out, nil
}

// requestsTotal is what a waypoint has counted of requests that came in mutual TLS,
// answered with 200.
func requestsTotal(ctx context.Context, pod cluster.Pod) (n float64, err error) {
	page, err := cluster.Ask(ctx, pod.NetNS, "http://localhost:15020/metrics")
	if err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	for line := range strings.Lines(page) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if !strings.Contains(name, "istio_requests_total{") || !strings.Contains(name, `"mutual_tls"`) || !strings.Contains(name, `"200"`) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		n += v
	}
	return n, nil
}
