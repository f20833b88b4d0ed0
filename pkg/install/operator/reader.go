package operator

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
	"github.com/fairlead-mesh/fairlead/pkg/suggest"
)

// reader walks documents and collects.
type reader struct {
	request *Request
	file    string
	errs    Errors
}

// rule says what becomes of a node. One of to, fields, items, take and inert is set.
type rule struct {
	// to is the chart's value that the node is.
	to string
	// fields are all that a mapping may have; others are errors.
	fields map[string]rule
	// items is the rule of a list's items.
	items *rule
	// take does what no table says.
	take func(r *reader, n *yaml.Node, field string)
	// inert says why the node has no effect; what is within is not looked at.
	inert string
	// hints are sentences about fields that are not known.
	hints map[string]string
}

func (r *reader) fail(line int, field, format string, args ...any) {
	r.errs = append(r.errs, Error{r.file, line, field, fmt.Sprintf(format, args...)})
}

func (r *reader) note(line int, field, format string, args ...any) {
	r.request.Notes = append(r.request.Notes, Note{r.file, line, field, fmt.Sprintf(format, args...)})
}

const (
	apiVersion = "install.istio.io/v1alpha1"
	kindName   = "IstioOperator"
)

// document is an IstioOperator, or values of the chart.
func (r *reader) document(n *yaml.Node) {
	kind, version := text(n, "kind"), text(n, "apiVersion")
	switch {
	case kind == "" && version == "":
		r.walk(n, rule{fields: own()}, "")
	case kind != kindName || version != apiVersion:
		r.fail(n.Line, "", "%s %s is nothing that an installation reads: want %s %s, or values of the chart without apiVersion and kind", version, kind, apiVersion, kindName)
	default:
		r.walk(n, rule{fields: map[string]rule{
			"apiVersion": {take: ignore}, "kind": {take: ignore}, "metadata": {take: metadata}, "spec": {fields: spec()},
		}}, "")
	}
}

func ignore(*reader, *yaml.Node, string) {}

// metadata names the object, which is stored nowhere, and where it is installed.
func metadata(r *reader, n *yaml.Node, field string) {
	if at := child(n, "namespace"); at != nil {
		namespace(r, at, field+".namespace")
	}
}

func namespace(r *reader, n *yaml.Node, field string) {
	if n.Value != "" && n.Value != chart.Namespace {
		r.fail(n.Line, field, "%q: the mesh is installed in the namespace %s alone", n.Value, chart.Namespace)
	}
}

func (r *reader) walk(n *yaml.Node, rule rule, field string) {
	switch {
	case rule.take != nil:
		rule.take(r, n, field)
	case rule.inert != "":
		r.note(n.Line, field, "%s", rule.inert)
	case rule.to != "":
		r.set(rule.to, n, field)
	case n.Tag == "!!null":
	case rule.items != nil:
		if n.Kind != yaml.SequenceNode {
			r.fail(n.Line, field, "a list is wanted")
			return
		}
		for i, item := range n.Content {
			r.walk(item, *rule.items, fmt.Sprintf("%s[%d]", field, i))
		}
	default:
		r.mapping(n, rule, field)
	}
}

func (r *reader) mapping(n *yaml.Node, rule rule, field string) {
	if n.Kind != yaml.MappingNode {
		r.fail(n.Line, field, "fields are wanted here, and this is %q", n.Value)
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := strings.TrimPrefix(field+"."+key.Value, ".")
		inner, ok := rule.fields[key.Value]
		switch hint := rule.hints[key.Value]; {
		case ok:
			if value.Kind == yaml.MappingNode || value.Kind == yaml.SequenceNode {
				value.Line = key.Line
			}
			r.walk(value, inner, at)
		case hint != "":
			r.fail(key.Line, at, "no such field: %s", hint)
		default:
			r.fail(key.Line, at, "no such field%s", suggest.DidYouMean(key.Value, slices.Sorted(maps.Keys(rule.fields))))
		}
	}
}

// set makes a node a value of the chart.
func (r *reader) set(to string, n *yaml.Node, field string) {
	var value any
	if err := n.Decode(&value); err != nil {
		r.fail(n.Line, field, "%v", err)
		return
	}
	r.put(to, value)
	r.origin(to, n, field)
}

// origin remembers where a value and all within it were written.
func (r *reader) origin(path string, n *yaml.Node, field string) {
	r.request.origins[path] = origin{r.file, n.Line, field}
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		r.origin(path+"."+key.Value, value, field+"."+key.Value)
		if o := r.request.origins[path+"."+key.Value]; o.line != key.Line {
			o.line = key.Line
			r.request.origins[path+"."+key.Value] = o
		}
	}
}

// put sets a value of the chart; mappings are merged.
func (r *reader) put(path string, value any) {
	at, keys := r.request.Values, strings.Split(path, ".")
	for _, k := range keys[:len(keys)-1] {
		next, ok := at[k].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[k] = next
		}
		at = next
	}
	last := keys[len(keys)-1]
	if old, ok := at[last].(map[string]any); ok {
		if added, ok := value.(map[string]any); ok {
			value = merged(old, added)
		}
	}
	at[last] = value
}

func merged(old, added map[string]any) map[string]any {
	out := maps.Clone(old)
	for k, v := range added {
		before, ok := out[k].(map[string]any)
		if now, both := v.(map[string]any); ok && both {
			v = merged(before, now)
		}
		out[k] = v
	}
	return out
}

func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func text(n *yaml.Node, key string) string {
	if c := child(n, key); c != nil && c.Kind == yaml.ScalarNode {
		return c.Value
	}
	return ""
}

// keyLine is where a key of a mapping is written.
func keyLine(n *yaml.Node, key string) int {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i].Line
		}
	}
	return n.Line
}
