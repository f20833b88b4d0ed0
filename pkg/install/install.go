// Package install puts the mesh into a cluster, keeps it as it was asked for, and takes
// it out again.
//
// A request (pkg/install/operator) and the chart (pkg/install/chart) make a [Manifest];
// pkg/install/plan compares it with the cluster, and this package does what the plan says,
// in an order in which each part finds what it needs.
//
// For cmd/fairlead.
package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/install/operator"
	"github.com/fairlead-mesh/fairlead/pkg/install/plan"
	"github.com/fairlead-mesh/fairlead/pkg/install/rollout"
)

// Options of an installation.
type Options struct {
	Cluster *kube.Client      // must be non-nil
	Request *operator.Request // must be non-nil
	Version string            // of the product, and of its images unless the request says so
	// Adopt takes over objects that something else installed.
	Adopt bool
	// DryRun says what would be done.
	DryRun bool
	// Timeout bounds the wait for each part; 0 does not wait.
	Timeout time.Duration
	// Confirm asks whether to go on; nil goes on.
	Confirm func(question string) (bool, error)
	Out     io.Writer // must be non-nil
}

// ErrDeclined is the answer no.
var ErrDeclined = errors.New("nothing was changed: not confirmed. Answer y, or give -y")

// Install makes the cluster as the request says. A second time it changes nothing.
func Install(ctx context.Context, o Options) error {
	m, err := Build(o.Request, o.Version)
	if err != nil {
		return err
	}
	p, err := compare(ctx, o, m)
	if err != nil {
		return err
	}
	for _, n := range o.Request.Notes {
		fmt.Fprintf(o.Out, "note: %s\n", n)
	}
	fmt.Fprintf(o.Out, "Fairlead %s, profile %s, into the namespace %s:\n", o.Version, m.Profile, m.Namespace.GetName())
	show(o.Out, p)
	if o.DryRun {
		return nil
	}
	if p.Changes() && o.Confirm != nil {
		yes, err := o.Confirm(fmt.Sprintf("This will install profile %s of Fairlead %s into the cluster. Proceed? (y/N) ", m.Profile, o.Version))
		if err != nil {
			return err
		}
		if !yes {
			return ErrDeclined
		}
	}
	return apply(ctx, o, p)
}

// compare is the plan from what the cluster has to the manifest.
func compare(ctx context.Context, o Options, m *Manifest) (plan.Plan, error) {
	p, err := plan.Make(ctx, o.Cluster, m.All(), o.Adopt)
	if err != nil {
		return nil, err
	}
	installed, err := Installed(ctx, o.Cluster)
	if err != nil {
		return nil, err
	}
	var ours []*unstructured.Unstructured
	for _, i := range installed {
		if k := i.GetKind(); k != "CustomResourceDefinition" && k != "Namespace" { // those go with --purge alone
			ours = append(ours, i)
		}
	}
	return p.Prune(ours), nil
}

// apply does the plan's steps, phase by phase, and waits between them.
func apply(ctx context.Context, o Options, p plan.Plan) error {
	steps := map[phase]plan.Plan{}
	for _, s := range p {
		if s.Action == plan.Delete {
			steps[last] = append(steps[last], s)
			continue
		}
		steps[phaseOf(s.Object)] = append(steps[phaseOf(s.Object)], s)
	}
	for at := phase(0); at <= last; at++ {
		if at == last {
			if err := retire(ctx, o, steps[at]); err != nil {
				return err
			}
		}
		for _, s := range steps[at] {
			if err := do(ctx, o.Cluster, s); err != nil {
				return err
			}
		}
		if err := await(ctx, o, at, steps[at]); err != nil {
			return err
		}
	}
	for _, s := range p {
		if s.Release != (plan.Release{}) && s.Action == plan.Change {
			fmt.Fprintf(o.Out, "note: Helm still has a record of the release %s, and a helm command with it would change this mesh. To have it forget: %s\n", s.Release.Name, s.Release.Forget())
			break
		}
	}
	if p.Changes() {
		fmt.Fprintln(o.Out, "✔ Installation complete")
	} else {
		fmt.Fprintln(o.Out, "✔ Nothing to do: the cluster is as it was asked for")
	}
	return nil
}

// settling is how long a kind that was just defined may be unknown.
const settling = 15 * time.Second

// do makes a step true; a kind that was just defined may take a moment.
func do(ctx context.Context, c *kube.Client, s plan.Step) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	until := time.Now().Add(settling)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.Do(ctx, c)
		if err == nil || time.Now().After(until) || !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
			return err
		}
		c.Mapper.Reset()
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// await waits for what a phase has set in motion.
func await(ctx context.Context, o Options, at phase, steps plan.Plan) error {
	var objects []*unstructured.Unstructured
	for _, s := range steps {
		switch s.Object.GetKind() {
		case "Deployment", "DaemonSet", "CustomResourceDefinition":
			if s.Action != plan.Delete {
				objects = append(objects, s.Object)
			}
		}
	}
	if at == definitions {
		defer o.Cluster.Mapper.Reset()
		return rollout.Wait(ctx, o.Cluster, objects, max(o.Timeout, settling), func(*unstructured.Unstructured, rollout.State) {})
	}
	if o.Timeout == 0 || len(objects) == 0 {
		return nil
	}
	return rollout.Wait(ctx, o.Cluster, objects, o.Timeout, func(w *unstructured.Unstructured, s rollout.State) {
		mark := "…"
		if s.Ready {
			mark = "✔"
		}
		fmt.Fprintf(o.Out, "%s %s: %s\n", mark, plan.Name(w), s.Says)
	})
}
