// Package caller matches callers by what is known of them at a waypoint: the SPIFFE ID
// of their service account. It is pure.
//
// For packages under pkg/control.
package caller

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// StateKey is the filter state object that holds the caller's SPIFFE ID.
const StateKey = "io.istio.peer_principal"

// Callers matches those of one state of the mesh.
type Callers struct {
	Objects *source.Objects
	// Domains are the names of the mesh's trust domain, at least one.
	Domains []string
}

// Namespace matches callers of a namespace, in every spelling of the trust domain.
func (c Callers) Namespace(name string) *matcherv3.StringMatcher {
	if len(c.Domains) == 1 {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "spiffe://" + c.Domains[0] + "/ns/" + name + "/sa/"}}
	}
	return pattern("spiffe://" + alternatives(c.Domains) + "/ns/" + regexp.QuoteMeta(name) + "/sa/.*")
}

func pattern(text string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: text}}}
}

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

// Labels matches callers whose pods have labels, of namespaces if there are any. A
// caller is known by its service account alone, so every pod of the account must have
// them: an error names one that has not.
func (c Callers) Labels(want map[string]string, namespaces []string) (*matcherv3.StringMatcher, error) {
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
	for _, p := range c.Objects.Pods {
		if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			note(p.Namespace, p.Spec.ServiceAccountName, "pod "+p.Name, p.Labels)
		}
	}
	for _, e := range c.Objects.WorkloadEntries {
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
	if len(c.Domains) == 1 && len(paths) == 1 {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "spiffe://" + c.Domains[0] + "/ns/" + paths[0]}}, nil
	}
	return pattern("spiffe://" + alternatives(c.Domains) + "/ns/" + alternatives(paths)), nil
}
