// Package rollout tells how far the pods of an installation are, and why they are not
// further.
//
// For pkg/install.
package rollout

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
)

// Cluster is what is asked of an API server.
type Cluster interface {
	Get(ctx context.Context, gk schema.GroupKind, namespace, name string) (*unstructured.Unstructured, error)
	List(ctx context.Context, gk schema.GroupKind, namespace, labels string) ([]*unstructured.Unstructured, error)
}

var (
	pod        = schema.GroupKind{Kind: "Pod"}
	event      = schema.GroupKind{Kind: "Event"}
	definition = schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
)

// State is how far one object is.
type State struct {
	Ready bool
	// Says is the state in few words, as "1 of 2 ready".
	Says string
}

// Of is the state of an object as it is stored. What has no rollout is ready.
func Of(o *unstructured.Unstructured) State {
	number := func(path ...string) int64 { n, _, _ := unstructured.NestedInt64(o.Object, path...); return n }
	seen := number("status", "observedGeneration") >= o.GetGeneration()
	switch o.GetKind() {
	case "Deployment":
		want, set, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
		if !set {
			want = 1
		}
		updated, available, all := number("status", "updatedReplicas"), number("status", "availableReplicas"), number("status", "replicas")
		return State{seen && updated >= want && available >= want && all == updated, fmt.Sprintf("%d of %d ready", min(available, updated), want)}
	case "DaemonSet":
		want, updated, available := number("status", "desiredNumberScheduled"), number("status", "updatedNumberScheduled"), number("status", "numberAvailable")
		says := fmt.Sprintf("%d of %d nodes ready", min(available, updated), want)
		if seen && want == 0 {
			return State{false, "no node is chosen by its nodeSelector and tolerations"}
		}
		return State{seen && updated >= want && available >= want, says}
	case "CustomResourceDefinition":
		if kube.Condition(o, "Established").Status == metav1.ConditionTrue {
			return State{true, "established"}
		}
		return State{false, "not established"}
	}
	return State{true, "there"}
}

// every is how often the API server is asked.
const every = 500 * time.Millisecond

// Wait waits until all objects are ready, and tells changes of their states. The error
// says of each that is not what its pods wait for.
func Wait(ctx context.Context, c Cluster, objects []*unstructured.Unstructured, timeout time.Duration, tell func(o *unstructured.Unstructured, s State)) error {
	last := make([]State, len(objects))
	tick := time.NewTicker(every)
	defer tick.Stop()
	// A question is not cut off by the end of the wait: that would be told as its failure.
	end := time.After(timeout)
	for {
		pending := []*unstructured.Unstructured{}
		for i, o := range objects {
			s, err := now(ctx, c, o)
			if err != nil { // an API server may be away for a moment
				s = State{false, err.Error()}
			}
			if s != last[i] {
				last[i] = s
				tell(o, s)
			}
			if !s.Ready {
				pending = append(pending, o)
			}
		}
		if len(pending) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return late(ctx, c, pending, timeout)
		case <-tick.C:
		}
	}
}

// oneQuestion bounds how long an API server may take to answer.
const oneQuestion = 30 * time.Second

func now(ctx context.Context, c Cluster, o *unstructured.Unstructured) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, oneQuestion)
	defer cancel()
	live, err := c.Get(ctx, o.GroupVersionKind().GroupKind(), o.GetNamespace(), o.GetName())
	if err != nil {
		return State{}, err
	}
	if live == nil {
		return State{false, "not there"}, nil
	}
	return Of(live), nil
}

// lateTimeout bounds the search for reasons.
const lateTimeout = 10 * time.Second

func late(ctx context.Context, c Cluster, pending []*unstructured.Unstructured, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, lateTimeout)
	defer cancel()
	var lines []string
	for _, o := range pending {
		line := fmt.Sprintf("%s %s", o.GetKind(), o.GetName())
		if s, err := now(ctx, c, o); err == nil {
			line += ": " + s.Says
		}
		for _, r := range Reasons(ctx, c, o) {
			line += "\n    " + r
		}
		lines = append(lines, line)
	}
	return fmt.Errorf("not ready after %s:\n  %s", timeout, strings.Join(lines, "\n  "))
}

// Reasons are what keeps the pods of a Deployment or DaemonSet from being ready, the
// first few.
func Reasons(ctx context.Context, c Cluster, o *unstructured.Unstructured) []string {
	labels, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
	if len(labels) == 0 {
		return nil
	}
	var selector []string
	for k, v := range labels {
		selector = append(selector, k+"="+v)
	}
	slices.Sort(selector)
	pods, err := c.List(ctx, pod, o.GetNamespace(), strings.Join(selector, ","))
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	names := []string{o.GetName()}
	for _, p := range pods {
		names = append(names, p.GetName())
		for _, r := range podReasons(p) {
			out = append(out, "pod "+p.GetName()+where(p)+": "+r)
		}
	}
	out = append(out, warnings(ctx, c, o.GetNamespace(), names)...)
	const most = 8
	if len(out) > most {
		out = append(out[:most], fmt.Sprintf("and %d more", len(out)-most))
	}
	return out
}

func where(p *unstructured.Unstructured) string {
	if node, _, _ := unstructured.NestedString(p.Object, "spec", "nodeName"); node != "" {
		return " on " + node
	}
	return ""
}

// podReasons are why a pod is not ready.
func podReasons(p *unstructured.Unstructured) []string {
	var out []string
	text := func(m map[string]any, keys ...string) string {
		s, _, _ := unstructured.NestedString(m, keys...)
		return s
	}
	if c := kube.Condition(p, "PodScheduled"); c.Status == metav1.ConditionFalse {
		out = append(out, c.Message)
	}
	containers, _, _ := unstructured.NestedSlice(p.Object, "status", "containerStatuses")
	for _, c := range containers {
		m, ok := c.(map[string]any)
		if !ok || m["ready"] == true {
			continue
		}
		switch {
		case text(m, "state", "waiting", "reason") != "":
			said := text(m, "state", "waiting", "reason")
			if message := text(m, "state", "waiting", "message"); message != "" {
				said += ": " + message
			}
			if last := text(m, "lastState", "terminated", "message"); last != "" {
				said += ": " + last
			}
			out = append(out, said)
		case text(m, "state", "terminated", "reason") != "":
			out = append(out, "ended: "+text(m, "state", "terminated", "reason"))
		default:
			out = append(out, "runs, and is not ready")
		}
	}
	return out
}

// warnings are the events of objects by name, the newest of each kind.
func warnings(ctx context.Context, c Cluster, namespace string, names []string) []string {
	events, err := c.List(ctx, event, namespace, "")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range events {
		kind, _, _ := unstructured.NestedString(e.Object, "type")
		about, _, _ := unstructured.NestedString(e.Object, "involvedObject", "name")
		ours := slices.ContainsFunc(names, func(n string) bool { return about == n || strings.HasPrefix(about, n+"-") })
		if kind != "Warning" || !ours {
			continue
		}
		reason, _, _ := unstructured.NestedString(e.Object, "reason")
		message, _, _ := unstructured.NestedString(e.Object, "message")
		line := about + ": " + reason + ": " + strings.TrimSpace(message)
		if !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}
