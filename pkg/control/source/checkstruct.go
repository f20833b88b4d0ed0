package source

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// structure checks an expanded node against a Go type by its JSON tags, as the
// API types of Kubernetes have them.
func (c *checker) structure(n *yaml.Node, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if isNull(n) || reflect.PointerTo(t).Implements(unmarshaler) || t.Implements(unmarshaler) {
		return // such types judge for themselves when decoded
	}
	switch t.Kind() {
	case reflect.Struct:
		c.structFields(n, t, path)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			c.add(n, path, "want a map, found %s", describe(n))
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			c.structure(n.Content[i+1], t.Elem(), path+"["+n.Content[i].Value+"]")
		}
	case reflect.Slice:
		c.slice(n, t, path)
	case reflect.Interface:
	default:
		c.basic(n, t, path)
	}
}

func (c *checker) slice(n *yaml.Node, t reflect.Type, path string) {
	if t.Elem().Kind() == reflect.Uint8 {
		if n.Kind != yaml.ScalarNode || scalarKind(n) != "string" {
			c.add(n, path, "want base64 text, found %s", describe(n))
		}
		return
	}
	if n.Kind != yaml.SequenceNode {
		c.add(n, path, "want a list, found %s", describe(n))
		return
	}
	for i, e := range n.Content {
		c.structure(e, t.Elem(), path+"["+strconv.Itoa(i)+"]")
	}
}

func (c *checker) structFields(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.MappingNode {
		c.add(n, path, "want an object with fields, found %s", describe(n))
		return
	}
	fields := fieldsOf(t)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		ft, ok := fields.types[key.Value]
		if !ok {
			c.unknown(key, path, key.Value, fields.names)
			continue
		}
		c.structure(value, ft, join(path, key.Value))
	}
}

func (c *checker) basic(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.ScalarNode {
		c.add(n, path, "want one value, found %s", describe(n))
		return
	}
	kind := scalarKind(n)
	switch t.Kind() {
	case reflect.Bool:
		c.want(n, path, kind, "boolean")
	case reflect.String:
		if kind != "string" {
			c.add(n, path, "want text, found the %s %s: write it in quotes, %q", kind, n.Value, n.Value)
		}
	case reflect.Float32, reflect.Float64:
		if kind != "integer" {
			c.want(n, path, kind, "number")
		}
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int, reflect.Int64:
		c.integer(n, path, kind, -1<<(t.Bits()-1), 1<<(t.Bits()-1)-1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		c.integer(n, path, kind, 0, 1<<t.Bits()-1)
	case reflect.Uint, reflect.Uint64:
		c.integer(n, path, kind, 0, 1<<63-1)
	}
}

// structInfo is a struct's JSON fields, embedded ones included.
type structInfo struct {
	types map[string]reflect.Type
	names []string
}

var structInfos sync.Map // reflect.Type -> *structInfo; the types are few and fixed

func fieldsOf(t reflect.Type) *structInfo {
	if known, ok := structInfos.Load(t); ok {
		return known.(*structInfo)
	}
	info := &structInfo{types: map[string]reflect.Type{}}
	info.collect(t)
	known, _ := structInfos.LoadOrStore(t, info)
	return known.(*structInfo)
}

func (s *structInfo) collect(t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			s.collect(embedded)
			continue
		}
		if name == "" || name == "-" || !f.IsExported() {
			continue
		}
		s.types[name] = f.Type
		s.names = append(s.names, name)
	}
}
