package install

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
	"github.com/fairlead-mesh/fairlead/pkg/install/operator"
	"github.com/fairlead-mesh/fairlead/pkg/install/plan"
)

// Manifest is all that an installation consists of.
type Manifest struct {
	Profile     string
	Namespace   *unstructured.Unstructured
	Definitions []*unstructured.Unstructured
	Objects     []*unstructured.Unstructured // with the record of the request
}

// phase is a time of an installation; each finds what the ones before have made.
type phase int

const (
	namespaces  phase = iota
	definitions       // of kinds
	base              // what pods mount and may do
	control           // the control plane, which publishes the roots that agents mount
	checks            // the webhook, which asks the control plane
	agents
	last // what goes
)

func phaseOf(o *unstructured.Unstructured) phase {
	switch o.GetKind() {
	case "Namespace":
		return namespaces
	case "CustomResourceDefinition":
		return definitions
	case "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget":
		return control
	case "ValidatingWebhookConfiguration":
		return checks
	case "DaemonSet":
		return agents
	}
	return base
}

// Build renders what a request asks for. What is wrong with it is told with its place.
func Build(r *operator.Request, version string) (*Manifest, error) {
	m := &Manifest{Profile: cmp.Or(r.Profile, chart.DefaultProfile)}
	objects, err := chart.Release{Profile: m.Profile, Values: r.Values, Version: version}.Render()
	if err != nil {
		return nil, r.Locate(err)
	}
	record, err := record(m.Profile, r.Values, version)
	if err != nil {
		return nil, err
	}
	m.Objects = append(objects, record)
	if m.Definitions, err = chart.Definitions(); err != nil {
		return nil, err
	}
	m.Namespace = object("v1", "Namespace", "", chart.Namespace)
	label(m.Namespace, "base")
	slices.SortStableFunc(m.Objects, func(a, b *unstructured.Unstructured) int { return int(phaseOf(a) - phaseOf(b)) })
	return m, nil
}

func object(version, kind, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(version)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

func label(o *unstructured.Unstructured, part string) {
	labels := o.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[plan.Label] = part
	o.SetLabels(labels)
}

// All is the manifest in the order in which it is made.
func (m *Manifest) All() []*unstructured.Unstructured {
	return slices.Concat([]*unstructured.Unstructured{m.Namespace}, m.Definitions, m.Objects)
}

// Write writes the manifest as YAML, as `kubectl apply -f -` takes it.
func (m *Manifest) Write(out io.Writer) error {
	var b bytes.Buffer
	for _, o := range m.All() {
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			return err
		}
		b.WriteString("---\n")
		b.Write(text)
	}
	_, err := out.Write(b.Bytes())
	return err
}

// show prints a plan: what is done in lines, and the rest counted.
func show(out io.Writer, p plan.Plan) {
	kinds := map[plan.Action]int{}
	for _, s := range p {
		if s.Object.GetKind() == "CustomResourceDefinition" {
			kinds[s.Action]++
			continue
		}
		switch s.Action {
		case plan.Create:
			fmt.Fprintf(out, "  + create %s\n", s)
		case plan.Change:
			fmt.Fprintf(out, "  ~ change %s%s\n", s, fields(s))
		case plan.Delete:
			fmt.Fprintf(out, "  - delete %s\n", s)
		case plan.Keep, plan.Leave:
		}
	}
	for _, line := range []struct {
		action plan.Action
		text   string
	}{
		{plan.Create, "  + create %d definitions of kinds\n"}, {plan.Change, "  ~ change %d definitions of kinds\n"}, {plan.Delete, "  - delete %d definitions of kinds, with all their objects\n"},
		{plan.Leave, "    leave %d definitions of kinds to who installed them\n"},
	} {
		if n := kinds[line.action]; n > 0 {
			fmt.Fprintf(out, line.text, n)
		}
	}
	fmt.Fprintf(out, "%d to create, %d to change, %d to delete, %d unchanged\n", p.Count(plan.Create), p.Count(plan.Change), p.Count(plan.Delete), p.Count(plan.Keep)+p.Count(plan.Leave))
}

func fields(s plan.Step) string {
	if len(s.Fields) == 0 {
		return ""
	}
	return " (" + strings.Join(s.Fields, ", ") + ")"
}
