package matcher

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

type headerKind uint8

const (
	text headerKind = iota
	numeric
	presence
	anything
)

// Header is a HeaderMatcher. Of several lines of a field one must match, or none if
// the matcher is inverted; fields that Envoy keeps in one line count as joined.
type Header struct {
	name           string
	combined       bool
	kind           headerKind
	invert         bool
	present        bool
	missingIsEmpty bool
	value          *String
	start, end     int64
}

// NewHeader compiles a HeaderMatcher.
func NewHeader(m *routev3.HeaderMatcher) (*Header, error) {
	h := &Header{name: lower(m.GetName()), invert: m.GetInvertMatch(), missingIsEmpty: m.GetTreatMissingHeaderAsEmpty()}
	h.combined = message.Combined(h.name)
	if h.name == "" {
		return nil, errors.New("name is empty")
	}
	var err error
	switch s := m.GetHeaderMatchSpecifier().(type) {
	case nil:
		h.kind, h.present = presence, true
	case *routev3.HeaderMatcher_PresentMatch:
		h.kind, h.present = presence, s.PresentMatch
	case *routev3.HeaderMatcher_RangeMatch:
		h.kind, h.start, h.end = numeric, s.RangeMatch.GetStart(), s.RangeMatch.GetEnd()
	case *routev3.HeaderMatcher_StringMatch:
		h.value, err = NewString(s.StringMatch)
	default:
		err = h.legacy(m)
	}
	if err != nil {
		return nil, fmt.Errorf("header %q: %w", h.name, err)
	}
	return h, nil
}

// legacy compiles the specifiers of before string_match.
//
//nolint:staticcheck // istiod sends some of them still
func (h *Header) legacy(m *routev3.HeaderMatcher) (err error) {
	s := new(matcherv3.StringMatcher)
	value := ""
	switch k := m.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_ExactMatch:
		value, s.MatchPattern = k.ExactMatch, &matcherv3.StringMatcher_Exact{Exact: k.ExactMatch}
	case *routev3.HeaderMatcher_PrefixMatch:
		value, s.MatchPattern = k.PrefixMatch, &matcherv3.StringMatcher_Prefix{Prefix: k.PrefixMatch}
	case *routev3.HeaderMatcher_SuffixMatch:
		value, s.MatchPattern = k.SuffixMatch, &matcherv3.StringMatcher_Suffix{Suffix: k.SuffixMatch}
	case *routev3.HeaderMatcher_ContainsMatch:
		value, s.MatchPattern = k.ContainsMatch, &matcherv3.StringMatcher_Contains{Contains: k.ContainsMatch}
	case *routev3.HeaderMatcher_SafeRegexMatch:
		s.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: k.SafeRegexMatch}
		h.value, err = NewString(s)
		return err
	default:
		return fmt.Errorf("header matchers of kind %T are not supported", k)
	}
	if value == "" { // Envoy's exact_match "" asks for presence alone.
		h.kind = anything
		return nil
	}
	h.value, err = NewString(s)
	return err
}

// NewHeaders compiles several; all must match.
func NewHeaders(list []*routev3.HeaderMatcher) ([]*Header, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make([]*Header, len(list))
	for i, m := range list {
		h, err := NewHeader(m)
		if err != nil {
			return nil, fmt.Errorf("headers[%d]: %w", i, err)
		}
		out[i] = h
	}
	return out, nil
}

// Request reports whether a request's head is as the matcher says.
func (h *Header) Request(r *message.Request) bool {
	if h.combined || r.Fields.Count(h.name) < 2 {
		return h.Match(r.Joined(h.name))
	}
	return h.lines(r.Fields)
}

// Response reports whether a response's head is as the matcher says.
func (h *Header) Response(r *message.Response) bool {
	if h.combined || r.Fields.Count(h.name) < 2 {
		return h.Match(r.Joined(h.name))
	}
	return h.lines(r.Fields)
}

// lines decides on several lines.
func (h *Header) lines(f message.Fields) bool {
	if h.kind == presence {
		return h.Match("", true)
	}
	for i := range f {
		if f[i].Name == h.name && h.Match(f[i].Value, true) != h.invert {
			return !h.invert
		}
	}
	return h.invert
}

// Match decides on a value and whether there is one.
func (h *Header) Match(value string, found bool) bool {
	if h.kind == presence {
		return ((found || h.missingIsEmpty) == h.present) != h.invert
	}
	if !found {
		// A field that is not there matches nothing, not even inverted, unless it
		// counts as empty.
		if !h.missingIsEmpty {
			return false
		}
		value = ""
	}
	switch h.kind {
	case numeric:
		n, err := strconv.ParseInt(strings.Trim(value, " \t\n\v\f\r"), 10, 64)
		return (err == nil && n >= h.start && n < h.end) != h.invert
	case anything:
		return !h.invert
	default:
		return h.value.Match(value) != h.invert
	}
}
