package install

import (
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
	"github.com/fairlead-mesh/fairlead/pkg/install/unclean"
)

// nodesWithoutAgent are the nodes that have a pod of the agent's DaemonSet, which it
// makes for each node that it is for, and none that is ready; nil if there are none.
func nodesWithoutAgent(ctx context.Context, c *kube.Client) (*unclean.Error, error) {
	set, err := c.Get(ctx, schema.GroupKind{Group: "apps", Kind: "DaemonSet"}, chart.Namespace, "ztunnel")
	if err != nil || set == nil {
		return nil, err
	}
	pods, err := c.List(ctx, schema.GroupKind{Kind: "Pod"}, chart.Namespace, agentPods)
	if err != nil {
		return nil, err
	}
	nodes := unready(pods)
	if len(nodes) == 0 {
		return nil, nil
	}
	e := &unclean.Error{Nodes: nodes, Image: "IMAGE-OF-THE-AGENT"}
	containers, _, _ := unstructured.NestedSlice(set.Object, "spec", "template", "spec", "containers")
	for _, c := range containers {
		if m, ok := c.(map[string]any); ok && m["name"] == "istio-proxy" {
			e.Image, _ = m["image"].(string)
		}
	}
	return e, nil
}

// unready are the nodes of agents' pods of which none is ready.
func unready(pods []*unstructured.Unstructured) []string {
	ready := map[string]bool{}
	for _, p := range pods {
		if node := nodeOf(p); node != "" {
			ready[node] = ready[node] || kube.Condition(p, "Ready").Status == metav1.ConditionTrue
		}
	}
	var out []string
	for node, ok := range ready {
		if !ok {
			out = append(out, node)
		}
	}
	slices.Sort(out)
	return out
}

// nodeOf is where a DaemonSet's pod runs, or is to run: the controller names the node in
// its affinity before the scheduler puts it there.
func nodeOf(p *unstructured.Unstructured) string {
	if node, _, _ := unstructured.NestedString(p.Object, "spec", "nodeName"); node != "" {
		return node
	}
	terms, _, _ := unstructured.NestedSlice(p.Object, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	for _, t := range terms {
		term, _ := t.(map[string]any)
		fields, _, _ := unstructured.NestedSlice(term, "matchFields")
		for _, f := range fields {
			field, _ := f.(map[string]any)
			values, _, _ := unstructured.NestedStringSlice(field, "values")
			if field["key"] == "metadata.name" && len(values) == 1 {
				return values[0]
			}
		}
	}
	return ""
}
