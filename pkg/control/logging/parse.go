package logging

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxExpression bounds an expression, and so its nesting.
const maxExpression = 4096

// expression is a part of the Common Expression Language: comparisons of an
// attribute with a literal, joined by && and ||, negated by !.
type expression struct {
	// op is "&&", "||" or "!" over parts; a comparison; a method of text; or
	// "has".
	op        string
	parts     []*expression
	attribute string
	key       string // in brackets behind the attribute
	literal   string
	text      bool // the literal was in quotes
}

var (
	comparisons = []string{"==", "!=", ">=", "<=", ">", "<"}
	methods     = []string{"startsWith", "endsWith", "contains", "matches"}
)

// parse reads an expression. What it does not know is an error that names it.
func parse(text string) (*expression, error) {
	if len(text) > maxExpression {
		return nil, fmt.Errorf("the expression is longer than %d bytes", maxExpression)
	}
	p := &parser{}
	if err := p.split(text); err != nil {
		return nil, err
	}
	e, err := p.joined(0)
	if err != nil {
		return nil, err
	}
	if p.peek() != "" {
		return nil, fmt.Errorf("unexpected %q", p.peek())
	}
	return e, nil
}

type parser struct{ tokens []string }

// split cuts text into words, quoted text (which keeps its quote) and signs.
func (p *parser) split(text string) error {
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		n := 1
		switch c := text[0]; {
		case c == '\'' || c == '"':
			end := strings.IndexByte(text[1:], c)
			if end < 0 {
				return fmt.Errorf("the quote in %s is not closed", text)
			}
			if n = end + 2; strings.Contains(text[:n], `\`) {
				return fmt.Errorf(`escapes are not read: %s`, text[:n])
			}
		case word(c):
			for n < len(text) && (word(text[n]) || text[n] == '.') {
				n++
			}
		case len(text) > 1 && slices.Contains([]string{"&&", "||", "==", "!=", ">=", "<="}, text[:2]):
			n = 2
		case !strings.ContainsRune("()[]!<>.", rune(c)):
			return fmt.Errorf("unexpected %q", string(c))
		}
		p.tokens, text = append(p.tokens, text[:n]), text[n:]
	}
	return nil
}

func word(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func (p *parser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *parser) next() string {
	t := p.peek()
	if t != "" {
		p.tokens = p.tokens[1:]
	}
	return t
}

func (p *parser) want(token string) error {
	if got := p.next(); got != token {
		return fmt.Errorf("want %q, found %q", token, got)
	}
	return nil
}

// joined reads terms joined by ||, whose terms are joined by &&.
func (p *parser) joined(level int) (*expression, error) {
	operators := []string{"||", "&&"}
	if level == len(operators) {
		return p.term()
	}
	first, err := p.joined(level + 1)
	if err != nil {
		return nil, err
	}
	out := &expression{op: operators[level], parts: []*expression{first}}
	for p.peek() == operators[level] {
		p.next()
		e, err := p.joined(level + 1)
		if err != nil {
			return nil, err
		}
		out.parts = append(out.parts, e)
	}
	if len(out.parts) == 1 {
		return first, nil
	}
	return out, nil
}

func (p *parser) term() (*expression, error) {
	switch p.peek() {
	case "!":
		p.next()
		e, err := p.term()
		return &expression{op: "!", parts: []*expression{e}}, err
	case "(":
		p.next()
		e, err := p.joined(0)
		if err != nil {
			return nil, err
		}
		return e, p.want(")")
	case "has":
		p.next()
		if err := p.want("("); err != nil {
			return nil, err
		}
		e := &expression{op: "has"}
		if err := p.attribute(e); err != nil {
			return nil, err
		}
		return e, p.want(")")
	}
	if literal, text := unquote(p.peek()); text { // 'x-name' in request.headers
		p.next()
		e := &expression{op: "has", key: strings.ToLower(literal)}
		if err := p.want("in"); err != nil {
			return nil, err
		}
		if e.attribute = p.next(); e.attribute != "request.headers" {
			return nil, fmt.Errorf("in is for request.headers, not %q", e.attribute)
		}
		return e, nil
	}
	return p.comparison()
}

func unquote(token string) (string, bool) {
	if len(token) >= 2 && (token[0] == '\'' || token[0] == '"') {
		return token[1 : len(token)-1], true
	}
	return token, false
}

// attribute reads a name, and a key in brackets.
func (p *parser) attribute(e *expression) error {
	e.attribute = p.next()
	if e.attribute == "" || !word(e.attribute[0]) {
		return fmt.Errorf("want an attribute such as response.code, found %q", e.attribute)
	}
	if p.peek() != "[" {
		return nil
	}
	p.next()
	key, text := unquote(p.next())
	if !text || key == "" {
		return fmt.Errorf("want a name in quotes in the brackets behind %s", e.attribute)
	}
	e.key = strings.ToLower(key)
	return p.want("]")
}

func (p *parser) comparison() (*expression, error) {
	e := &expression{}
	if err := p.attribute(e); err != nil {
		return nil, err
	}
	method := false
	if before, last, ok := cutLast(e.attribute); ok && e.key == "" && slices.Contains(methods, last) {
		e.attribute, e.op, method = before, last, true
	} else if p.peek() == "." {
		p.next()
		if e.op = p.next(); !slices.Contains(methods, e.op) {
			return nil, fmt.Errorf("%q is not read: use %s", e.op, strings.Join(methods, ", "))
		}
		method = true
	}
	if method {
		if err := p.want("("); err != nil {
			return nil, err
		}
		if e.literal, e.text = unquote(p.next()); !e.text {
			return nil, fmt.Errorf("%s wants text in quotes", e.op)
		}
		return e, p.want(")")
	}
	if e.op = p.next(); !slices.Contains(comparisons, e.op) {
		return nil, fmt.Errorf("behind %s, want one of %s, found %q", e.attribute, strings.Join(comparisons, " "), e.op)
	}
	if e.literal, e.text = unquote(p.next()); !e.text {
		if _, err := strconv.ParseUint(e.literal, 10, 32); err != nil {
			return nil, fmt.Errorf("want text in quotes or a number, found %q", e.literal)
		}
	}
	return e, nil
}

func cutLast(s string) (before, last string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
