package standin

import (
	"os"
	"slices"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/push"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/control/waypoint"
)

// An upstream Envoy takes everything that follows from the objects: routes,
// subsets, retries, faults, policies and access logs.
func TestEnvoyTakesWhatIsTranslated(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: Envoy gets a network namespace of its own, for its fixed ports")
	}
	text, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	in := source.Parse([]source.File{{Name: "shop.yaml", Data: text}}, nil)
	for _, p := range in.Problems {
		t.Error(p)
	}
	out, err := translate.Translate(in, translate.Options{ClusterID: "Kubernetes"})
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t)
	if _, err := c.waypoints.Publish(out.Model, waypoint.New(out, nil).Resources); err != nil {
		t.Fatal(err)
	}
	e := c.envoyIn("unshare", "--net", "--", "sh", "-c", `ip link set lo up && exec "$0" "$@"`)
	kinds := []string{"clusters", "endpoints", "listeners", "routes"}
	e.until("everything is answered", func() bool {
		syncs := c.server.Clients()
		return len(syncs) == 1 && !slices.ContainsFunc(kinds, func(k string) bool {
			s := syncs[0].Types[k]
			return s.Acked == "" || s.Behind > 0 || len(s.Waiting) > 0
		})
	})
	for kind, s := range c.server.Clients()[0].Types {
		if len(s.Refused) > 0 {
			t.Errorf("%s: Envoy refuses %q: %s", kind, s.Refused, s.Nack)
		}
	}
}

var _ push.Generate = (*waypoint.Translation)(nil).Resources
