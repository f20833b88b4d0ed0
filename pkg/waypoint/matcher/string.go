package matcher

import (
	"errors"
	"fmt"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

type stringKind uint8

const (
	exact stringKind = iota
	prefix
	suffix
	contains
	pattern
)

// String is a StringMatcher.
type String struct {
	kind stringKind
	// fold ignores the case of ASCII letters; value is then in lower case.
	fold  bool
	value string
	re    *Regexp
}

// NewString compiles a StringMatcher.
func NewString(m *matcherv3.StringMatcher) (*String, error) {
	s := &String{fold: m.GetIgnoreCase()}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		s.kind, s.value = exact, p.Exact
	case *matcherv3.StringMatcher_Prefix:
		s.kind, s.value = prefix, p.Prefix
	case *matcherv3.StringMatcher_Suffix:
		s.kind, s.value = suffix, p.Suffix
	case *matcherv3.StringMatcher_Contains:
		s.kind, s.value = contains, p.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		re, err := NewRegexp(p.SafeRegex)
		if err != nil {
			return nil, fmt.Errorf("safe_regex: %w", err)
		}
		s.kind, s.re = pattern, re // ignore_case has no effect here
	case nil:
		return nil, errors.New("the string matcher has no pattern")
	default:
		return nil, fmt.Errorf("string matchers of kind %T are not supported", p)
	}
	if s.value == "" && s.kind != exact && s.kind != pattern {
		return nil, errors.New("an empty prefix, suffix or contains matches everything: use present or leave the matcher out")
	}
	if s.fold {
		s.value = lower(s.value)
	}
	return s, nil
}

// Match reports whether v is as the matcher says.
func (m *String) Match(v string) bool {
	switch m.kind {
	case pattern:
		return m.re.Match(v)
	case prefix:
		return len(v) >= len(m.value) && m.same(v[:len(m.value)])
	case suffix:
		return len(v) >= len(m.value) && m.same(v[len(v)-len(m.value):])
	case contains:
		if !m.fold {
			return strings.Contains(v, m.value)
		}
		for i := 0; i+len(m.value) <= len(v); i++ {
			if m.same(v[i : i+len(m.value)]) {
				return true
			}
		}
		return false
	}
	return m.same(v)
}

func (m *String) same(v string) bool {
	if !m.fold {
		return v == m.value
	}
	return EqualFold(v, m.value)
}

// EqualFold compares v with a string in lower case, ignoring the case of ASCII
// letters in v.
func EqualFold(v, lowered string) bool {
	if len(v) != len(lowered) {
		return false
	}
	for i := range len(v) {
		c := v[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lowered[i] {
			return false
		}
	}
	return true
}

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}
