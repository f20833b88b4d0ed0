package precheck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/install"
)

// lookout is the namespace of the pods that look at nodes; it goes with them.
const lookout = "fairlead-precheck"

// nodesTimeout bounds the look at all nodes.
const nodesTimeout = 3 * time.Minute

var (
	podKind       = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	namespaceKind = schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}
)

// agent is the pod of the chart's node agent.
func agent(m *install.Manifest) (*corev1.PodSpec, error) {
	for _, o := range m.Objects {
		if o.GetKind() != "DaemonSet" {
			continue
		}
		content, _, _ := unstructured.NestedMap(o.Object, "spec", "template", "spec")
		spec := &corev1.PodSpec{}
		return spec, runtime.DefaultUnstructuredConverter.FromUnstructured(content, spec)
	}
	return nil, errors.New("no agent is asked for: nodeAgent.enabled is false")
}

// OnNodes runs the own check of the agent that a manifest has on each node, with the
// rights that the agent will have, and takes everything away again.
func OnNodes(ctx context.Context, c *kube.Client, m *install.Manifest) (out []Finding, err error) {
	spec, err := agent(m)
	if err != nil {
		return nil, err
	}
	all, err := c.List(ctx, schema.GroupKind{Kind: "Node"}, "", "kubernetes.io/os!=windows")
	if err != nil {
		return nil, err
	}
	ns := &unstructured.Unstructured{}
	ns.SetGroupVersionKind(namespaceKind)
	ns.SetName(lookout)
	ns.SetLabels(map[string]string{"pod-security.kubernetes.io/enforce": "privileged"})
	if _, err := c.Apply(ctx, ns); err != nil {
		return nil, err
	}
	defer func() {
		if gone := away(context.WithoutCancel(ctx), c); gone != nil && err == nil {
			err = gone
		}
	}()
	for _, n := range all {
		pod, err := looker(spec, n.GetName())
		if err != nil {
			return nil, err
		}
		if _, err := c.Apply(ctx, pod); err != nil {
			return nil, err
		}
	}
	return watch(ctx, c, all)
}

// looker is the pod that looks at one node.
func looker(agent *corev1.PodSpec, node string) (*unstructured.Unstructured, error) {
	spec := corev1.PodSpec{NodeName: node, RestartPolicy: corev1.RestartPolicyNever, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}}
	container := agent.Containers[0]
	args := []string{"precheck"}
	for _, m := range container.VolumeMounts {
		if m.Name == "cni-conf" {
			args = append(args, "--cni-conf-dir="+m.MountPath)
		}
	}
	spec.Containers = []corev1.Container{{
		Name: "look", Image: container.Image, ImagePullPolicy: container.ImagePullPolicy, Args: args, SecurityContext: container.SecurityContext,
		// What it finds is told with its end.
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}}
	for _, v := range agent.Volumes {
		if v.HostPath == nil {
			continue
		}
		spec.Volumes = append(spec.Volumes, v)
		for _, m := range container.VolumeMounts {
			if m.Name == v.Name {
				spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, m)
			}
		}
	}
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: "look-" + node, Namespace: lookout}, Spec: spec}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
	if err != nil {
		return nil, err
	}
	delete(content, "status")
	return &unstructured.Unstructured{Object: content}, nil
}

// watch waits for the ends of the pods.
func watch(ctx context.Context, c *kube.Client, all []*unstructured.Unstructured) ([]Finding, error) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	end := time.After(nodesTimeout)
	ended := map[string][]Finding{}
	for {
		pods, err := c.List(ctx, podKind.GroupKind(), lookout, "")
		if err != nil {
			return nil, err
		}
		var waiting []string
		for _, p := range pods {
			found, done := verdict(p)
			if !done {
				waiting = append(waiting, p.GetName())
				continue
			}
			ended[p.GetName()] = found
		}
		if len(ended) == len(all) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-end:
			slices.Sort(waiting)
			return nil, fmt.Errorf("look at the nodes: these pods of the namespace %s did not end within %s: %s", lookout, nodesTimeout, strings.Join(waiting, ", "))
		case <-tick.C:
		}
	}
	var out []Finding
	for _, n := range all {
		out = append(out, ended["look-"+n.GetName()]...)
	}
	return out, nil
}

// verdict is what a pod has found, once it has ended or cannot begin.
func verdict(p *unstructured.Unstructured) ([]Finding, bool) {
	var pod corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(p.Object, &pod); err != nil {
		return []Finding{{Missing, err.Error(), ""}}, true
	}
	for _, s := range pod.Status.ContainerStatuses {
		switch {
		case s.State.Terminated != nil && s.State.Terminated.ExitCode == 0:
			return nil, true
		case s.State.Terminated != nil:
			var out []Finding
			for line := range strings.Lines(s.State.Terminated.Message) {
				if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "node-agent:") {
					out = append(out, Finding{Missing, "Node " + pod.Spec.NodeName + ": " + line, "Without it the agent cannot capture pods there."})
				}
			}
			if len(out) == 0 {
				out = []Finding{{Missing, fmt.Sprintf("Node %s: the agent's check ended with code %d.", pod.Spec.NodeName, s.State.Terminated.ExitCode), "Look at the node's container runtime."}}
			}
			return out, true
		case s.State.Waiting != nil && (strings.HasPrefix(s.State.Waiting.Reason, "ErrImage") || strings.HasPrefix(s.State.Waiting.Reason, "ImagePull")):
			return []Finding{{Missing, fmt.Sprintf("Node %s cannot get the image %s: %s.", pod.Spec.NodeName, s.Image, s.State.Waiting.Message), "Set hub and tag to where it is, or make it reachable."}}, true
		}
	}
	return nil, pod.Status.Phase == corev1.PodSucceeded
}

// away takes the namespace with all pods away.
func away(ctx context.Context, c *kube.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	namespaces, err := c.Resource(namespaceKind, "")
	if err != nil {
		return err
	}
	return namespaces.Delete(ctx, lookout, metav1.DeleteOptions{})
}
