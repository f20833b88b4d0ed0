package waypoint

import (
	"context"
	"fmt"
	"io"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
)

// ApplyOptions are those of [Apply].
type ApplyOptions struct {
	Spec
	// Enroll labels the namespace, so that its services use the waypoint; Overwrite
	// does so where they use another.
	Enroll, Overwrite bool
	// Wait waits until the waypoint is programmed, for Timeout at most.
	Wait    bool
	Timeout time.Duration
}

// Apply makes a waypoint, or makes it another.
func Apply(ctx context.Context, c *kube.Client, out io.Writer, o ApplyOptions) error {
	if o.Enroll {
		namespace, err := c.Get(ctx, kube.Namespace, "", o.Namespace)
		if err != nil {
			return err
		}
		if namespace == nil {
			return fmt.Errorf("namespace: %s not found", o.Namespace)
		}
		labels := namespace.GetLabels()
		if labels[labelUse] != "" && !o.Overwrite {
			fmt.Fprintf(out, "⚠️ Warning: namespace (%s) already has an enrolled Waypoint. Consider adding the `--overwrite` flag to your apply command.\n", o.Namespace)
			return nil
		}
		if labels[labelDataplane] != "ambient" {
			fmt.Fprintf(out, "⚠️ Warning: namespace is not enrolled in ambient. Consider running\t`kubectl label namespace %s %s=ambient`\n", o.Namespace, labelDataplane)
		}
	}
	gateway, err := o.Gateway()
	if err != nil {
		return fmt.Errorf("failed to create gateway: %w", err)
	}
	if _, err := c.Apply(ctx, gateway); meta.IsNoMatchError(err) {
		return fmt.Errorf("missing Kubernetes Gateway CRDs need to be installed before applying a waypoint: %w", err)
	} else if err != nil {
		return err
	}
	fmt.Fprintf(out, "✅ waypoint %v/%v applied\n", o.Namespace, gateway.GetName())
	if o.Wait {
		if err := await(ctx, c, o.Namespace, gateway.GetName(), o.Timeout); err != nil {
			return err
		}
		fmt.Fprintf(out, "✅ waypoint %v/%v is ready!\n", o.Namespace, gateway.GetName())
	}
	if !o.Enroll {
		return nil
	}
	return label(ctx, c, out, o.Namespace, gateway.GetName())
}

// poll is how often a waypoint is looked at that is waited for.
const poll = 500 * time.Millisecond

// await returns when a waypoint is programmed.
func await(ctx context.Context, c *kube.Client, namespace, name string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	last := "it has no status yet"
	for {
		gateway, err := c.Get(ctx, kube.Gateway, namespace, name)
		switch {
		case err != nil:
			last = err.Error()
		case gateway == nil:
			last = "it is gone"
		default:
			state := kube.Condition(gateway, programmed)
			if state.Status == metav1.ConditionTrue {
				return nil
			}
			if state.Type != "" {
				last = state.Reason + ": " + state.Message
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("timed out while waiting for waypoint\t%s/%s: %s", namespace, name, last)
		}
	}
}

func label(ctx context.Context, c *kube.Client, out io.Writer, namespace, name string) error {
	resource, err := c.Resource(kube.Namespace.WithVersion("v1"), "")
	if err != nil {
		return fmt.Errorf("failed to label namespace with waypoint: %w", err)
	}
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, labelUse, name)
	if _, err := resource.Patch(ctx, namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "fairlead"}); err != nil {
		return fmt.Errorf("failed to label namespace with waypoint: %w", err)
	}
	fmt.Fprintf(out, "✅ namespace %v labeled with \"%v: %v\"\n", namespace, labelUse, name)
	return nil
}
