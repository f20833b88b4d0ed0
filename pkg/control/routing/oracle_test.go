package routing

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	// The types that recorded configurations hold.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"

	destinationrule "github.com/fairlead-mesh/fairlead/pkg/control/destination"
	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

const oracle = "../../../../shared/oracle"

// differences are the cases and route configurations where we do what the API
// promises and istiod does not, and why.
var differences = map[string]string{
	"vs-match inbound-vip|9080|http|reviews.default.svc.cluster.local":                           "sourceLabels and sourceNamespace are matched by the caller's principal; istiod drops them",
	"httproute-matches-filters inbound-vip|9080|http|details.default.svc.cluster.local":          "the regular expression is tried before prefixes, so that the '/' does not hide it; the longest prefix is first",
	"httproute-parents inbound-vip|9080|http|reviews.default.svc.cluster.local":                  "a consumer route is in effect for its namespace",
	"httproute-refgrant inbound-vip|9080|http|ratings.default.svc.cluster.local":                 "a backend in another namespace needs a ReferenceGrant",
	"httproute-refgrant inbound-vip|80|http|multi.default.svc.cluster.local":                     "a broken regular expression is not sent",
	"grpcroute inbound-vip|9090|http|multi.default.svc.cluster.local":                            "the longer service name is tried first",
	"dr-connpool-outlier-consistenthash inbound-vip|9080|http|details.default.svc.cluster.local": "portLevelSettings hold for the hash as well",
}

// recorded are istiod's inline routes of a case.
func recorded(t *testing.T, name string) map[string]*routev3.RouteConfiguration {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(oracle, name, "waypoint.json"))
	if err != nil {
		return nil
	}
	var all any
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]*routev3.RouteConfiguration{}
	var walk func(v any)
	walk = func(v any) {
		switch x := v.(type) {
		case map[string]any:
			if raw, ok := x["routeConfig"]; ok {
				part, _ := json.Marshal(raw)
				c := &routev3.RouteConfiguration{}
				if err := protojson.Unmarshal(part, c); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				out[c.Name] = c
			}
			for _, y := range x {
				walk(y)
			}
		case []any:
			for _, y := range x {
				walk(y)
			}
		}
	}
	walk(all)
	return out
}

// rules is what the DestinationRules of a case say.
type rules struct{ of *destinationrule.Rules }

func (r rules) HasSubset(s *model.Service, subset string) bool {
	return r.of.For(s).Subset(subset) != nil
}
func (r rules) HashPolicies(s *model.Service, port uint32, subset string) []*routev3.RouteAction_HashPolicy {
	return destinationrule.HashPolicies(r.of.For(s).Policy(port, subset))
}

// normal takes out what differs by design in every case: the names of objects that
// istiod makes up when it merges HTTPRoutes, its second kind of name for clusters of
// other waypoints' services, and the limit of direct responses, which istiod raises
// for default routes alone.
func normal(c *routev3.RouteConfiguration) *routev3.RouteConfiguration {
	c = proto.Clone(c).(*routev3.RouteConfiguration)
	c.MaxDirectResponseBodySizeBytes = nil
	for _, r := range c.VirtualHosts[0].Routes {
		if path := r.GetMetadata().GetFilterMetadata()["istio"].GetFields()["config"].GetStringValue(); strings.Contains(path, "~") || strings.Contains(path, gatewayGroup) {
			r.Metadata = nil
			r.Decorator = nil
		}
		if redirect := r.GetRedirect(); redirect.GetPathRedirect() == "" && redirect.GetPathRewriteSpecifier() != nil {
			if _, ok := redirect.PathRewriteSpecifier.(*routev3.RedirectAction_PathRedirect); ok {
				redirect.PathRewriteSpecifier = nil
			}
		}
		action := r.GetRoute()
		if name := action.GetCluster(); name != "" {
			action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: inbound(name)}
		}
		for _, w := range action.GetWeightedClusters().GetClusters() {
			w.Name = inbound(w.Name)
		}
	}
	return c
}

// inbound is our name of a cluster.
func inbound(name string) string {
	if part := strings.Split(name, "|"); part[0] == "outbound" {
		number, _ := strconv.ParseUint(part[1], 10, 32)
		return envoy.ClusterName(envoy.HTTP, part[3], uint32(number), part[2])
	}
	return name
}

func TestOracleRoutes(t *testing.T) {
	inputs, err := filepath.Glob(oracle + "/*/in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Skip("the recorded answers are not here")
	}
	baseText, err := os.ReadFile(oracle + "/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	standard, compared, seen := recorded(t, "base"), 0, map[string]bool{}
	for _, in := range inputs {
		name := filepath.Base(filepath.Dir(in))
		theirs := recorded(t, name)
		if theirs == nil || name == "envoyfilter-ratelimit" { // it patches routes
			continue
		}
		text, err := os.ReadFile(in)
		if err != nil {
			t.Fatal(err)
		}
		// An object of the case takes the place of the base model's.
		objects := source.Parse([]source.File{{Name: "base.yaml", Data: baseText}}, []source.File{{Name: "in.yaml", Data: text}})
		out, err := translate.Translate(objects, translate.Options{ClusterID: "Kubernetes"})
		if err != nil {
			t.Fatal(err)
		}
		b := New(out.Model, nil)
		for _, w := range out.Model.Waypoints {
			if w.Key != (model.Key{Namespace: "default", Name: "waypoint"}) {
				continue
			}
			for config, ours := range ports(t, b, rules{destinationrule.NewRules(out.Model, w, nil)}) {
				want := theirs[config]
				if want == nil {
					want = standard[config]
				}
				if want == nil {
					continue
				}
				compared++
				key := name + " " + config
				diff := cmp.Diff(normal(want), normal(ours.config), protocmp.Transform())
				switch {
				case diff != "" && differences[key] == "":
					t.Errorf("%s (-istiod +ours):\n%s", key, diff)
				case diff != "":
					seen[key] = true
				}
			}
		}
	}
	for key := range differences {
		if !seen[key] {
			t.Errorf("%s no longer differs: remove it", key)
		}
	}
	t.Logf("%d route configurations compared, %d differ for a reason", compared, len(seen))
}
