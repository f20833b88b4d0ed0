// Package format compiles Envoy's substitution format strings: text with %COMMANDS%
// that stand for what is known of an exchange, for access logs, header values,
// response bodies and filter state. A compiled format is never changed and appends
// to the caller's buffer. Packages of the waypoint import it.
package format

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// kind says what a value is in JSON.
type kind uint8

const (
	text kind = iota
	number
	// raw values are appended as JSON by the command itself; in text their strings
	// stand bare.
	raw
)

// value appends what a command stands for, and reports whether there is anything.
type value func(dst []byte, i *streaminfo.Info) ([]byte, bool)

// term is literal text or a command.
type term struct {
	literal string
	value   value
	kind    kind
	// max is how many bytes of a value are kept, 0 all.
	max int
}

func (t *term) append(dst []byte, i *streaminfo.Info) ([]byte, bool) {
	at := len(dst)
	dst, ok := t.value(dst, i)
	if !ok {
		return dst[:at], false
	}
	if t.kind == raw {
		dst = unquote(dst, at)
	}
	if t.max > 0 && len(dst)-at > t.max {
		dst = dst[:at+t.max]
	}
	return dst, true
}

// Format is a compiled text format.
type Format struct {
	terms []term
	// empty stands for values that are not there.
	empty string
}

// Compile reads a text format, in which values that are not there are "-". Errors
// name the command.
func Compile(s string) (*Format, error) {
	terms, err := parse(s)
	if err != nil {
		return nil, err
	}
	return &Format{terms: terms, empty: "-"}, nil
}

// CompileOmit is as Compile, but values that are not there are empty, as in header
// values.
func CompileOmit(s string) (*Format, error) {
	f, err := Compile(s)
	if err != nil {
		return nil, err
	}
	f.empty = ""
	return f, nil
}

// Append appends the format's text for an exchange.
func (f *Format) Append(dst []byte, i *streaminfo.Info) []byte {
	for n := range f.terms {
		t := &f.terms[n]
		if t.value == nil {
			dst = append(dst, t.literal...)
			continue
		}
		var ok bool
		if dst, ok = t.append(dst, i); !ok {
			dst = append(dst, f.empty...)
		}
	}
	return dst
}

// String is the format's text for an exchange.
func (f *Format) String(i *streaminfo.Info) string {
	if s, ok := f.Literal(); ok {
		return s
	}
	var buf [256]byte
	return string(f.Append(buf[:0], i))
}

// Literal is the text of a format without commands.
func (f *Format) Literal() (string, bool) {
	switch {
	case len(f.terms) == 0:
		return "", true
	case len(f.terms) == 1 && f.terms[0].value == nil:
		return f.terms[0].literal, true
	}
	return "", false
}

// parse splits a format into its terms. "%%" is a percent sign.
func parse(s string) ([]term, error) {
	var terms []term
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			terms = append(terms, term{literal: literal.String()})
			literal.Reset()
		}
	}
	for whole := s; s != ""; {
		at := strings.IndexByte(s, '%')
		if at < 0 {
			literal.WriteString(s)
			break
		}
		literal.WriteString(s[:at])
		s = s[at:]
		if strings.HasPrefix(s, "%%") {
			literal.WriteByte('%')
			s = s[2:]
			continue
		}
		c, rest, err := parseCommand(s)
		if err != nil {
			return nil, fmt.Errorf("format %q at %d: %w", whole, len(whole)-len(s), err)
		}
		t, err := c.compile()
		if err != nil {
			return nil, fmt.Errorf("format %q: %%%s%%: %w", whole, c.name, err)
		}
		flush()
		terms = append(terms, t)
		s = rest
	}
	flush()
	return terms, nil
}

// command is %NAME(arg):max%, as written.
type command struct {
	name string
	arg  string
	max  int
}

// parseCommand reads the command that s begins with.
func parseCommand(s string) (command, string, error) {
	var c command
	n := 1
	for n < len(s) && (s[n] >= 'A' && s[n] <= 'Z' || s[n] >= '0' && s[n] <= '9' || s[n] == '_') {
		n++
	}
	c.name, s = s[1:n], s[n:]
	if c.name == "" {
		return c, "", errors.New(`a "%" begins a command such as %START_TIME%; write "%%" for a percent sign`)
	}
	if strings.HasPrefix(s, "(") {
		end := argEnd(s)
		if end < 0 {
			return c, "", fmt.Errorf(`%%%s(: the closing ")" is missing`, c.name)
		}
		c.arg, s = s[1:end], s[end+1:]
	}
	if strings.HasPrefix(s, ":") {
		end := strings.IndexByte(s, '%')
		if end < 0 {
			return c, "", fmt.Errorf(`%%%s: the closing "%%" is missing`, c.name)
		}
		v, err := strconv.ParseUint(s[1:end], 10, 31)
		if err != nil {
			return c, "", fmt.Errorf("%%%s: the length %q is not a number", c.name, s[1:end])
		}
		c.max, s = int(v), s[end:]
	}
	if !strings.HasPrefix(s, "%") {
		return c, "", fmt.Errorf(`%%%s: the closing "%%" is missing`, c.name)
	}
	return c, s[1:], nil
}

// argEnd is where the parenthesis that s begins with ends: at the first ")" that a
// "%" or ":" follows, for time formats may have others.
func argEnd(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] == ')' && i+1 < len(s) && (s[i+1] == '%' || s[i+1] == ':') {
			return i
		}
	}
	return -1
}

// compile looks the command up.
func (c command) compile() (term, error) {
	if plain, ok := plainCommands[c.name]; ok {
		if c.arg != "" || c.max > 0 {
			return term{}, errors.New("it takes neither an argument in parentheses nor a length")
		}
		return term{value: plain.value, kind: plain.kind, max: c.max}, nil
	}
	if slices.Contains(absent, c.name) {
		return term{value: constant("")}, nil
	}
	compile, ok := argCommands[c.name]
	if !ok {
		return term{}, fmt.Errorf("there is no command %s; commands are in upper case, as in Envoy's documentation of access logs", c.name)
	}
	v, k, err := compile(c)
	if err != nil {
		return term{}, err
	}
	return term{value: v, kind: k, max: c.max}, nil
}
