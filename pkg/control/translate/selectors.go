package translate

import (
	"iter"
	"maps"
	"slices"
)

// selectors finds the services that select labels, by one label that each asks
// for: pods of a namespace are not held against all of its services.
type selectors map[selectorKey][]*service

type selectorKey struct{ namespace, label, value string }

func newSelectors(services []*service) selectors {
	x := selectors{}
	for _, s := range services {
		x.add(s)
	}
	return x
}

func (x selectors) add(s *service) {
	if len(s.selector) == 0 {
		return
	}
	label := slices.Min(slices.Collect(maps.Keys(s.selector)))
	key := selectorKey{s.wire.Namespace, label, s.selector[label]}
	x[key] = append(x[key], s)
}

// of are the services of a namespace that select labels, in no order.
func (x selectors) of(namespace string, labels map[string]string) iter.Seq[*service] {
	return func(yield func(*service) bool) {
		for label, value := range labels {
			for _, s := range x[selectorKey{namespace, label, value}] {
				if selects(s.selector, labels) && !yield(s) {
					return
				}
			}
		}
	}
}
