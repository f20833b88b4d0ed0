package analyze

import (
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// groupsOfMesh are those whose objects a cluster stores for the mesh; of other stored
// objects the API server knows more than we do.
var groupsOfMesh = []string{networking, security, telemetry, "extensions.istio.io", gatewayGroup}

// schema says what is wrong with objects by themselves.
func (w *world) schema() {
	for _, d := range w.twice {
		if w.again {
			break
		}
		other := w.byRef[d.Ref]
		w.reportAt(Error, SameObjectTwice, d, "", "%s:%d has an object of the same name: the one that is applied last replaces the other as a whole", other.File, other.Position.Line)
	}
	problems := w.objects.Problems
	if w.Installer != nil {
		for _, f := range w.Files {
			if slices.ContainsFunc(source.Documents(f), func(d source.Document) bool { return d.Ref.Group == source.GroupInstall }) {
				problems = append(problems, w.Installer(f)...)
			}
		}
	}
	for _, p := range problems {
		w.problem(p)
	}
}

func (w *world) problem(p source.Problem) {
	inCluster := strings.HasPrefix(p.File, stored)
	if inCluster && !slices.Contains(groupsOfMesh, p.Ref.Group) && p.Ref.Kind != "ConfigMap" {
		return
	}
	if slices.ContainsFunc(w.twice, func(d *manifest) bool { return d.Position == p.Position && d.Ref == p.Ref }) && p.Field == "" {
		return // said already
	}
	text := p.Message
	if p.Field != "" {
		text = p.Field + ": " + text
	}
	m := Message{Level: Error, Code: SchemaValidationError, Ref: p.Ref, Position: p.Position, Text: "Schema validation error: " + text}
	switch {
	case p.NotServed && p.Ref.Group == source.GroupInstall:
		return
	case p.NotServed:
		m.Level, m.Code, m.Text = Warning, NotServed, text
	case strings.HasPrefix(p.Message, "is never reached"):
		m.Level, m.Code, m.Text = Warning, UnreachableRule, "VirtualService rule "+p.Field+" not used ("+p.Message+")."
	case strings.HasPrefix(p.Message, "takes the place of the rule's"):
		m.Level, m.Code, m.Text = Warning, SubsetReplacesPolicy, text
	case p.Severity == source.Warning:
		m.Level, m.Code, m.Text = Warning, SchemaWarning, "Schema validation warning: "+text
	}
	if inCluster {
		m.Position = source.Position{}
	}
	w.found = append(w.found, m)
}
