package matcher

import (
	"errors"
	"fmt"
	"net/netip"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// Value is a ValueMatcher: a predicate on what JSON can say, nil for nothing there.
type Value func(v any, found bool) bool

// NewValue compiles a ValueMatcher.
func NewValue(m *matcherv3.ValueMatcher) (Value, error) {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.ValueMatcher_NullMatch_:
		return func(v any, found bool) bool { return found && v == nil }, nil
	case *matcherv3.ValueMatcher_BoolMatch:
		return func(v any, _ bool) bool { b, ok := v.(bool); return ok && b == p.BoolMatch }, nil
	case *matcherv3.ValueMatcher_PresentMatch:
		// Envoy's false never holds, whether there is a value or not.
		return func(_ any, found bool) bool { return found && p.PresentMatch }, nil
	case *matcherv3.ValueMatcher_DoubleMatch:
		return newNumber(p.DoubleMatch)
	case *matcherv3.ValueMatcher_StringMatch:
		s, err := NewString(p.StringMatch)
		if err != nil {
			return nil, fmt.Errorf("string_match: %w", err)
		}
		return func(v any, _ bool) bool { t, ok := v.(string); return ok && s.Match(t) }, nil
	case *matcherv3.ValueMatcher_ListMatch:
		one, err := NewValue(p.ListMatch.GetOneOf())
		if err != nil {
			return nil, fmt.Errorf("list_match: %w", err)
		}
		return func(v any, _ bool) bool { return anyOf(v, one) }, nil
	case *matcherv3.ValueMatcher_OrMatch:
		var list []Value
		for i, sub := range p.OrMatch.GetValueMatchers() {
			one, err := NewValue(sub)
			if err != nil {
				return nil, fmt.Errorf("or_match[%d]: %w", i, err)
			}
			list = append(list, one)
		}
		return func(v any, found bool) bool {
			for _, one := range list {
				if one(v, found) {
					return true
				}
			}
			return false
		}, nil
	case nil:
		return nil, errors.New("the value matcher has no pattern")
	default:
		return nil, fmt.Errorf("value matchers of kind %T are not supported", p)
	}
}

func newNumber(m *matcherv3.DoubleMatcher) (Value, error) {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.DoubleMatcher_Exact:
		return func(v any, _ bool) bool { f, ok := v.(float64); return ok && f == p.Exact }, nil
	case *matcherv3.DoubleMatcher_Range:
		return func(v any, _ bool) bool {
			f, ok := v.(float64)
			return ok && f >= p.Range.GetStart() && f < p.Range.GetEnd()
		}, nil
	default:
		return nil, errors.New("double_match has no pattern")
	}
}

func anyOf(v any, one Value) bool {
	switch list := v.(type) {
	case []any:
		for _, item := range list {
			if one(item, true) {
				return true
			}
		}
	case []string:
		for _, item := range list {
			if one(item, true) {
				return true
			}
		}
	}
	return false
}

// Metadata is a MetadataMatcher.
type Metadata struct {
	filter string
	path   []string
	value  Value
	invert bool
}

// NewMetadata compiles a MetadataMatcher.
func NewMetadata(m *matcherv3.MetadataMatcher) (*Metadata, error) {
	if m.GetFilter() == "" || len(m.GetPath()) == 0 {
		return nil, errors.New("a metadata matcher needs a filter and a path")
	}
	out := &Metadata{filter: m.GetFilter(), invert: m.GetInvert()}
	for _, seg := range m.GetPath() {
		out.path = append(out.path, seg.GetKey())
	}
	var err error
	if out.value, err = NewValue(m.GetValue()); err != nil {
		return nil, fmt.Errorf("metadata %q: %w", m.GetFilter(), err)
	}
	return out, nil
}

// Match decides on metadata.
func (m *Metadata) Match(all streaminfo.Metadata) bool {
	return m.value(all.Get(m.filter, m.path...)) != m.invert
}

// FilterState is a FilterStateMatcher. Filter state holds strings.
type FilterState struct {
	key    string
	value  *String
	ranges []netip.Prefix
	// address asks for an address in one of the ranges; invert turns that round.
	address, invert bool
}

// NewFilterState compiles a FilterStateMatcher.
func NewFilterState(m *matcherv3.FilterStateMatcher) (*FilterState, error) {
	out := &FilterState{key: m.GetKey()}
	var err error
	switch p := m.GetMatcher().(type) {
	case *matcherv3.FilterStateMatcher_StringMatch:
		out.value, err = NewString(p.StringMatch)
	case *matcherv3.FilterStateMatcher_AddressMatch:
		out.address, out.invert = true, p.AddressMatch.GetInvertMatch()
		out.ranges, err = Prefixes(p.AddressMatch.GetRanges())
	default:
		err = fmt.Errorf("filter state matchers of kind %T are not supported", p)
	}
	if err != nil {
		return nil, fmt.Errorf("filter state %q: %w", m.GetKey(), err)
	}
	return out, nil
}

// Match decides on filter state; what is not there does not match.
func (m *FilterState) Match(state map[string]string) bool {
	v, ok := state[m.key]
	if !ok {
		return false
	}
	if !m.address {
		return m.value.Match(v)
	}
	addr, err := netip.ParseAddr(v)
	if err != nil {
		ap, err := netip.ParseAddrPort(v)
		if err != nil {
			return false
		}
		addr = ap.Addr()
	}
	return Contains(m.ranges, addr) != m.invert
}

// Range is a CidrRange, of Envoy's or of xDS's own types.
type Range interface {
	GetAddressPrefix() string
	GetPrefixLen() *wrapperspb.UInt32Value
}

// Prefixes reads CidrRanges.
func Prefixes[R Range](list []R) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(list))
	for i, c := range list {
		addr, err := netip.ParseAddr(c.GetAddressPrefix())
		if err != nil {
			return nil, fmt.Errorf("ranges[%d]: %w", i, err)
		}
		p, err := addr.Unmap().Prefix(int(c.GetPrefixLen().GetValue()))
		if err != nil {
			return nil, fmt.Errorf("ranges[%d]: %w", i, err)
		}
		out = append(out, p)
	}
	return out, nil
}

// Contains reports whether one of the prefixes has the address.
func Contains(list []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap()
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
