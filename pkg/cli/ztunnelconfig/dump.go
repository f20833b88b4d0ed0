// Package ztunnelconfig shows what a node agent knows and does, in the tables and the
// JSON of `istioctl ztunnel-config`: our agent's dump, Istio's ztunnel's, or a file.
//
// For cmd/fairlead and tests.
package ztunnelconfig

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"sigs.k8s.io/yaml"
)

// The formats.
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

// value is an object of JSON; what is written as JSON again has all that was in it.
type value = map[string]any

// Dump is a node agent's.
type Dump struct {
	Workloads     []value          `json:"workloads"`
	Services      []value          `json:"services"`
	Policies      []value          `json:"policies"`
	Certificates  []value          `json:"certificates"`
	WorkloadState map[string]value `json:"workloadState"`

	whole value
}

// Read decodes what an agent's /config_dump answers.
func Read(raw []byte) (*Dump, error) {
	d := &Dump{}
	if err := json.Unmarshal(raw, d); err != nil {
		return nil, fmt.Errorf("this is not a node agent's dump: %w", err)
	}
	if err := json.Unmarshal(raw, &d.whole); err != nil {
		return nil, fmt.Errorf("this is not a node agent's dump: %w", err)
	}
	if d.whole["workloads"] == nil {
		return nil, errors.New("this is not a node agent's dump: it has no workloads")
	}
	byName := func(a, b value) int {
		return cmp.Or(strings.Compare(str(a, "namespace"), str(b, "namespace")), strings.Compare(str(a, "name"), str(b, "name")),
			strings.Compare(str(a, "hostname"), str(b, "hostname")), strings.Compare(str(a, "node"), str(b, "node")))
	}
	slices.SortStableFunc(d.Workloads, byName)
	slices.SortStableFunc(d.Services, byName)
	slices.SortStableFunc(d.Policies, byName)
	return d, nil
}

func at(v any, path ...string) any {
	for _, step := range path {
		m, _ := v.(value)
		v = m[step]
	}
	return v
}

func str(v any, path ...string) string { s, _ := at(v, path...).(string); return s }

func list(v any, path ...string) []any { l, _ := at(v, path...).([]any); return l }

func texts(v any, path ...string) (out []string) {
	for _, e := range list(v, path...) {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func table(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 8, 1, ' ', 0) }

func document(out io.Writer, format string, v any) error {
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

// Whole writes all there is: as JSON or YAML the dump, else the tables one after the other.
func (d *Dump) Whole(out io.Writer, format string, sections ...func() error) error {
	if format != Short {
		return document(out, format, d.whole)
	}
	for i, section := range sections {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := section(); err != nil {
			return err
		}
	}
	return nil
}
