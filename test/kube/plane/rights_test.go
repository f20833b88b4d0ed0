package plane

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
)

// The control plane of all these tests has the chart's rights, so they suffice. When all
// tests have run, each right was needed by one of them.
func TestMain(m *testing.M) {
	code := m.Run()
	whole := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" && !testing.Short()
	if code == 0 && whole && len(used.all) > 0 {
		rules, err := granted()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for _, right := range used.unused(rules) {
			fmt.Fprintf(os.Stderr, "the chart gives the control plane a right that no test needs: %s\n", right)
			code = 1
		}
	}
	os.Exit(code)
}

// granted are the rules of the chart's control plane.
func granted() ([]rbacv1.PolicyRule, error) {
	objects, err := chart.Release{Profile: chart.DefaultProfile, Version: "test"}.Render()
	if err != nil {
		return nil, err
	}
	var out []rbacv1.PolicyRule
	for _, o := range objects {
		if k := o.GetKind(); k != "Role" && k != "ClusterRole" || !strings.HasPrefix(o.GetName(), "istiod") {
			continue
		}
		var role rbacv1.ClusterRole // a Role has the same rules
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &role); err != nil {
			return nil, err
		}
		out = append(out, role.Rules...)
	}
	return out, nil
}

// No right of the control plane makes it master of the cluster.
func TestRightsAreBounded(t *testing.T) {
	rules, err := granted()
	if err != nil || len(rules) == 0 {
		t.Fatal(err, rules)
	}
	for _, r := range rules {
		all := slices.Concat(r.APIGroups, r.Resources, r.Verbs)
		if slices.Contains(all, "*") {
			t.Errorf("a right without bounds: %v", r)
		}
		for _, never := range []string{"impersonate", "bind", "escalate", "deletecollection"} {
			if slices.Contains(r.Verbs, never) {
				t.Errorf("the control plane may %s: %v", never, r)
			}
		}
		reads := slices.ContainsFunc(r.Verbs, func(v string) bool { return v != "create" })
		if slices.Contains(r.Resources, "secrets") && reads && len(r.ResourceNames) == 0 {
			t.Errorf("secrets of everyone: %v", r)
		}
	}
}
