package destination

import (
	"cmp"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// Rule is the DestinationRules of one host and namespace, joined. Its methods
// may be called on nil: no rule.
type Rule struct {
	// Objects are the joined ones, the oldest first.
	Objects []*networkingv1.DestinationRule
	// Host is fully qualified; it may begin with "*".
	Host     string
	selector map[string]string
	policy   *networkingapi.TrafficPolicy
	subsets  []*networkingapi.Subset
}

// Rules finds the rule of a service at one waypoint.
type Rules struct {
	own, root string
	spaces    map[string]*space
}

// space is the rules of a namespace.
type space struct {
	exact     map[string][]*Rule // those with a selector first
	wildcards []*Rule            // the longest host first
}

// NewRules joins and sorts the model's DestinationRules for a waypoint. The
// labels are those of its pods, which workloadSelectors select.
func NewRules(m *model.Model, w *model.Waypoint, labels map[string]string) *Rules {
	r := &Rules{own: w.Key.Namespace, root: m.Objects.Mesh.GetRootNamespace(), spaces: map[string]*space{}}
	type key struct {
		namespace, host string
		selects         bool
	}
	var joined []*Rule
	known := map[key]*Rule{}
	for _, d := range oldest(m.Objects.DestinationRules) {
		selector := d.Spec.GetWorkloadSelector().GetMatchLabels()
		if !selected(selector, labels) || !exported(d, r.own, m.Objects.Mesh.GetDefaultDestinationRuleExportTo()) {
			continue
		}
		host := Hostname(d.Spec.Host, d.Namespace, m.ClusterDomain)
		k := key{d.Namespace, host, len(selector) > 0}
		if known[k] == nil {
			known[k] = &Rule{Host: host, selector: selector}
			joined = append(joined, known[k])
		}
		known[k].join(d)
	}
	for _, j := range joined {
		r.add(j)
	}
	return r
}

func (r *Rule) join(d *networkingv1.DestinationRule) {
	r.Objects = append(r.Objects, d)
	if r.policy == nil {
		r.policy = d.Spec.TrafficPolicy
	}
	for _, s := range d.Spec.Subsets {
		if r.Subset(s.Name) == nil {
			r.subsets = append(r.subsets, s)
		}
	}
}

func (r *Rules) add(j *Rule) {
	namespace := j.Objects[0].Namespace
	s := r.spaces[namespace]
	if s == nil {
		s = &space{exact: map[string][]*Rule{}}
		r.spaces[namespace] = s
	}
	first := func(a, b *Rule) int {
		return cmp.Or(cmp.Compare(len(b.Host), len(a.Host)), cmp.Compare(a.Host, b.Host), cmp.Compare(min(len(b.selector), 1), min(len(a.selector), 1)))
	}
	if strings.HasPrefix(j.Host, "*") {
		s.wildcards = append(s.wildcards, j)
		slices.SortFunc(s.wildcards, first)
		return
	}
	s.exact[j.Host] = append(s.exact[j.Host], j)
	slices.SortFunc(s.exact[j.Host], first)
}

// For is the rule of a service, nil for none.
func (r *Rules) For(s *model.Service) *Rule {
	for i, namespace := range []string{r.own, s.Namespace, r.root} {
		if i > 0 && namespace == r.own || r.spaces[namespace] == nil {
			continue
		}
		space := r.spaces[namespace]
		if exact := space.exact[s.Hostname]; len(exact) > 0 {
			return exact[0]
		}
		for _, w := range space.wildcards {
			if strings.HasSuffix(s.Hostname, w.Host[1:]) {
				return w
			}
		}
	}
	return nil
}

// Subsets are those of the rule, in its order.
func (r *Rule) Subsets() []*networkingapi.Subset {
	if r == nil {
		return nil
	}
	return r.subsets
}

// Subset is the subset of a name, or nil.
func (r *Rule) Subset(name string) *networkingapi.Subset {
	for _, s := range r.Subsets() {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Hostname is a host as rules name it, fully qualified.
func Hostname(host, namespace, domain string) string {
	if strings.HasPrefix(host, "*") || strings.Contains(host, ".") {
		return host
	}
	return host + "." + namespace + ".svc." + domain
}

func selected(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// exported tells whether a rule may be used by a waypoint of a namespace.
func exported(d *networkingv1.DestinationRule, own string, byDefault []string) bool {
	if d.Namespace == own {
		return true
	}
	to := d.Spec.ExportTo
	if len(to) == 0 {
		to = byDefault
	}
	return len(to) == 0 || slices.Contains(to, "*") || slices.Contains(to, own)
}

// oldest orders rules by age, then by name.
func oldest(in []*networkingv1.DestinationRule) []*networkingv1.DestinationRule {
	return slices.SortedStableFunc(slices.Values(in), func(a, b *networkingv1.DestinationRule) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}
