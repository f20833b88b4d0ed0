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

// Regexp matches whole strings, as RE2::FullMatch does.
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
	free, err := regexp.Compile(m.GetRegex())
	if err != nil {
		return nil, fmt.Errorf("regex %q: %w", m.GetRegex(), err)
	}
	whole, err := regexp.Compile(`\A(?:` + m.GetRegex() + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("regex %q: %w", m.GetRegex(), err)
	}
	prefix, _ := free.LiteralPrefix()
	return &Regexp{whole: whole, Prefix: prefix}, nil
}

// Match reports whether the pattern describes all of s. No pattern describes bytes
// that are not UTF-8: Go reads them as U+FFFD, RE2 does not.
func (r *Regexp) Match(s string) bool { return utf8.ValidString(s) && r.whole.MatchString(s) }

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
	re, err := regexp.Compile(pattern)
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
	all := w.re.FindAllStringSubmatchIndex(s, -1)
	if all == nil {
		return s
	}
	var out strings.Builder
	last := 0
	for _, m := range all {
		out.WriteString(s[last:m[0]])
		for _, p := range w.pieces {
			switch {
			case p.group < 0:
				out.WriteString(p.text)
			case m[2*p.group] >= 0:
				out.WriteString(s[m[2*p.group]:m[2*p.group+1]])
			}
		}
		last = m[1]
	}
	out.WriteString(s[last:])
	return out.String()
}

// Whole is the expression of whole strings itself.
func (r *Regexp) Whole() *regexp.Regexp { return r.whole }
