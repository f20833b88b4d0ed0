package proxyconfig

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

type message = proto.Message

// write writes resources as istioctl does: a list, with the names that fields have in
// JSON, also where a resource holds a type that is not known here.
func write(out io.Writer, format string, all []value, of func() message) error {
	list := make([]json.RawMessage, 0, len(all))
	for _, v := range all {
		raw, err := inJSON(v, of())
		if err != nil {
			return err
		}
		list = append(list, raw)
	}
	return document.Write(out, format, list)
}

func inJSON(v value, as message) (json.RawMessage, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, as) == nil {
		if typed, err := protojson.Marshal(as); err == nil {
			return typed, nil
		}
	}
	renamed, _ := camel(v).(value)
	delete(renamed, "@type")
	return json.Marshal(renamed)
}

var snake = regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)+$`)

// camel gives fields the names that JSON has for them, where their types are not known.
func camel(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = camel(e)
		}
		return out
	case value:
		out := make(value, len(v))
		_, hidden := v["type_url"] // a TypedStruct, whose value is JSON of its own
		for k, e := range v {
			if k == "value" && hidden {
				out[k] = e
				continue
			}
			if snake.MatchString(k) {
				words := strings.Split(k, "_")
				for i, w := range words[1:] {
					words[i+1] = strings.ToUpper(w[:1]) + w[1:]
				}
				k = strings.Join(words, "")
			}
			out[k] = camel(e)
		}
		return out
	}
	return v
}

// Bootstrap writes what the proxy started with; short: who it is.
func (d *Dump) Bootstrap(out io.Writer, format string) error {
	var first value
	for _, s := range d.sections {
		if b, ok := document.At(s, "bootstrap").(value); ok {
			first = b
		}
	}
	if first == nil {
		return fmt.Errorf("the dump holds no bootstrap")
	}
	if format == document.Short {
		w := table(out, 5)
		fmt.Fprintln(w, "NODE\tCLUSTER\tVERSION")
		fmt.Fprintf(w, "%s\t%s\t%s\n", document.Text(first, "node", "id"), document.Text(first, "node", "cluster"), document.Text(first, "node", "metadata", "ISTIO_VERSION"))
		return w.Flush()
	}
	raw, err := inJSON(first, &bootstrapv3.Bootstrap{})
	if err != nil {
		return err
	}
	return document.Write(out, format, map[string]json.RawMessage{"bootstrap": raw})
}

// Whole writes the dump itself.
func (d *Dump) Whole(out io.Writer, format string) error {
	return document.Write(out, format, map[string]any{"configs": d.sections})
}
