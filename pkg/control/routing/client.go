package routing

import (
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairlead-mesh/fairlead/pkg/control/caller"
)

// principal matches the caller's SPIFFE ID.
func principal(m *matcherv3.StringMatcher) *matcherv3.FilterStateMatcher {
	return &matcherv3.FilterStateMatcher{Key: PrincipalKey, Matcher: &matcherv3.FilterStateMatcher_StringMatch{StringMatch: m}}
}

func (b *Builder) known() caller.Callers {
	return caller.Callers{Objects: b.model.Objects, Domains: b.domains}
}

// fromNamespace matches callers of a namespace.
func (b *Builder) fromNamespace(namespace string) *matcherv3.FilterStateMatcher {
	return principal(b.known().Namespace(namespace))
}

// callers are the matchers of a condition's callers.
func (b *Builder) callers(c condition) ([]*matcherv3.FilterStateMatcher, error) {
	var out []*matcherv3.FilterStateMatcher
	for _, namespace := range c.sourceNamespaces {
		out = append(out, b.fromNamespace(namespace))
	}
	for _, want := range c.sourceLabels {
		m, err := b.known().Labels(want, c.sourceNamespaces)
		if err != nil {
			return nil, err
		}
		out = append(out, principal(m))
	}
	return out, nil
}
