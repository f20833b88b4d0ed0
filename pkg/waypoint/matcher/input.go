package matcher

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	inputv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	ipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/ip/v3"
)

// input appends a connection's property, and reports whether it has it.
type input func(dst []byte, in *ConnInput) ([]byte, bool)

func newInput(ext *xdscorev3.TypedExtensionConfig) (input, error) {
	msg, err := ext.GetTypedConfig().UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("input %q: %w", ext.GetName(), err)
	}
	address := func(get func(*ConnInput) netip.AddrPort) input {
		return func(dst []byte, in *ConnInput) ([]byte, bool) {
			a := get(in).Addr()
			return a.Unmap().AppendTo(dst), a.IsValid()
		}
	}
	port := func(get func(*ConnInput) netip.AddrPort) input {
		return func(dst []byte, in *ConnInput) ([]byte, bool) {
			a := get(in)
			return strconv.AppendUint(dst, uint64(a.Port()), 10), a.IsValid()
		}
	}
	text := func(get func(*ConnInput) string) input {
		return func(dst []byte, in *ConnInput) ([]byte, bool) {
			s := get(in)
			return append(dst, s...), s != ""
		}
	}
	switch k := msg.(type) {
	case *inputv3.DestinationIPInput:
		return address(destination), nil
	case *inputv3.SourceIPInput, *inputv3.DirectSourceIPInput:
		return address(source), nil
	case *inputv3.DestinationPortInput:
		return port(destination), nil
	case *inputv3.SourcePortInput:
		return port(source), nil
	case *inputv3.ServerNameInput:
		return fromBytes(text(func(in *ConnInput) string { return in.ServerName })), nil
	case *inputv3.TransportProtocolInput:
		return fromBytes(text(func(in *ConnInput) string { return in.TransportProtocol })), nil
	case *inputv3.ApplicationProtocolInput:
		return fromBytes(protocols), nil
	case *inputv3.FilterStateInput:
		return text(func(in *ConnInput) string { return in.FilterState[k.GetKey()] }), nil
	default:
		return nil, fmt.Errorf("input %q (%s) is not supported", ext.GetName(), ext.GetTypedConfig().GetTypeUrl())
	}
}

// fromBytes is an input that the connection's first bytes give.
func fromBytes(get input) input {
	return func(dst []byte, in *ConnInput) ([]byte, bool) {
		dst, ok := get(dst, in)
		if !ok && in.Undecided != nil {
			*in.Undecided = true
		}
		return dst, ok
	}
}

func destination(in *ConnInput) netip.AddrPort { return in.Destination }
func source(in *ConnInput) netip.AddrPort      { return in.Source }

// protocols are quoted and separated by commas: 'h2','http/1.1'.
func protocols(dst []byte, in *ConnInput) ([]byte, bool) {
	for i, p := range in.ApplicationProtocols {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '\''), p...), '\'')
	}
	return dst, len(in.ApplicationProtocols) > 0
}

// newAddresses is a predicate by envoy.matching.matchers.ip.
func newAddresses(ext, custom *xdscorev3.TypedExtensionConfig) (func(*ConnInput) bool, error) {
	get, err := newAddress(ext)
	if err != nil {
		return nil, err
	}
	var list ipv3.Ip
	if err := custom.GetTypedConfig().UnmarshalTo(&list); err != nil {
		return nil, fmt.Errorf("custom_match %q: only envoy.matching.matchers.ip is supported: %w", custom.GetName(), err)
	}
	prefixes, err := Prefixes(list.GetCidrRanges())
	if err != nil {
		return nil, fmt.Errorf("custom_match.cidr_%w", err)
	}
	return func(in *ConnInput) bool { return Contains(prefixes, get(in).Addr()) }, nil
}

func newAddress(ext *xdscorev3.TypedExtensionConfig) (func(*ConnInput) netip.AddrPort, error) {
	msg, err := ext.GetTypedConfig().UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("input %q: %w", ext.GetName(), err)
	}
	switch msg.(type) {
	case *inputv3.DestinationIPInput:
		return destination, nil
	case *inputv3.SourceIPInput, *inputv3.DirectSourceIPInput:
		return source, nil
	}
	return nil, fmt.Errorf("input %q (%s) is no address", ext.GetName(), ext.GetTypedConfig().GetTypeUrl())
}

// ipTable is an IPMatcher: ranges by their length, the longest first.
type ipTable struct {
	get func(*ConnInput) netip.AddrPort
	// v4 and v6 are the lengths that occur.
	v4, v6 []int
	ranges map[netip.Prefix][]ipRange
}

type ipRange struct {
	then *onMatch
	// exclusive ranges count only if no longer one has the address.
	exclusive bool
}

func newIP(ext *xdscorev3.TypedExtensionConfig, m *xdsmatcherv3.IPMatcher) (func(*ConnInput) (string, bool), error) {
	get, err := newAddress(ext)
	if err != nil {
		return nil, err
	}
	t := &ipTable{get: get, ranges: map[netip.Prefix][]ipRange{}}
	for i, r := range m.GetRangeMatchers() {
		then, err := newOnMatch(r.GetOnMatch())
		if err != nil {
			return nil, fmt.Errorf("range_matchers[%d]: %w", i, err)
		}
		prefixes, err := Prefixes(r.GetRanges())
		if err != nil {
			return nil, fmt.Errorf("range_matchers[%d].%w", i, err)
		}
		for _, p := range prefixes {
			t.ranges[p] = append(t.ranges[p], ipRange{then, r.GetExclusive()})
			lengths := &t.v6
			if p.Addr().Is4() {
				lengths = &t.v4
			}
			if !slices.Contains(*lengths, p.Bits()) {
				*lengths = append(*lengths, p.Bits())
			}
		}
	}
	for _, lengths := range [][]int{t.v4, t.v6} {
		slices.SortFunc(lengths, func(a, b int) int { return b - a })
	}
	return t.find, nil
}

// find takes the longest range that leads to a chain.
func (t *ipTable) find(in *ConnInput) (string, bool) {
	addr := t.get(in).Addr().Unmap()
	if !addr.IsValid() {
		return "", false
	}
	lengths := t.v6
	if addr.Is4() {
		lengths = t.v4
	}
	first := true
	for _, n := range lengths {
		p, err := addr.Prefix(n)
		if err != nil {
			return "", false
		}
		for _, r := range t.ranges[p] {
			if r.exclusive && !first {
				continue
			}
			first = false
			if chain, ok := r.then.find(in); ok {
				return chain, true
			}
		}
	}
	return "", false
}
