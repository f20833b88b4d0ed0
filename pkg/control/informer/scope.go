package informer

import (
	"maps"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// scope is the namespaces whose objects count: those that one of the mesh's
// discoverySelectors selects, and the root namespace, so that what denies for the whole
// mesh is never left out.
type scope struct {
	all   bool // there are no selectors
	names map[string]bool
}

// newScope is that of a mesh's configuration. A selector that cannot be read selects
// everything: what it left out might have protected something. That is the error.
func newScope(mesh *meshv1alpha1.MeshConfig, namespaces []*corev1.Namespace) (scope, error) {
	if len(mesh.GetDiscoverySelectors()) == 0 {
		return scope{all: true}, nil
	}
	var selectors []labels.Selector
	for _, s := range mesh.GetDiscoverySelectors() {
		want := &metav1.LabelSelector{MatchLabels: s.GetMatchLabels()}
		for _, e := range s.GetMatchExpressions() {
			want.MatchExpressions = append(want.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: e.GetKey(), Operator: metav1.LabelSelectorOperator(e.GetOperator()), Values: e.GetValues(),
			})
		}
		selector, err := metav1.LabelSelectorAsSelector(want)
		if err != nil {
			return scope{all: true}, err
		}
		selectors = append(selectors, selector)
	}
	s := scope{names: map[string]bool{mesh.GetRootNamespace(): true}}
	for _, n := range namespaces {
		for _, selector := range selectors {
			if selector.Matches(labels.Set(n.Labels)) {
				s.names[n.Name] = true
			}
		}
	}
	return s, nil
}

func (s scope) has(namespace string) bool { return s.all || s.names[namespace] }

func (s scope) equal(o scope) bool { return s.all == o.all && maps.Equal(s.names, o.names) }
