// Package proxies finds the mesh's processes that have to do with a workload: its
// node's agent, and the waypoint of its services. A pod has no proxy of its own.
//
// For cmd/fairlead and tests.
package proxies

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
)

// Labels by which the mesh's pods are found; they are Istio's.
const (
	ControlPlane = "app=istiod"
	Agents       = "app=ztunnel"
	gatewayName  = "gateway.networking.k8s.io/gateway-name"
	useWaypoint  = "istio.io/use-waypoint"
	inNamespace  = "istio.io/use-waypoint-namespace"
)

// Ports of the mesh's pods, on their loopback.
const (
	AdminPort = 15000
	DebugPort = 15014
)

// Pod names a pod.
type Pod struct{ Namespace, Name string }

func (p Pod) String() string { return p.Name + "." + p.Namespace }

// Of is what has to do with a pod of a workload.
type Of struct {
	Pod Pod
	// Agent is the pod itself if it is an agent, else its node's; empty: there is none.
	Agent Pod
	// Waypoint is the pod itself if it is a waypoint's or a gateway's, else one of the
	// waypoint that the pod's services are bound to; empty: there is none.
	Waypoint Pod
	// Hosts are the services that select the pod; none for a proxy.
	Hosts []string
}

// Self tells that the pod is a proxy itself.
func (o Of) Self() bool { return o.Pod == o.Waypoint || o.Pod == o.Agent }

// Find looks up what has to do with a target of a command line, such as
// "deploy/productpage" or "productpage-5d.default".
func Find(ctx context.Context, c *kube.Client, f *kube.Flags, target string) (Of, error) {
	kind, name, namespace := f.Target(target)
	pod, err := c.PodOf(ctx, kind, name, namespace)
	if err != nil {
		return Of{}, err
	}
	out := Of{Pod: Pod{pod.GetNamespace(), pod.GetName()}}
	labels := pod.GetLabels()
	if labels["app"] == "ztunnel" && pod.GetNamespace() == f.IstioNamespace {
		out.Agent = out.Pod
		return out, nil
	}
	if labels[gatewayName] != "" {
		out.Waypoint = out.Pod
	}
	node, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName")
	if out.Agent, err = AgentOn(ctx, c, f.IstioNamespace, node); err != nil {
		return Of{}, err
	}
	if out.Waypoint != (Pod{}) {
		return out, nil
	}
	return out, out.findWaypoint(ctx, c, pod)
}

// AgentOn is the agent of a node; of any with "". It is empty where there is none.
func AgentOn(ctx context.Context, c *kube.Client, istioNamespace, node string) (Pod, error) {
	all, err := c.List(ctx, kube.Pod, istioNamespace, Agents)
	if err != nil {
		return Pod{}, err
	}
	for _, p := range all {
		on, _, _ := unstructured.NestedString(p.Object, "spec", "nodeName")
		if running(p) && (node == "" || on == node) {
			return Pod{p.GetNamespace(), p.GetName()}, nil
		}
	}
	return Pod{}, nil
}

func running(p *unstructured.Unstructured) bool {
	phase, _, _ := unstructured.NestedString(p.Object, "status", "phase")
	return phase == "Running" && p.GetDeletionTimestamp() == nil
}

// findWaypoint takes the waypoint of the first of the pod's services that has one, then
// the pod's own, then the namespace's.
func (o *Of) findWaypoint(ctx context.Context, c *kube.Client, pod *unstructured.Unstructured) error {
	services, err := c.List(ctx, kube.Service, pod.GetNamespace(), "")
	if err != nil {
		return err
	}
	var bound []map[string]string
	for _, s := range services {
		selector, _, _ := unstructured.NestedStringMap(s.Object, "spec", "selector")
		if len(selector) == 0 || !selects(selector, pod.GetLabels()) {
			continue
		}
		o.Hosts = append(o.Hosts, s.GetName()+"."+s.GetNamespace()+".svc.cluster.local")
		bound = append(bound, s.GetLabels())
	}
	namespace, err := c.Get(ctx, kube.Namespace, "", pod.GetNamespace())
	if err != nil {
		return err
	}
	bound = append(bound, pod.GetLabels())
	if namespace != nil {
		bound = append(bound, namespace.GetLabels())
	}
	i := slices.IndexFunc(bound, func(labels map[string]string) bool { return labels[useWaypoint] != "" })
	if i < 0 || bound[i][useWaypoint] == "none" {
		return nil
	}
	in := bound[i][inNamespace]
	if in == "" {
		in = pod.GetNamespace()
	}
	pods, err := c.List(ctx, kube.Pod, in, gatewayName+"="+bound[i][useWaypoint])
	if err != nil {
		return err
	}
	for _, p := range pods {
		if running(p) {
			o.Waypoint = Pod{p.GetNamespace(), p.GetName()}
			return nil
		}
	}
	return fmt.Errorf("no pod of waypoint %s/%s, which pod %s is bound to, runs", in, bound[i][useWaypoint], o.Pod)
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// NoWaypoint says what a workload without a waypoint is asked about instead.
func (o Of) NoWaypoint() error {
	return fmt.Errorf("pod %s has no waypoint, so its traffic is handled at layer 4 by its node's agent: see fairlead ztunnel-config workload %s. "+
		"To give its namespace one: fairlead waypoint apply -n %s --enroll-namespace", o.Pod, strings.TrimSuffix(o.Agent.String(), "."), o.Pod.Namespace)
}
