package source

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/fairlead-mesh/fairlead/pkg/suggest"
)

// finding is one thing wrong at a place in a document.
type finding struct {
	line    int
	field   string
	message string
	unknown bool // an unknown field, which core kinds forgive
	warning bool // does not keep the object from being taken
}

// checker collects what is wrong with a document.
type checker struct {
	findings []finding
}

func (c *checker) add(n *yaml.Node, path, format string, args ...any) {
	c.findings = append(c.findings, finding{line: n.Line, field: path, message: fmt.Sprintf(format, args...)})
}

func (c *checker) unknown(n *yaml.Node, path, name string, known []string) {
	c.findings = append(c.findings, finding{n.Line, join(path, name), fmt.Sprintf("unknown field %q%s", name, suggest.DidYouMean(name, known)), true, false})
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// message checks an expanded node against a protobuf message, in its JSON form.
func (c *checker) message(n *yaml.Node, md protoreflect.MessageDescriptor, path string) {
	if isNull(n) {
		return
	}
	if strings.HasPrefix(string(md.FullName()), "google.protobuf.") {
		c.wellKnown(n, md, path)
		return
	}
	if n.Kind != yaml.MappingNode {
		c.add(n, path, "want an object with fields, found %s", describe(n))
		return
	}
	set := map[protoreflect.FullName]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		fd := md.Fields().ByJSONName(key.Value)
		if fd == nil {
			fd = md.Fields().ByName(protoreflect.Name(key.Value))
		}
		if fd == nil {
			if hint, ok := hints[hintKey{md.FullName(), key.Value}]; ok {
				c.findings = append(c.findings, finding{line: key.Line, field: join(path, key.Value), message: fmt.Sprintf("unknown field %q; %s", key.Value, hint), unknown: true})
				continue
			}
			c.unknown(key, path, key.Value, fieldNames(md))
			continue
		}
		at := join(path, key.Value)
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() && !isNull(value) {
			if other, twice := set[o.FullName()]; twice {
				c.add(key, at, "cannot be set together with %s", other)
			}
			set[o.FullName()] = key.Value
		}
		c.protoField(value, fd, at)
	}
}

type hintKey struct {
	message protoreflect.FullName
	field   string
}

// hints are for fields that people write although they never were there, because
// an older or a neighbouring API has them.
var hints = map[hintKey]string{
	{"istio.telemetry.v1alpha1.MetricsOverrides", "tag"}:        `did you mean "tagOverrides"? It maps a label to an object: request_method: {value: request.method}`,
	{"istio.telemetry.v1alpha1.MetricsOverrides", "tags"}:       `did you mean "tagOverrides"? It maps a label to an object: request_method: {value: request.method}`,
	{"istio.telemetry.v1alpha1.MetricsOverrides", "dimensions"}: `labels are set under "tagOverrides"`,
	{"istio.telemetry.v1alpha1.MetricsOverrides", "metrics"}:    `to choose the metric: match: {metric: REQUEST_COUNT}`,
	{"istio.telemetry.v1alpha1.MetricsOverrides", "metric"}:     `to choose the metric: match: {metric: REQUEST_COUNT}`,
}

func fieldNames(md protoreflect.MessageDescriptor) []string {
	names := make([]string, 0, md.Fields().Len())
	for i := range md.Fields().Len() {
		names = append(names, md.Fields().Get(i).JSONName())
	}
	return names
}

func (c *checker) protoField(n *yaml.Node, fd protoreflect.FieldDescriptor, path string) {
	switch {
	case isNull(n):
	case fd.IsMap():
		if n.Kind != yaml.MappingNode {
			c.add(n, path, "want a map, found %s", describe(n))
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			c.mapKey(key, fd.MapKey(), path)
			c.protoValue(value, fd.MapValue(), path+"["+key.Value+"]")
		}
	case fd.IsList():
		if n.Kind != yaml.SequenceNode {
			c.add(n, path, "want a list, found %s", describe(n))
			return
		}
		for i, e := range n.Content {
			c.protoValue(e, fd, path+"["+strconv.Itoa(i)+"]")
		}
	default:
		c.protoValue(n, fd, path)
	}
}

func (c *checker) mapKey(key *yaml.Node, fd protoreflect.FieldDescriptor, path string) {
	switch fd.Kind() {
	case protoreflect.Uint32Kind:
		if _, err := strconv.ParseUint(key.Value, 10, 32); err != nil {
			c.add(key, path, "key %q is not a number", key.Value)
		}
	case protoreflect.Int32Kind:
		if _, err := strconv.ParseInt(key.Value, 10, 32); err != nil {
			c.add(key, path, "key %q is not a number", key.Value)
		}
	}
}

func (c *checker) protoValue(n *yaml.Node, fd protoreflect.FieldDescriptor, path string) {
	if fd.Kind() == protoreflect.MessageKind {
		c.message(n, fd.Message(), path)
		return
	}
	if n.Kind != yaml.ScalarNode {
		c.add(n, path, "want one value, found %s", describe(n))
		return
	}
	if isNull(n) {
		return
	}
	kind := scalarKind(n)
	switch fd.Kind() {
	case protoreflect.BoolKind:
		c.want(n, path, kind, "boolean")
	case protoreflect.StringKind, protoreflect.BytesKind:
		if kind != "string" {
			c.add(n, path, "want text, found the %s %s: write it in quotes, %q", kind, n.Value, n.Value)
		}
	case protoreflect.EnumKind:
		c.enum(n, fd.Enum(), path, kind)
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		if kind != "integer" {
			c.want(n, path, kind, "number")
		}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		c.integer(n, path, kind, 0, 1<<32-1)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		c.integer(n, path, kind, -1<<31, 1<<31-1)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		c.integer(n, path, kind, 0, 1<<63-1)
	default:
		c.integer(n, path, kind, -1<<63, 1<<63-1)
	}
}

func (c *checker) want(n *yaml.Node, path, kind, want string) {
	if kind != want {
		c.add(n, path, "want a %s, found %s", want, describe(n))
	}
}

func (c *checker) integer(n *yaml.Node, path, kind string, low, high int64) {
	if kind != "integer" {
		c.add(n, path, "want a whole number, found %s", describe(n))
		return
	}
	var v int64
	if err := n.Decode(&v); err != nil || v < low || v > high {
		c.add(n, path, "%s is not between %d and %d", n.Value, low, high)
	}
}

func (c *checker) enum(n *yaml.Node, ed protoreflect.EnumDescriptor, path, kind string) {
	if kind == "integer" {
		v, err := strconv.ParseInt(n.Value, 10, 32)
		if err != nil || ed.Values().ByNumber(protoreflect.EnumNumber(v)) == nil {
			c.add(n, path, "%s is no value of %s", n.Value, ed.Name())
		}
		return
	}
	if ed.Values().ByName(protoreflect.Name(n.Value)) != nil {
		return
	}
	names := make([]string, 0, ed.Values().Len())
	for i := range ed.Values().Len() {
		names = append(names, string(ed.Values().Get(i).Name()))
	}
	c.add(n, path, "%q is not one of %s%s", n.Value, strings.Join(names, ", "), suggest.DidYouMean(n.Value, names))
}

func (c *checker) wellKnown(n *yaml.Node, md protoreflect.MessageDescriptor, path string) {
	switch md.FullName() {
	case "google.protobuf.Duration":
		if n.Kind != yaml.ScalarNode || scalarKind(n) != "string" {
			c.add(n, path, `want a duration such as "5s", found %s`, describe(n))
		} else if _, err := time.ParseDuration(n.Value); err != nil {
			c.add(n, path, `%q is not a duration: write it like "5s" or "1m30s"`, n.Value)
		}
	case "google.protobuf.Struct", "google.protobuf.Empty":
		if n.Kind != yaml.MappingNode {
			c.add(n, path, "want an object, found %s", describe(n))
		}
	case "google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.DoubleValue", "google.protobuf.FloatValue",
		"google.protobuf.UInt32Value", "google.protobuf.Int32Value", "google.protobuf.UInt64Value", "google.protobuf.Int64Value":
		c.protoValue(n, md.Fields().ByName("value"), path)
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && scalarKind(n) == "null" }

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	}
	if kind := scalarKind(n); kind != "string" {
		return "the " + kind + " " + n.Value
	}
	return strconv.Quote(n.Value)
}
