// Package document is documents in JSON (what proxies answer about themselves, objects as
// they are written): walked by paths, and written in the formats that istioctl has.
//
// For pkg/cli's analyze, proxyconfig, ztunnelconfig and validate, and cmd/fairlead.
package document

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"sigs.k8s.io/yaml"
)

// The formats: a table, and the data themselves.
const (
	Short = "short"
	JSON  = "json"
	YAML  = "yaml"
)

// CheckFormat refuses what is no format.
func CheckFormat(format string) error {
	switch format {
	case Short, JSON, YAML:
		return nil
	}
	return fmt.Errorf("output format %q not supported: one of %s|%s|%s", format, JSON, YAML, Short)
}

// Write writes v as JSON, indented as istioctl does, or as YAML.
func Write(out io.Writer, format string, v any) error {
	raw, err := json.MarshalIndent(v, "", "    ")
	if err == nil && format == YAML {
		raw, err = yaml.JSONToYAML(raw)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, string(bytes.TrimRight(raw, "\n")))
	return err
}

// Value is an object of JSON; what is written as JSON again has all that was in it.
type Value = map[string]any

// At goes down a path; nil where it ends early.
func At(v any, path ...string) any {
	for _, step := range path {
		m, _ := v.(Value)
		v = m[step]
	}
	return v
}

// Text is the string at a path, or "".
func Text(v any, path ...string) string { s, _ := At(v, path...).(string); return s }

// List is the list at a path, or nil.
func List(v any, path ...string) []any { l, _ := At(v, path...).([]any); return l }

// Texts are the strings in the list at a path.
func Texts(v any, path ...string) (out []string) {
	for _, e := range List(v, path...) {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}
