package destination

import (
	"testing"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"
	typeapi "istio.io/api/type/v1beta1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

func rule(namespace, name, host string, edit ...func(*networkingapi.DestinationRule)) *networkingv1.DestinationRule {
	d := &networkingv1.DestinationRule{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	d.Spec.Host = host
	for _, e := range edit {
		e(&d.Spec)
	}
	return d
}

func exportTo(to ...string) func(*networkingapi.DestinationRule) {
	return func(d *networkingapi.DestinationRule) { d.ExportTo = to }
}

func selects(key, value string) func(*networkingapi.DestinationRule) {
	return func(d *networkingapi.DestinationRule) {
		d.WorkloadSelector = &typeapi.WorkloadSelector{MatchLabels: map[string]string{key: value}}
	}
}

// Which of several rules holds for service a of namespace shop, at a waypoint of
// namespace edge.
func TestWhichRuleHolds(t *testing.T) {
	const a = "a.shop.svc.cluster.local"
	for name, tc := range map[string]struct {
		rules []*networkingv1.DestinationRule
		want  string
	}{
		"none":                                  {nil, ""},
		"a short name is of the rule's own":     {[]*networkingv1.DestinationRule{rule("edge", "x", "a"), rule("shop", "y", "a")}, "shop/y"},
		"the waypoint's namespace first":        {[]*networkingv1.DestinationRule{rule("edge", "x", "*.shop.svc.cluster.local"), rule("shop", "y", "a")}, "edge/x"},
		"the root namespace last":               {[]*networkingv1.DestinationRule{rule("root", "x", a), rule("shop", "y", "*")}, "shop/y"},
		"the root namespace":                    {[]*networkingv1.DestinationRule{rule("root", "x", "*.local")}, "root/x"},
		"the longest wildcard":                  {[]*networkingv1.DestinationRule{rule("shop", "x", "*.local"), rule("shop", "y", "*.shop.svc.cluster.local")}, "shop/y"},
		"exact before wildcards":                {[]*networkingv1.DestinationRule{rule("shop", "x", "*.shop.svc.cluster.local"), rule("shop", "y", "a")}, "shop/y"},
		"not exported":                          {[]*networkingv1.DestinationRule{rule("shop", "x", "a", exportTo(".")), rule("root", "y", a)}, "root/y"},
		"exported":                              {[]*networkingv1.DestinationRule{rule("shop", "x", "a", exportTo("edge"))}, "shop/x"},
		"other namespaces do not count":         {[]*networkingv1.DestinationRule{rule("third", "x", a)}, ""},
		"a selector that selects goes before":   {[]*networkingv1.DestinationRule{rule("shop", "x", "a"), rule("shop", "y", "a", selects("app", "wp"))}, "shop/y"},
		"a selector that does not hides nought": {[]*networkingv1.DestinationRule{rule("shop", "x", "*"), rule("shop", "y", "a", selects("app", "no"))}, "shop/x"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &model.Model{ClusterDomain: "cluster.local", Objects: &source.Objects{Mesh: &meshv1alpha1.MeshConfig{RootNamespace: "root"}, DestinationRules: tc.rules}}
			r := NewRules(m, &model.Waypoint{Key: model.Key{Namespace: "edge", Name: "wp"}}, map[string]string{"app": "wp"}).
				For(&model.Service{Namespace: "shop", Name: "a", Hostname: a})
			got := ""
			if r != nil {
				got = r.Objects[0].Namespace + "/" + r.Objects[0].Name
			}
			if got != tc.want {
				t.Errorf("%q holds, want %q", got, tc.want)
			}
		})
	}
}

// What is said of rules that are hidden, joined, of no service or of none at a
// waypoint, and of subsets that are empty.
func TestStatuses(t *testing.T) {
	wp := &model.Waypoint{Key: model.Key{Namespace: "shop", Name: "wp"}}
	a := &model.Service{Namespace: "shop", Name: "a", Hostname: "a.shop.svc.cluster.local", Waypoint: wp}
	b := &model.Service{Index: 1, Namespace: "shop", Name: "b", Hostname: "b.shop.svc.cluster.local"}
	wp.Services = []*model.Service{a}
	subset := func(name, v string) func(*networkingapi.DestinationRule) {
		return func(d *networkingapi.DestinationRule) {
			d.Subsets = append(d.Subsets, &networkingapi.Subset{Name: name, Labels: map[string]string{"v": v}})
		}
	}
	policy := func(d *networkingapi.DestinationRule) { d.TrafficPolicy = &networkingapi.TrafficPolicy{} }
	m := &model.Model{ClusterDomain: "cluster.local", Services: []*model.Service{a, b}, Endpoints: [][]*model.Endpoint{{{Labels: map[string]string{"v": "1"}}}}, Waypoints: []*model.Waypoint{wp}, Objects: &source.Objects{
		Mesh: &meshv1alpha1.MeshConfig{RootNamespace: "root"}, DestinationRules: []*networkingv1.DestinationRule{
			rule("shop", "first", "a", policy, subset("v1", "1")), rule("shop", "second", "a", policy, subset("v1", "1"), subset("v2", "2")),
			rule("shop", "wild", "*.shop.svc.cluster.local"), rule("shop", "unbound", "b"), rule("shop", "nothing", "c"), rule("third", "unseen", a.Hostname),
			rule("shop", "selects", "a", selects("app", "no")),
		}}}
	want := map[string]string{
		"first":  "True InEffect: in effect at the waypoints of its services",
		"second": `False PartlyInEffect: spec.subsets[0]: subset "v1" is defined by an older DestinationRule for the host; spec.subsets[1]: subset "v2" selects no endpoint of a.shop.svc.cluster.local; spec.trafficPolicy: an older DestinationRule for the host, such as shop/first, gives it`,
		"wild":   "False Hidden: DestinationRule shop/first goes before it for host *.shop.svc.cluster.local", "selects": "False Hidden: DestinationRule shop/first goes before it for host a.shop.svc.cluster.local",
		"unbound": "False NoWaypoint: no service of host b.shop.svc.cluster.local is bound to a waypoint that is ready, and only waypoints apply DestinationRules",
		"nothing": "False NoService: host c.shop.svc.cluster.local is no service of the mesh",
		"unseen":  "False Hidden: DestinationRule shop/first goes before it for host a.shop.svc.cluster.local",
	}
	for _, s := range Statuses(m) {
		c := s.Conditions[0]
		if got := c.Status + " " + c.Reason + ": " + c.Message; got != want[s.Object.Name] {
			t.Errorf("%s: %s\nwant %s", s.Object.Name, got, want[s.Object.Name])
		}
	}
}
