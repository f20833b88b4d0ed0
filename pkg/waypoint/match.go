package waypoint

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/listener"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
)

// matchOf is how a listener finds the chain of a connection.
func matchOf(c *listenerv3.Listener) (func(matcher.ConnInput) (string, bool), error) {
	fallback := ""
	if d := c.GetDefaultFilterChain(); d != nil {
		fallback = chainName(d, len(c.GetFilterChains()))
	}
	if m := c.GetFilterChainMatcher(); m != nil {
		match, err := matcher.CompileChains(m)
		if err != nil {
			return nil, fmt.Errorf("filter_chain_matcher: %w", err)
		}
		return func(in matcher.ConnInput) (string, bool) {
			if name, ok := match(in); ok {
				return name, true
			}
			return fallback, fallback != ""
		}, nil
	}
	var candidates []candidate
	for i, fc := range c.GetFilterChains() {
		m, err := newCandidate(fc.GetFilterChainMatch())
		if err != nil {
			return nil, fmt.Errorf("filter_chains[%d].filter_chain_match: %w", i, err)
		}
		m.chain = chainName(fc, i)
		candidates = append(candidates, m)
	}
	// More specific ones first, in Envoy's order of properties.
	slices.SortStableFunc(candidates, func(a, b candidate) int { return b.rank() - a.rank() })
	return func(in matcher.ConnInput) (string, bool) {
		for i := range candidates {
			if candidates[i].holds(in) {
				return candidates[i].chain, true
			}
		}
		return fallback, fallback != ""
	}, nil
}

// candidate is a chain with its FilterChainMatch.
type candidate struct {
	chain     string
	port      uint32
	names     []string
	transport string
	protocols []string
}

func newCandidate(m *listenerv3.FilterChainMatch) (candidate, error) {
	if len(m.GetPrefixRanges())+len(m.GetSourcePrefixRanges())+len(m.GetDirectSourcePrefixRanges())+len(m.GetSourcePorts()) > 0 || m.GetSourceType() != listenerv3.FilterChainMatch_ANY {
		return candidate{}, errors.New("addresses are matched by filter_chain_matcher alone")
	}
	return candidate{port: m.GetDestinationPort().GetValue(), names: m.GetServerNames(), transport: m.GetTransportProtocol(), protocols: m.GetApplicationProtocols()}, nil
}

func (c *candidate) rank() (r int) {
	for i, set := range []bool{len(c.protocols) > 0, c.transport != "", len(c.names) > 0, c.port != 0} {
		if set {
			r |= 1 << i
		}
	}
	return r
}

func (c *candidate) holds(in matcher.ConnInput) bool {
	if c.port != 0 && c.port != uint32(in.Destination.Port()) {
		return false
	}
	if in.Undecided != nil && (c.transport != "" || len(c.names) > 0 || len(c.protocols) > 0) {
		*in.Undecided = true
		return false
	}
	switch {
	case c.transport != "" && c.transport != in.TransportProtocol:
		return false
	case len(c.names) > 0 && !slices.ContainsFunc(c.names, func(n string) bool { return nameMatches(n, in.ServerName) }):
		return false
	case len(c.protocols) > 0 && !slices.ContainsFunc(in.ApplicationProtocols, func(p string) bool { return slices.Contains(c.protocols, p) }):
		return false
	}
	return true
}

func nameMatches(pattern, name string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(name) > len(suffix) && strings.HasSuffix(name, suffix)
	}
	return pattern == name
}

// sniffOf reads which ports' first bytes are looked at.
func sniffOf(c *listenerv3.Listener, t *listener.Table) error {
	t.SniffTimeout = defaultSniffTimeout
	if d := c.GetListenerFiltersTimeout(); d != nil {
		t.SniffTimeout = d.AsDuration()
	}
	for i, f := range c.GetListenerFilters() {
		disabled, err := portsOf(f.GetFilterDisabled())
		if err != nil {
			return fmt.Errorf("listener_filters[%d] %s: filter_disabled: %w", i, f.GetName(), err)
		}
		enabled := func(port uint16) bool { return !disabled(port) }
		switch any := f.GetTypedConfig(); {
		case any.MessageIs(&originalv3.OriginalDst{}):
			// A tunnel's destination is known from its authority.
		case any.MessageIs(&inspectorv3.HttpInspector{}):
			t.SniffHTTP = enabled
		case any.MessageIs(&tlsinspectorv3.TlsInspector{}):
			t.SniffTLS = enabled
		default:
			return fmt.Errorf("listener_filters[%d]: %s is not supported", i, f.GetName())
		}
	}
	return nil
}

// portsOf compiles a predicate on destination ports.
func portsOf(p *listenerv3.ListenerFilterChainMatchPredicate) (func(uint16) bool, error) {
	switch r := p.GetRule().(type) {
	case nil:
		return func(uint16) bool { return false }, nil
	case *listenerv3.ListenerFilterChainMatchPredicate_AnyMatch:
		return func(uint16) bool { return r.AnyMatch }, nil
	case *listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange:
		from, to := r.DestinationPortRange.GetStart(), r.DestinationPortRange.GetEnd()
		return func(port uint16) bool { return int32(port) >= from && int32(port) < to }, nil
	case *listenerv3.ListenerFilterChainMatchPredicate_NotMatch:
		inner, err := portsOf(r.NotMatch)
		if err != nil {
			return nil, err
		}
		return func(port uint16) bool { return !inner(port) }, nil
	case *listenerv3.ListenerFilterChainMatchPredicate_OrMatch:
		return portSets(r.OrMatch, slices.ContainsFunc[[]func(uint16) bool])
	case *listenerv3.ListenerFilterChainMatchPredicate_AndMatch:
		return portSets(r.AndMatch, func(list []func(uint16) bool, f func(func(uint16) bool) bool) bool {
			return !slices.ContainsFunc(list, func(one func(uint16) bool) bool { return !f(one) })
		})
	}
	return nil, fmt.Errorf("rule %T is not supported", p.GetRule())
}

func portSets(set *listenerv3.ListenerFilterChainMatchPredicate_MatchSet, join func([]func(uint16) bool, func(func(uint16) bool) bool) bool) (func(uint16) bool, error) {
	var list []func(uint16) bool
	for i, r := range set.GetRules() {
		one, err := portsOf(r)
		if err != nil {
			return nil, fmt.Errorf("rules[%d]: %w", i, err)
		}
		list = append(list, one)
	}
	return func(port uint16) bool {
		return join(list, func(one func(uint16) bool) bool { return one(port) })
	}, nil
}
