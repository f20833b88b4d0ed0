package routing

import (
	"fmt"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
)

// condition is one match of a VirtualService, or two: the one of the rule that
// delegates and the one of the delegate's, which must both hold.
type condition struct {
	name       string
	stats      string
	port       uint32
	ignoreCase bool
	// uris has at most one element.
	uris                             []*networkingapi.StringMatch
	schemes, methods, authorities    []*networkingapi.StringMatch
	headers, withoutHeaders, queries []map[string]*networkingapi.StringMatch
	sourceNamespaces                 []string
	sourceLabels                     []map[string]string
	gateways                         []string
}

func conditionOf(m *networkingapi.HTTPMatchRequest) condition {
	c := condition{name: m.GetName(), stats: m.GetStatPrefix(), port: m.GetPort(), ignoreCase: m.GetIgnoreUriCase(), gateways: m.GetGateways()}
	one := func(s *networkingapi.StringMatch) []*networkingapi.StringMatch {
		if s == nil {
			return nil
		}
		return []*networkingapi.StringMatch{s}
	}
	set := func(s map[string]*networkingapi.StringMatch) []map[string]*networkingapi.StringMatch {
		if len(s) == 0 {
			return nil
		}
		return []map[string]*networkingapi.StringMatch{s}
	}
	c.uris, c.schemes, c.methods, c.authorities = one(m.GetUri()), one(m.GetScheme()), one(m.GetMethod()), one(m.GetAuthority())
	c.headers, c.withoutHeaders, c.queries = set(m.GetHeaders()), set(m.GetWithoutHeaders()), set(m.GetQueryParams())
	if ns := m.GetSourceNamespace(); ns != "" {
		c.sourceNamespaces = []string{ns}
	}
	if len(m.GetSourceLabels()) > 0 {
		c.sourceLabels = []map[string]string{m.GetSourceLabels()}
	}
	return c
}

// empty tells whether nothing of the request itself is asked.
func (c condition) empty() bool {
	return len(c.uris)+len(c.schemes)+len(c.methods)+len(c.authorities)+len(c.headers)+len(c.withoutHeaders)+len(c.queries) == 0
}

// mesh tells whether the condition is meant for callers in the mesh.
func (c condition) mesh() bool { return meshGateway(c.gateways) }

// and is both conditions. It fails where paths cannot be put together: a path can
// be matched in one way only.
func (c condition) and(o condition) (condition, error) {
	out := c
	switch {
	case c.port != 0 && o.port != 0 && c.port != o.port:
		return out, fmt.Errorf("port %d and port %d exclude each other", c.port, o.port)
	case o.port != 0:
		out.port = o.port
	}
	if len(c.uris)+len(o.uris) > 0 && len(c.uris) > 0 && len(o.uris) > 0 {
		if c.ignoreCase != o.ignoreCase {
			return out, fmt.Errorf("one ignores the case of the path and the other does not")
		}
		uri, err := narrower(c.uris[0], o.uris[0], c.ignoreCase)
		if err != nil {
			return out, err
		}
		out.uris = []*networkingapi.StringMatch{uri}
	} else if len(o.uris) > 0 {
		out.uris, out.ignoreCase = o.uris, o.ignoreCase
	}
	if out.name = c.name; o.name != "" {
		out.name = strings.TrimPrefix(c.name+"-"+o.name, "-")
	}
	if o.stats != "" {
		out.stats = o.stats
	}
	out.schemes, out.methods, out.authorities = join(c.schemes, o.schemes), join(c.methods, o.methods), join(c.authorities, o.authorities)
	out.headers, out.withoutHeaders, out.queries = join(c.headers, o.headers), join(c.withoutHeaders, o.withoutHeaders), join(c.queries, o.queries)
	out.sourceNamespaces, out.sourceLabels = join(c.sourceNamespaces, o.sourceNamespaces), join(c.sourceLabels, o.sourceLabels)
	if len(o.gateways) > 0 {
		out.gateways = o.gateways
	}
	return out, nil
}

func join[T any](a, b []T) []T {
	if len(b) == 0 {
		return a
	}
	return append(a[:len(a):len(a)], b...)
}

// narrower is the delegate's path if all that it matches is matched by the root's.
func narrower(root, leaf *networkingapi.StringMatch, ignoreCase bool) (*networkingapi.StringMatch, error) {
	fold := func(s string) string {
		if ignoreCase {
			return strings.ToLower(s)
		}
		return s
	}
	rootExact, rootPrefix := fold(root.GetExact()), fold(root.GetPrefix())
	leafExact, leafPrefix := fold(leaf.GetExact()), fold(leaf.GetPrefix())
	switch {
	case rootExact != "" && leafExact == rootExact,
		rootPrefix != "" && leafExact != "" && strings.HasPrefix(leafExact, rootPrefix),
		rootPrefix != "" && leafPrefix != "" && strings.HasPrefix(leafPrefix, rootPrefix),
		root.GetRegex() != "" && leaf.GetRegex() == root.GetRegex():
		return leaf, nil
	case rootExact != "" && leafPrefix != "" && strings.HasPrefix(rootExact, leafPrefix),
		rootPrefix != "" && leafPrefix != "" && strings.HasPrefix(rootPrefix, leafPrefix):
		return root, nil
	}
	return nil, fmt.Errorf("the paths %s and %s cannot both be matched", describe(root), describe(leaf))
}

func describe(m *networkingapi.StringMatch) string {
	switch {
	case m.GetExact() != "":
		return fmt.Sprintf("exact %q", m.GetExact())
	case m.GetPrefix() != "":
		return fmt.Sprintf("prefix %q", m.GetPrefix())
	}
	return fmt.Sprintf("regex %q", m.GetRegex())
}
