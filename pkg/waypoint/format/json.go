package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// JSON is a compiled json_format: an object whose strings are text formats. A string
// that is one command alone keeps the command's type, and is null or left out where
// there is no value.
type JSON struct {
	root *node
	omit bool
}

// node is one of an object, a list, a format, or literal JSON.
type node struct {
	// name is the member's, with quotes and colon.
	name    string
	object  bool
	list    bool
	members []*node
	format  *Format
	literal string
	// null is a literal that counts as no value.
	null bool
}

// CompileJSON reads a json_format. With omit, members without a value are left out.
func CompileJSON(s *structpb.Struct, omit bool) (*JSON, error) {
	root, err := compileNode(structpb.NewStructValue(s))
	if err != nil {
		return nil, err
	}
	return &JSON{root: root, omit: omit}, nil
}

func compileNode(v *structpb.Value) (*node, error) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StructValue:
		n := &node{object: true}
		fields := k.StructValue.GetFields()
		names := make([]string, 0, len(fields))
		for name := range fields {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			sub, err := compileNode(fields[name])
			if err != nil {
				return nil, fmt.Errorf("%q: %w", name, err)
			}
			sub.name = string(append(appendQuoted(nil, name), ':'))
			n.members = append(n.members, sub)
		}
		return n, nil
	case *structpb.Value_ListValue:
		n := &node{list: true}
		for i, item := range k.ListValue.GetValues() {
			sub, err := compileNode(item)
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			n.members = append(n.members, sub)
		}
		return n, nil
	case *structpb.Value_StringValue:
		f, err := Compile(k.StringValue)
		if err != nil {
			return nil, err
		}
		if s, ok := f.Literal(); ok {
			return &node{literal: string(appendQuoted(nil, s))}, nil
		}
		return &node{format: f}, nil
	case *structpb.Value_NumberValue:
		return &node{literal: string(appendNumber(nil, k.NumberValue))}, nil
	case *structpb.Value_BoolValue:
		return &node{literal: strconv.FormatBool(k.BoolValue)}, nil
	default:
		return &node{literal: "null", null: true}, nil
	}
}

// Append appends the object for an exchange, without a line break.
func (f *JSON) Append(dst []byte, i *streaminfo.Info) []byte {
	dst, _ = f.root.append(dst, i, f.omit)
	return dst
}

// append reports whether there was a value; if not it appended null.
func (n *node) append(dst []byte, i *streaminfo.Info, omit bool) ([]byte, bool) {
	switch {
	case n.object, n.list:
		open, end := byte('{'), byte('}')
		if n.list {
			open, end = '[', ']'
		}
		dst = append(dst, open)
		first := len(dst)
		for _, m := range n.members {
			at := len(dst)
			if at > first {
				dst = append(dst, ',')
			}
			dst = append(dst, m.name...)
			var ok bool
			if dst, ok = m.append(dst, i, omit); !ok && omit {
				dst = dst[:at]
			}
		}
		// With omit, an object or list that is left with nothing counts as no value.
		return append(dst, end), !omit || len(dst) > first
	case n.format == nil:
		return append(dst, n.literal...), !n.null
	case len(n.format.terms) == 1:
		return n.format.terms[0].json(dst, i)
	}
	return n.mixed(dst, i, omit), true
}

// mixed appends several terms as one string.
func (n *node) mixed(dst []byte, i *streaminfo.Info, omit bool) []byte {
	dst = append(dst, '"')
	for x := range n.format.terms {
		t := &n.format.terms[x]
		from := len(dst)
		if t.value == nil {
			dst = append(dst, t.literal...)
		} else {
			var ok bool
			if dst, ok = t.append(dst, i); !ok && !omit {
				dst = append(dst, '-')
			}
		}
		dst = escapeFrom(dst, from)
	}
	return append(dst, '"')
}

// json appends one command's value with its type, or null.
func (t *term) json(dst []byte, i *streaminfo.Info) ([]byte, bool) {
	at := len(dst)
	switch t.kind {
	case text:
		dst = append(dst, '"')
		var ok bool
		if dst, ok = t.append(dst, i); ok {
			return append(escapeFrom(dst, at+1), '"'), true
		}
	case number:
		var ok bool
		if dst, ok = t.append(dst, i); ok {
			return dst, true
		}
	case raw:
		var ok bool
		if dst, ok = t.value(dst, i); ok {
			return dst, true
		}
	}
	return append(dst[:at], "null"...), false
}

// appendJSON appends metadata as JSON.
func appendJSON(dst []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return appendQuoted(dst, v)
	case float64:
		return appendNumber(dst, v)
	case bool:
		return strconv.AppendBool(dst, v)
	case nil:
		return append(dst, "null"...)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return append(dst, "null"...)
	}
	return append(dst, b...)
}

// unquote makes a JSON string at dst[at:] bare; other JSON stays.
func unquote(dst []byte, at int) []byte {
	if at == len(dst) || dst[at] != '"' {
		return dst
	}
	if bytes.IndexByte(dst[at:], '\\') >= 0 {
		var s string
		if err := json.Unmarshal(dst[at:], &s); err == nil {
			return append(dst[:at], s...)
		}
	}
	return append(dst[:at], dst[at+1:len(dst)-1]...)
}

func appendNumber(dst []byte, f float64) []byte {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.AppendInt(dst, int64(f), 10)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := len(dst)
	dst = append(dst, s...)
	return append(escapeFrom(dst, from), '"')
}

const hexDigits = "0123456789abcdef"

// escapeFrom escapes dst[from:] for a JSON string. If it is not UTF-8, each of its
// bytes is taken for a code point, as Envoy does it.
func escapeFrom(dst []byte, from int) []byte {
	clean := true
	for _, c := range dst[from:] {
		if c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return dst
	}
	s := string(dst[from:])
	dst = dst[:from]
	if !utf8.ValidString(s) {
		for _, c := range []byte(s) {
			if c >= 0x80 {
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			} else {
				dst = appendEscaped(dst, rune(c))
			}
		}
		return dst
	}
	for _, r := range s {
		dst = appendEscaped(dst, r)
	}
	return dst
}

func appendEscaped(dst []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r == '\n':
		return append(dst, '\\', 'n')
	case r == '\r':
		return append(dst, '\\', 'r')
	case r == '\t':
		return append(dst, '\\', 't')
	case r < 0x20:
		return append(dst, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
	}
	return utf8.AppendRune(dst, r)
}
