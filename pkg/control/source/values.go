package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// expand resolves aliases and merge keys into a tree without them, within the
// bounds, and refuses keys that appear twice.
func expand(n *yaml.Node) (*yaml.Node, error) {
	return expandNode(n, 0, &budget{maxNodes, maxFileSize})
}

// budget is what a document may still come to: a small one that stands for a huge one by its
// aliases must not become one.
type budget struct{ values, bytes int }

// lineError is an error at a line.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return e.err.Error() }
func (e *lineError) Unwrap() error { return e.err }

func failAt(n *yaml.Node, format string, args ...any) error {
	return &lineError{n.Line, fmt.Errorf(format, args...)}
}

func expandNode(n *yaml.Node, depth int, left *budget) (*yaml.Node, error) {
	if left.values--; left.values < 0 {
		return nil, failAt(n, "more than %d values after aliases are expanded", maxNodes)
	}
	if left.bytes -= len(n.Value); left.bytes < 0 {
		return nil, failAt(n, "more than %d MiB after aliases are expanded", maxFileSize>>20)
	}
	if depth > maxDepth {
		return nil, failAt(n, "nested deeper than %d levels", maxDepth)
	}
	switch n.Kind {
	case yaml.AliasNode:
		if n.Alias == nil {
			return nil, failAt(n, "alias *%s has no anchor", n.Value)
		}
		return expandNode(n.Alias, depth+1, left)
	case yaml.ScalarNode:
		return n, nil
	case yaml.SequenceNode:
		out := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Line: n.Line, Column: n.Column}
		for _, c := range n.Content {
			e, err := expandNode(c, depth+1, left)
			if err != nil {
				return nil, err
			}
			out.Content = append(out.Content, e)
		}
		return out, nil
	case yaml.MappingNode:
		return expandMapping(n, depth, left)
	}
	return nil, failAt(n, "unexpected YAML")
}

func expandMapping(n *yaml.Node, depth int, left *budget) (*yaml.Node, error) {
	out := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Line: n.Line, Column: n.Column}
	seen := map[string]int{}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		if key == nil || key.Kind != yaml.ScalarNode {
			return nil, failAt(n.Content[i], "a key must be a plain word")
		}
		value, err := expandNode(n.Content[i+1], depth+1, left)
		if err != nil {
			return nil, err
		}
		if key.Tag == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if first, twice := seen[key.Value]; twice {
			return nil, failAt(key, "key %q appears twice, first in line %d", key.Value, first)
		}
		seen[key.Value] = key.Line
		out.Content = append(out.Content, key, value)
	}
	for _, m := range merged {
		maps := []*yaml.Node{m}
		if m.Kind == yaml.SequenceNode {
			maps = m.Content
		}
		for _, one := range maps {
			if one.Kind != yaml.MappingNode {
				return nil, failAt(one, "<< wants a mapping")
			}
			for i := 0; i+1 < len(one.Content); i += 2 {
				if _, own := seen[one.Content[i].Value]; !own {
					seen[one.Content[i].Value] = one.Content[i].Line
					out.Content = append(out.Content, one.Content[i], one.Content[i+1])
				}
			}
		}
	}
	return out, nil
}

// toJSON is an expanded node as JSON.
func toJSON(n *yaml.Node) ([]byte, error) {
	v, err := toValue(n)
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

func toValue(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, err := toValue(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			m[n.Content[i].Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		s := make([]any, 0, len(n.Content))
		for _, c := range n.Content {
			v, err := toValue(c)
			if err != nil {
				return nil, err
			}
			s = append(s, v)
		}
		return s, nil
	case yaml.ScalarNode:
		return scalar(n)
	}
	return nil, failAt(n, "unexpected YAML")
}

// scalarKind is what a scalar is to Kubernetes, whose YAML is version 1.1: plain
// yes, no, on and off are booleans, dates are text.
func scalarKind(n *yaml.Node) string {
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return "string"
	}
	switch n.Tag {
	case "!!null":
		return "null"
	case "!!bool":
		return "boolean"
	case "!!int":
		return "integer"
	case "!!float":
		return "number"
	}
	if _, ok := yaml11Bool[n.Value]; ok && n.Tag == "!!str" {
		return "boolean"
	}
	return "string"
}

var yaml11Bool = map[string]bool{
	"yes": true, "Yes": true, "YES": true, "on": true, "On": true, "ON": true,
	"no": false, "No": false, "NO": false, "off": false, "Off": false, "OFF": false,
}

func scalar(n *yaml.Node) (any, error) {
	switch scalarKind(n) {
	case "null":
		return nil, nil
	case "boolean":
		if b, ok := yaml11Bool[n.Value]; ok {
			return b, nil
		}
		var b bool
		if err := n.Decode(&b); err != nil {
			return nil, failAt(n, "%q is not true or false", n.Value)
		}
		return b, nil
	case "integer":
		var i int64
		if err := n.Decode(&i); err == nil {
			return json.Number(strconv.FormatInt(i, 10)), nil
		}
		var u uint64
		if err := n.Decode(&u); err != nil {
			return nil, failAt(n, "%s is not a number of 64 bits", n.Value)
		}
		return json.Number(strconv.FormatUint(u, 10)), nil
	case "number":
		var f float64
		if err := n.Decode(&f); err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, failAt(n, "%s is not a finite number", n.Value)
		}
		return f, nil
	}
	return n.Value, nil
}

// lineOf is the line an error carries, or else.
func lineOf(err error, otherwise int) int {
	var at *lineError
	if errors.As(err, &at) {
		return at.line
	}
	return otherwise
}
