// Package matcher compiles Envoy's matchers of strings, header fields, metadata,
// filter state and addresses, and xDS matcher trees, once for many look-ups. A
// matcher is never changed, does not allocate when it is asked, and holds exactly
// what Envoy 1.40 holds. Packages of the waypoint import it.
package matcher

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// Regexp matches whole strings, as RE2::FullMatch does. As with Envoy's RE2 a
// character is a byte: patterns and strings are taken for Latin-1, so that a dot
// matches half of an "é".
type Regexp struct {
	whole *regexp.Regexp
	// Prefix is what every match begins with, or "".
	Prefix string
}

// NewRegexp compiles a pattern in RE2's syntax.
func NewRegexp(m *matcherv3.RegexMatcher) (*Regexp, error) {
	if m.GetRegex() == "" {
		return nil, errors.New("regex is empty")
	}
	free, err := regexp.Compile(widen(m.GetRegex()))
	if err != nil {
		return nil, fmt.Errorf("regex %q: %w", m.GetRegex(), err)
	}
	whole, err := regexp.Compile(`\A(?:` + widen(m.GetRegex()) + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("regex %q: %w", m.GetRegex(), err)
	}
	prefix, _ := free.LiteralPrefix()
	return &Regexp{whole: whole, Prefix: narrow(prefix)}, nil
}

// Match reports whether the pattern describes all of s.
func (r *Regexp) Match(s string) bool { return r.whole.MatchString(widen(s)) }

// Submatches are what the pattern's groups match, or nil if it does not describe all
// of s.
func (r *Regexp) Submatches(s string) []string {
	m := r.whole.FindStringSubmatch(widen(s))
	for i := range m {
		m[i] = narrow(m[i])
	}
	return m
}

// Group is the number of a named group, or -1.
func (r *Regexp) Group(name string) int { return r.whole.SubexpIndex(name) }

// widen makes a rune of each byte, for package regexp.
func widen(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			out := make([]byte, 0, 2*len(s))
			for j := range len(s) {
				out = utf8.AppendRune(out, rune(s[j]))
			}
			return string(out)
		}
	}
	return s
}

// narrow undoes widen.
func narrow(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			out := make([]byte, 0, len(s))
			for _, r := range s {
				out = append(out, byte(r)) //nolint:gosec // widen made it of a byte
			}
			return string(out)
		}
	}
	return s
}

// Rewrite is a RegexMatchAndSubstitute.
type Rewrite struct {
	re     *regexp.Regexp
	pieces []piece
}

// piece is literal text or, if group is not negative, what a group matched.
type piece struct {
	text  string
	group int
}

// NewRewrite compiles a pattern and its substitution, in which \0 to \9 are groups
// and \\ is a backslash.
func NewRewrite(m *matcherv3.RegexMatchAndSubstitute) (*Rewrite, error) {
	pattern := m.GetPattern().GetRegex()
	if pattern == "" {
		return nil, errors.New("pattern.regex is empty")
	}
	re, err := regexp.Compile(widen(pattern))
	if err != nil {
		return nil, fmt.Errorf("pattern.regex %q: %w", pattern, err)
	}
	w := &Rewrite{re: re}
	sub := m.GetSubstitution()
	if strings.ContainsAny(sub, "\r\n\x00") {
		return nil, fmt.Errorf("substitution %q has a line break or NUL", sub)
	}
	for sub != "" {
		at := strings.IndexByte(sub, '\\')
		if at < 0 {
			w.pieces = append(w.pieces, piece{sub, -1})
			break
		}
		if at > 0 {
			w.pieces = append(w.pieces, piece{sub[:at], -1})
		}
		if at+1 == len(sub) {
			return nil, fmt.Errorf("substitution %q ends with a lone backslash", m.GetSubstitution())
		}
		switch c := sub[at+1]; {
		case c == '\\':
			w.pieces = append(w.pieces, piece{`\`, -1})
		case c >= '0' && c <= '9':
			if int(c-'0') > re.NumSubexp() {
				return nil, fmt.Errorf("substitution names group %c, but the pattern has %d", c, re.NumSubexp())
			}
			w.pieces = append(w.pieces, piece{"", int(c - '0')})
		default:
			return nil, fmt.Errorf(`substitution %q: after a backslash comes a digit or another one, not %q`, m.GetSubstitution(), c)
		}
		sub = sub[at+2:]
	}
	return w, nil
}

// Replace is s with all matches replaced, as RE2::GlobalReplace does it.
func (w *Rewrite) Replace(s string) string {
	whole := s
	s = widen(s)
	all := w.re.FindAllStringSubmatchIndex(s, -1)
	if all == nil {
		return whole
	}
	var out strings.Builder
	last := 0
	for _, m := range all {
		out.WriteString(narrow(s[last:m[0]]))
		for _, p := range w.pieces {
			switch {
			case p.group < 0:
				out.WriteString(p.text)
			case m[2*p.group] >= 0:
				out.WriteString(narrow(s[m[2*p.group]:m[2*p.group+1]]))
			}
		}
		last = m[1]
	}
	out.WriteString(narrow(s[last:]))
	return out.String()
}
