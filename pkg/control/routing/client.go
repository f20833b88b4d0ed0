package routing

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// principal matches the caller's SPIFFE ID.
func principal(m *matcherv3.StringMatcher) *matcherv3.FilterStateMatcher {
	return &matcherv3.FilterStateMatcher{Key: PrincipalKey, Matcher: &matcherv3.FilterStateMatcher_StringMatch{StringMatch: m}}
}

// fromNamespace matches callers of a namespace, in every spelling of the trust
// domain.
func (b *Builder) fromNamespace(namespace string) *matcherv3.FilterStateMatcher {
	if len(b.domains) == 1 {
		return principal(prefixMatcher("spiffe://" + b.domains[0] + "/ns/" + namespace + "/sa/"))
	}
	return principal(regexMatcher("spiffe://" + b.domainPattern() + "/ns/" + regexp.QuoteMeta(namespace) + "/sa/.*"))
}

func (b *Builder) domainPattern() string { return alternatives(b.domains) }

func alternatives(all []string) string {
	quoted := make([]string, 0, len(all))
	for _, s := range all {
		quoted = append(quoted, regexp.QuoteMeta(s))
	}
	if len(quoted) == 1 {
		return quoted[0]
	}
	return "(" + strings.Join(quoted, "|") + ")"
}

// account is a service account.
type account struct{ namespace, name string }

func (a account) path() string { return a.namespace + "/sa/" + a.name }

// fromLabels matches callers whose pods have labels. A caller is known by its
// service account alone, so every pod of the account must have them.
func (b *Builder) fromLabels(want map[string]string, namespaces []string) (*matcherv3.FilterStateMatcher, error) {
	selector := labels.SelectorFromSet(want)
	selected, others := map[account]bool{}, map[account]string{}
	note := func(namespace, name, object string, set map[string]string) {
		if name == "" {
			name = "default"
		}
		a := account{namespace, name}
		if selector.Matches(labels.Set(set)) {
			selected[a] = true
		} else if others[a] == "" {
			others[a] = object
		}
	}
	for _, p := range b.model.Objects.Pods {
		if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			note(p.Namespace, p.Spec.ServiceAccountName, "pod "+p.Name, p.Labels)
		}
	}
	for _, e := range b.model.Objects.WorkloadEntries {
		note(e.Namespace, e.Spec.ServiceAccount, "workload entry "+e.Name, e.Spec.Labels)
	}
	var paths []string
	for a := range selected {
		if len(namespaces) > 0 && !slices.Contains(namespaces, a.namespace) {
			continue
		}
		if other := others[a]; other != "" {
			return nil, fmt.Errorf("sourceLabels %s select pods of the service account %s/%s, but %s runs as the same account without them, and callers are told apart by account: give them an account of their own, or use sourceNamespace",
				selector, a.namespace, a.name, other)
		}
		paths = append(paths, a.path())
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("sourceLabels %s select no pod", selector)
	}
	slices.Sort(paths)
	if len(b.domains) == 1 && len(paths) == 1 {
		return principal(exactMatcher("spiffe://" + b.domains[0] + "/ns/" + paths[0])), nil
	}
	return principal(regexMatcher("spiffe://" + b.domainPattern() + "/ns/" + alternatives(paths))), nil
}

// callers are the matchers of a condition's callers.
func (b *Builder) callers(c condition) ([]*matcherv3.FilterStateMatcher, error) {
	var out []*matcherv3.FilterStateMatcher
	for _, namespace := range c.sourceNamespaces {
		out = append(out, b.fromNamespace(namespace))
	}
	for _, want := range c.sourceLabels {
		m, err := b.fromLabels(want, c.sourceNamespaces)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}
