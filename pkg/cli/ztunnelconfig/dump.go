// Package ztunnelconfig shows what a node agent knows and does, in the tables and the
// JSON of `istioctl ztunnel-config`: our agent's dump, Istio's ztunnel's, or a file.
//
// For cmd/fairlead and tests.
package ztunnelconfig

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

type value = document.Value

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
		return cmp.Or(strings.Compare(document.Text(a, "namespace"), document.Text(b, "namespace")), strings.Compare(document.Text(a, "name"), document.Text(b, "name")),
			strings.Compare(document.Text(a, "hostname"), document.Text(b, "hostname")), strings.Compare(document.Text(a, "node"), document.Text(b, "node")))
	}
	slices.SortStableFunc(d.Workloads, byName)
	slices.SortStableFunc(d.Services, byName)
	slices.SortStableFunc(d.Policies, byName)
	return d, nil
}

func table(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 8, 1, ' ', 0) }

// Whole writes all there is: as JSON or YAML the dump, else the tables one after the other.
func (d *Dump) Whole(out io.Writer, format string, sections ...func() error) error {
	if format != document.Short {
		return document.Write(out, format, d.whole)
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
