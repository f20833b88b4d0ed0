package install

import (
	"context"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
	"github.com/fairlead-mesh/fairlead/pkg/install/operator"
	"github.com/fairlead-mesh/fairlead/pkg/install/plan"
	"github.com/fairlead-mesh/fairlead/pkg/install/rollout"
)

// ErrNotInstalled is a cluster without an installation by fairlead.
var ErrNotInstalled = errors.New("fairlead has installed no mesh in this cluster: there is no ConfigMap " + chart.Namespace + "/" + recordName)

// Verify checks that each installed object is there, is as it was installed, and is
// healthy. A nil request is the recorded one.
func Verify(ctx context.Context, c *kube.Client, r *operator.Request, version string, out io.Writer) error {
	if r == nil {
		recorded, was, err := Recorded(ctx, c)
		if err != nil {
			return err
		}
		if recorded == nil {
			return ErrNotInstalled
		}
		r, version = recorded, was
	}
	m, err := Build(r, version)
	if err != nil {
		return err
	}
	wrong, all := 0, m.All()
	for _, o := range all {
		s, err := plan.Compare(ctx, c, o, nil)
		says, ok := verdict(ctx, c, s)
		if err != nil {
			says, ok = "is not as it was installed: "+err.Error(), false
		}
		if ok {
			if s.Object.GetKind() != "CustomResourceDefinition" {
				fmt.Fprintf(out, "✔ %s %s\n", s, says)
			}
			continue
		}
		wrong++
		fmt.Fprintf(out, "✘ %s %s\n", s, says)
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d objects are not as they were installed; `fairlead upgrade` restores them", wrong, len(all))
	}
	fmt.Fprintf(out, "✔ Fairlead %s, profile %s, is installed: %d objects are there, unchanged and healthy\n", version, m.Profile, len(all))
	return nil
}

func verdict(ctx context.Context, c *kube.Client, s plan.Step) (string, bool) {
	switch s.Action {
	case plan.Create:
		return "is missing", false
	case plan.Change:
		return "was changed:" + fields(s), false
	case plan.Leave:
		return "is there; " + s.Why, true
	case plan.Keep, plan.Delete:
	}
	live, err := c.Get(ctx, s.Object.GroupVersionKind().GroupKind(), s.Object.GetNamespace(), s.Object.GetName())
	if err != nil || live == nil {
		return "is missing", false
	}
	state := rollout.Of(live)
	if !state.Ready {
		return "is not healthy: " + state.Says + reasons(ctx, c, live), false
	}
	if state.Says == "there" {
		return "is there", true
	}
	return state.Says, true
}

func reasons(ctx context.Context, c *kube.Client, o *unstructured.Unstructured) string {
	out := ""
	for _, r := range rollout.Reasons(ctx, c, o) {
		out += "\n    " + r
	}
	return out
}
