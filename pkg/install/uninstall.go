package install

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/control/rootcert"
	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
	"github.com/fairlead-mesh/fairlead/pkg/install/plan"
	"github.com/fairlead-mesh/fairlead/pkg/install/rollout"
	"github.com/fairlead-mesh/fairlead/pkg/install/unclean"
)

// made are the kinds of objects that the control plane makes for a waypoint, all with
// the label managed.
var made = []schema.GroupKind{
	{Group: "apps", Kind: "Deployment"}, {Kind: "Service"}, {Kind: "ServiceAccount"},
	{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}, {Group: "policy", Kind: "PodDisruptionBudget"},
}

const managed = "gateway.istio.io/managed=istio.io-mesh-controller"

// Purge also takes what a later installation would go on with, or what is others' as
// well: the CA's key, the definitions of kinds with all objects, the namespace.
type Purge bool

// Uninstall takes the mesh out of the cluster. Options' Request and Adopt say nothing to it.
func Uninstall(ctx context.Context, o Options, purge Purge) error {
	p, err := removal(ctx, o.Cluster, purge)
	if err != nil {
		return err
	}
	if len(p) == 0 {
		fmt.Fprintln(o.Out, "✔ Nothing to do: nothing of Fairlead is in this cluster")
		return nil
	}
	show(o.Out, p)
	if o.DryRun {
		return nil
	}
	if o.Confirm != nil {
		yes, err := o.Confirm("This will take the mesh out of the cluster: its pods talk in clear then. Proceed? (y/N) ")
		if err != nil {
			return err
		}
		if !yes {
			return ErrDeclined
		}
	}
	left, err := nodesWithoutAgent(ctx, o.Cluster)
	if err != nil {
		return err
	}
	if err := remove(ctx, o, p, left); err != nil {
		return err
	}
	if left != nil {
		return left
	}
	fmt.Fprintln(o.Out, "✔ Uninstall complete")
	return nil
}

// removal is what goes.
func removal(ctx context.Context, c *kube.Client, purge Purge) (plan.Plan, error) {
	installed, err := Installed(ctx, c)
	if err != nil {
		return nil, err
	}
	if !purge {
		installed = slices.DeleteFunc(installed, func(o *unstructured.Unstructured) bool { return phaseOf(o) <= definitions })
	}
	for _, o := range installed {
		if r := plan.ReleaseOf(o); r != (plan.Release{}) {
			return nil, &plan.HelmError{Release: r}
		}
	}
	waypoints, err := labelled(ctx, c, made, managed)
	if err != nil {
		return nil, err
	}
	published, err := published(ctx, c, purge)
	if err != nil {
		return nil, err
	}
	p := plan.Plan{}.Prune(slices.Concat(installed, waypoints, published))
	return p, nil
}

// published is what the control plane itself has written: roots into namespaces, and
// with purge the CA's key and the lease.
func published(ctx context.Context, c *kube.Client, purge Purge) ([]*unstructured.Unstructured, error) {
	out, err := labelled(ctx, c, []schema.GroupKind{configMap}, "istio.io/config=true")
	if err != nil {
		return nil, err
	}
	out = slices.DeleteFunc(out, func(o *unstructured.Unstructured) bool { return o.GetName() != rootcert.Name })
	if !purge {
		return out, nil
	}
	for _, k := range []struct {
		kind schema.GroupKind
		name string
	}{{schema.GroupKind{Kind: "Secret"}, "istio-ca-secret"}, {schema.GroupKind{Group: "coordination.k8s.io", Kind: "Lease"}, "fairlead-leader"}} {
		o, err := c.Get(ctx, k.kind, chart.Namespace, k.name)
		if err != nil {
			return nil, err
		}
		if o != nil {
			out = append(out, o)
		}
	}
	return out, nil
}

// agentPods and controlPods are the labels of what runs.
const (
	agentPods   = "app=ztunnel"
	controlPods = "app=istiod"
)

// touch changes an object so that whoever follows it looks at it again.
func touch(ctx context.Context, c *kube.Client, u *unstructured.Unstructured) error {
	resource, err := c.Resource(u.GroupVersionKind(), u.GetNamespace())
	if err != nil {
		return err
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"fairlead.dev/removal":%q}}}`, time.Now().UTC().Format(time.RFC3339))
	if _, err = resource.Patch(ctx, u.GetName(), types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: plan.FieldManager}); apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// remove takes things away in the order in which nothing is missed: the webhook before
// who answers it, agents while they may still ask and say what they do, waypoints
// after the control plane that would make them again, definitions at the end.
func remove(ctx context.Context, o Options, p plan.Plan, left *unclean.Error) error {
	stages := []struct {
		what string
		is   func(*unstructured.Unstructured) bool
		wait func(context.Context) error
	}{
		{"webhook", func(u *unstructured.Unstructured) bool { return phaseOf(u) == checks }, nil},
		{"node agents", func(u *unstructured.Unstructured) bool { return u.GetKind() == "DaemonSet" }, func(ctx context.Context) error {
			return rollout.Gone(ctx, o.Cluster, chart.Namespace, agentPods, nodes(left), o.wait())
		}},
		{"control plane", func(u *unstructured.Unstructured) bool {
			return u.GetNamespace() == chart.Namespace && u.GetName() == "istiod" && phaseOf(u) == control
		}, func(ctx context.Context) error {
			return rollout.Gone(ctx, o.Cluster, chart.Namespace, controlPods, nodes(left), o.wait())
		}},
		{"the rest", func(u *unstructured.Unstructured) bool { return phaseOf(u) > definitions }, nil},
		{"definitions of kinds", func(u *unstructured.Unstructured) bool { return phaseOf(u) == definitions }, func(ctx context.Context) error {
			return rollout.Removed(ctx, o.Cluster, plan.Label, o.wait(), func(ctx context.Context, u *unstructured.Unstructured) error { return touch(ctx, o.Cluster, u) })
		}},
		{"namespace", func(u *unstructured.Unstructured) bool { return phaseOf(u) == namespaces }, func(ctx context.Context) error {
			if left != nil {
				return nil // it goes with the pods there
			}
			return rollout.Ended(ctx, o.Cluster, object("v1", "Namespace", "", chart.Namespace), o.wait())
		}},
	}
	for _, stage := range stages {
		rest, n := plan.Plan{}, 0
		for _, s := range p {
			if !stage.is(s.Object) {
				rest = append(rest, s)
				continue
			}
			n++
			if err := s.Do(ctx, o.Cluster); err != nil {
				return err
			}
		}
		if p = rest; n == 0 {
			continue
		}
		if stage.wait != nil {
			if err := stage.wait(ctx); err != nil {
				return fmt.Errorf("%s: %w", stage.what, err)
			}
		}
		fmt.Fprintf(o.Out, "✔ %s removed\n", stage.what)
	}
	return nil
}

// retire takes agents away that an installation does not want any more, before it takes
// the rights by which they learn that they do not come again.
func retire(ctx context.Context, o Options, deletes plan.Plan) error {
	for _, s := range deletes {
		if s.Object.GetKind() != "DaemonSet" {
			continue
		}
		left, err := nodesWithoutAgent(ctx, o.Cluster)
		if err != nil {
			return err
		}
		if err := s.Do(ctx, o.Cluster); err != nil {
			return err
		}
		if err := rollout.Gone(ctx, o.Cluster, chart.Namespace, agentPods, nodes(left), o.wait()); err != nil {
			return fmt.Errorf("node agents: %w", err)
		}
		if left != nil {
			fmt.Fprintf(o.Out, "note: %s\n", left)
		}
	}
	return nil
}

// nodes are those that an uninstallation does not wait for.
func nodes(left *unclean.Error) []string {
	if left == nil {
		return nil
	}
	return left.Nodes
}

// wait is how long pods may take to end.
func (o Options) wait() time.Duration { return max(o.Timeout, time.Minute) }
