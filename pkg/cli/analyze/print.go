package analyze

import (
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Formats are those of [Print].
var Formats = []string{"log", "json", "yaml"}

// Print writes messages as istioctl does. Colour marks warnings and errors in the log.
func Print(out io.Writer, all []Message, format string, color bool) error {
	switch format {
	case "log":
		for _, m := range all {
			line := m.String()
			if prefix := colors[m.Level]; color && prefix != "" {
				line = prefix + m.Level.String() + "\033[0m" + strings.TrimPrefix(line, m.Level.String())
			}
			fmt.Fprintln(out, line)
		}
		return nil
	case "json", "yaml":
	default:
		return fmt.Errorf("%s not a valid option for format: want one of %v", format, Formats)
	}
	list := make([]map[string]any, 0, len(all))
	for _, m := range all {
		one := map[string]any{"code": string(m.Code), "documentationUrl": m.URL(), "level": m.Level.String(), "message": m.Text, "origin": m.Ref.String()}
		if m.Position.File != "" {
			one["reference"] = m.Position.String()
		}
		list = append(list, one)
	}
	text, err := json.MarshalIndent(list, "", "\t")
	if err == nil && format == "yaml" {
		text, err = yaml.JSONToYAML(text)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, strings.TrimSuffix(string(text), "\n"))
	return err
}

var colors = map[Level]string{Warning: "\033[33m", Error: "\033[1;31m"}

// Suppression silences a code for objects: "IST0102=DestinationRule primary-dr.default".
type Suppression struct{ code, kind, name string }

// NewSuppression reads one as it is written; the name may hold "*".
func NewSuppression(text string) (Suppression, error) {
	code, object, ok := strings.Cut(text, "=")
	kind, name, ok2 := strings.Cut(object, " ")
	if !ok || !ok2 && object != "*" {
		return Suppression{}, fmt.Errorf("%s is not a valid suppression value: want CODE=KIND NAME.NAMESPACE", text)
	}
	return Suppression{code, kind, name}, nil
}

func (s Suppression) covers(m Message) bool {
	if s.code != string(m.Code) || s.kind != "*" && s.kind != m.Ref.Kind {
		return false
	}
	name := m.Ref.Name
	if m.Ref.Namespace != "" {
		name += "." + m.Ref.Namespace
	}
	ok, err := path.Match(s.name, name)
	return s.kind == "*" || ok && err == nil
}

// Filter keeps what is about a namespace, or about all with "", and is not suppressed.
func Filter(all []Message, namespace string, suppressed []Suppression) []Message {
	return slices.DeleteFunc(slices.Clone(all), func(m Message) bool {
		elsewhere := namespace != "" && m.Ref.Namespace != "" && m.Ref.Namespace != namespace
		if m.Ref.Kind == "Namespace" && namespace != "" && m.Ref.Name != namespace {
			elsewhere = true
		}
		return elsewhere || slices.ContainsFunc(suppressed, func(s Suppression) bool { return s.covers(m) })
	})
}

// AtLeast are the messages that are as bad as a level, or worse.
func AtLeast(all []Message, level Level) []Message {
	return slices.DeleteFunc(slices.Clone(all), func(m Message) bool { return m.Level < level })
}
