package matcher

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// ConnInput is what is known of a connection before a filter chain serves it.
type ConnInput struct {
	// Destination is the original one, Source the client.
	Destination, Source netip.AddrPort
	// ServerName is of TLS, TransportProtocol "tls" or "raw_buffer".
	ServerName, TransportProtocol string
	// ApplicationProtocols are those found or offered, such as "h2c".
	ApplicationProtocols []string
	// FilterState holds strings by key, such as io.istio.connect_authority.
	FilterState map[string]string
	// Undecided, if set, is set to true where the choice hung on what a client's first
	// bytes say (ServerName, TransportProtocol, ApplicationProtocols) and they do not
	// say it, since they are not read yet.
	Undecided *bool
}

// CompileChains compiles a filter_chain_matcher: a function that names the chain of
// a connection, and reports whether there is one. Inputs, matchers and actions that
// are not known are errors: the chain chosen without them would be the wrong one.
func CompileChains(m *xdsmatcherv3.Matcher) (func(ConnInput) (chain string, ok bool), error) {
	tree, err := newTree(m)
	if err != nil {
		return nil, err
	}
	return func(in ConnInput) (string, bool) { return tree.find(&in) }, nil
}

// tree is an xDS Matcher.
type tree struct {
	find func(in *ConnInput) (string, bool)
}

func newTree(m *xdsmatcherv3.Matcher) (*tree, error) {
	var find func(in *ConnInput) (string, bool)
	var err error
	switch k := m.GetMatcherType().(type) {
	case *xdsmatcherv3.Matcher_MatcherList_:
		find, err = newList(k.MatcherList)
	case *xdsmatcherv3.Matcher_MatcherTree_:
		find, err = newMatcherTree(k.MatcherTree)
	case nil: // on_no_match alone
		find = func(*ConnInput) (string, bool) { return "", false }
	default:
		err = fmt.Errorf("matchers of kind %T are not supported", k)
	}
	if err != nil {
		return nil, err
	}
	if m.GetOnNoMatch() == nil {
		return &tree{find}, nil
	}
	other, err := newOnMatch(m.GetOnNoMatch())
	if err != nil {
		return nil, fmt.Errorf("on_no_match: %w", err)
	}
	return &tree{func(in *ConnInput) (string, bool) {
		if chain, ok := find(in); ok {
			return chain, true
		}
		return other.find(in)
	}}, nil
}

// onMatch is a chain's name or, if next is set, a further matcher.
type onMatch struct {
	chain string
	next  *tree
}

func (o *onMatch) find(in *ConnInput) (string, bool) {
	if o.next != nil {
		return o.next.find(in)
	}
	return o.chain, true
}

func newOnMatch(m *xdsmatcherv3.Matcher_OnMatch) (*onMatch, error) {
	if m.GetKeepMatching() {
		return nil, errors.New("keep_matching is not supported")
	}
	switch k := m.GetOnMatch().(type) {
	case *xdsmatcherv3.Matcher_OnMatch_Matcher:
		next, err := newTree(k.Matcher)
		if err != nil {
			return nil, err
		}
		return &onMatch{next: next}, nil
	case *xdsmatcherv3.Matcher_OnMatch_Action:
		name := new(wrapperspb.StringValue)
		if err := k.Action.GetTypedConfig().UnmarshalTo(name); err != nil {
			return nil, fmt.Errorf("action %q: only a StringValue, the filter chain's name, is supported: %w", k.Action.GetName(), err)
		}
		return &onMatch{chain: name.GetValue()}, nil
	default:
		return nil, errors.New("a match says neither matcher nor action")
	}
}

func newMatcherTree(m *xdsmatcherv3.Matcher_MatcherTree) (func(*ConnInput) (string, bool), error) {
	switch k := m.GetTreeType().(type) {
	case *xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap:
		get, err := newInput(m.GetInput())
		if err != nil {
			return nil, err
		}
		table, err := newMap(k.ExactMatchMap)
		if err != nil {
			return nil, fmt.Errorf("exact_match_map%w", err)
		}
		return func(in *ConnInput) (string, bool) {
			var buf [64]byte
			key, ok := get(buf[:0], in)
			if !ok {
				return "", false
			}
			if o := table[string(key)]; o != nil {
				return o.find(in)
			}
			return "", false
		}, nil
	case *xdsmatcherv3.Matcher_MatcherTree_PrefixMatchMap:
		return newPrefixMap(m.GetInput(), k.PrefixMatchMap)
	case *xdsmatcherv3.Matcher_MatcherTree_CustomMatch:
		return newCustom(m.GetInput(), k.CustomMatch.GetTypedConfig())
	default:
		return nil, errors.New("matcher_tree has no tree")
	}
}

func newMap(m *xdsmatcherv3.Matcher_MatcherTree_MatchMap) (map[string]*onMatch, error) {
	table := make(map[string]*onMatch, len(m.GetMap()))
	for key, sub := range m.GetMap() {
		o, err := newOnMatch(sub)
		if err != nil {
			return nil, fmt.Errorf("[%q]: %w", key, err)
		}
		table[key] = o
	}
	return table, nil
}

// newPrefixMap finds the longest key that a value begins with and that leads to a
// chain.
func newPrefixMap(input *xdscorev3.TypedExtensionConfig, m *xdsmatcherv3.Matcher_MatcherTree_MatchMap) (func(*ConnInput) (string, bool), error) {
	get, err := newInput(input)
	if err != nil {
		return nil, err
	}
	table, err := newMap(m)
	if err != nil {
		return nil, fmt.Errorf("prefix_match_map%w", err)
	}
	return func(in *ConnInput) (string, bool) {
		key, ok := get(nil, in)
		for n := len(key); ok && n >= 0; n-- {
			if o := table[string(key[:n])]; o != nil {
				if chain, ok := o.find(in); ok {
					return chain, true
				}
			}
		}
		return "", false
	}, nil
}

func newCustom(input *xdscorev3.TypedExtensionConfig, cfg *anypb.Any) (func(*ConnInput) (string, bool), error) {
	ip, name := new(xdsmatcherv3.IPMatcher), new(xdsmatcherv3.ServerNameMatcher)
	switch {
	case cfg.MessageIs(ip):
		if err := cfg.UnmarshalTo(ip); err != nil {
			return nil, fmt.Errorf("IPMatcher: %w", err)
		}
		return newIP(input, ip)
	case cfg.MessageIs(name):
		if err := cfg.UnmarshalTo(name); err != nil {
			return nil, fmt.Errorf("ServerNameMatcher: %w", err)
		}
		return newServerName(input, name)
	}
	return nil, fmt.Errorf("custom_match %s is not supported", cfg.GetTypeUrl())
}

// newServerName finds the most specific domain: exact, then the longest wildcard.
func newServerName(input *xdscorev3.TypedExtensionConfig, m *xdsmatcherv3.ServerNameMatcher) (func(*ConnInput) (string, bool), error) {
	get, err := newInput(input)
	if err != nil {
		return nil, err
	}
	table := map[string]*onMatch{}
	for i, d := range m.GetDomainMatchers() {
		o, err := newOnMatch(d.GetOnMatch())
		if err != nil {
			return nil, fmt.Errorf("domain_matchers[%d]: %w", i, err)
		}
		for _, domain := range d.GetDomains() {
			if _, ok := table[domain]; ok {
				return nil, fmt.Errorf("domain_matchers[%d]: %q is there twice", i, domain)
			}
			table[domain] = o
		}
	}
	return func(in *ConnInput) (string, bool) {
		key, ok := get(nil, in)
		if !ok {
			return "", false
		}
		name := strings.ToLower(string(key))
		if o := table[name]; o != nil {
			if chain, ok := o.find(in); ok {
				return chain, true
			}
		}
		for rest := name; ; {
			_, after, more := strings.Cut(rest, ".")
			if !more {
				break
			}
			if o := table["*."+after]; o != nil {
				if chain, ok := o.find(in); ok {
					return chain, true
				}
			}
			rest = after
		}
		if o := table["*"]; o != nil {
			return o.find(in)
		}
		return "", false
	}, nil
}

// newList goes through predicates in order.
func newList(m *xdsmatcherv3.Matcher_MatcherList) (func(*ConnInput) (string, bool), error) {
	type field struct {
		holds func(*ConnInput) bool
		then  *onMatch
	}
	var fields []field
	for i, f := range m.GetMatchers() {
		holds, err := newPredicate(f.GetPredicate())
		if err != nil {
			return nil, fmt.Errorf("matcher_list[%d]: %w", i, err)
		}
		then, err := newOnMatch(f.GetOnMatch())
		if err != nil {
			return nil, fmt.Errorf("matcher_list[%d]: %w", i, err)
		}
		fields = append(fields, field{holds, then})
	}
	return func(in *ConnInput) (string, bool) {
		for i := range fields {
			if fields[i].holds(in) {
				if chain, ok := fields[i].then.find(in); ok {
					return chain, true
				}
			}
		}
		return "", false
	}, nil
}

func newPredicate(m *xdsmatcherv3.Matcher_MatcherList_Predicate) (func(*ConnInput) bool, error) {
	switch k := m.GetMatchType().(type) {
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_:
		get, err := newInput(k.SinglePredicate.GetInput())
		if err != nil {
			return nil, err
		}
		if custom := k.SinglePredicate.GetCustomMatch(); custom != nil {
			return newAddresses(k.SinglePredicate.GetInput(), custom)
		}
		s, err := newXDSString(k.SinglePredicate.GetValueMatch())
		if err != nil {
			return nil, fmt.Errorf("value_match: %w", err)
		}
		return func(in *ConnInput) bool {
			v, ok := get(nil, in)
			return ok && s.Match(string(v))
		}, nil
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_NotMatcher:
		one, err := newPredicate(k.NotMatcher)
		if err != nil {
			return nil, err
		}
		return func(in *ConnInput) bool { return !one(in) }, nil
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_AndMatcher:
		all, err := newPredicates(k.AndMatcher)
		return func(in *ConnInput) bool {
			return !slices.ContainsFunc(all, func(p func(*ConnInput) bool) bool { return !p(in) })
		}, err
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_OrMatcher:
		all, err := newPredicates(k.OrMatcher)
		return func(in *ConnInput) bool {
			return slices.ContainsFunc(all, func(p func(*ConnInput) bool) bool { return p(in) })
		}, err
	default:
		return nil, fmt.Errorf("predicates of kind %T are not supported", k)
	}
}

func newPredicates(m *xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList) ([]func(*ConnInput) bool, error) {
	var out []func(*ConnInput) bool
	for _, sub := range m.GetPredicate() {
		one, err := newPredicate(sub)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

// newXDSString reads xDS's StringMatcher, which is Envoy's on the wire.
func newXDSString(m *xdsmatcherv3.StringMatcher) (*String, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	own := new(matcherv3.StringMatcher)
	if err := proto.Unmarshal(b, own); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return NewString(own)
}
