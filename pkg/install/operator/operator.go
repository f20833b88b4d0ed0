// Package operator reads what an installation is asked for: IstioOperator files as Istio's
// installer takes them, files of the chart's values, and --set. What has a meaning here
// becomes values of the chart, what has none is said plainly, and what is wrong is refused
// with file, line and what was probably meant.
//
// For pkg/install.
package operator

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v4/pkg/strvals"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
)

// Request is what was asked for.
type Request struct {
	// Profile is empty where none was named.
	Profile string
	// Values are those of the chart that the request sets.
	Values map[string]any
	// Notes say what has no effect here, and why.
	Notes []Note

	origins map[string]origin // by path of the chart
}

// Note is about a field that has no effect here.
type Note struct {
	File    string // or "--set"
	Line    int    // 0 for --set
	Field   string
	Message string
}

// String is "file:line: field: message".
func (n Note) String() string {
	field := n.Field
	if field != "" {
		field += ": "
	}
	return place(n.File, n.Line) + field + n.Message
}

// Error is one thing wrong with a request.
type Error Note

// String is "file:line: field: message".
func (e Error) String() string { return Note(e).String() }

// Errors are all that is wrong with a request, in the order of files and lines.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

func place(file string, line int) string {
	switch {
	case file == "":
		return ""
	case line == 0:
		return file + " "
	}
	return fmt.Sprintf("%s:%d: ", file, line)
}

// origin is where a value of the chart was written.
type origin struct {
	file  string
	line  int
	field string
}

// Set is the file name of what came by --set.
const Set = "--set"

// Read reads files and then sets, later ones over earlier ones. The error is [Errors].
func Read(files []source.File, sets []string) (*Request, error) {
	r := &reader{request: &Request{Values: map[string]any{}, origins: map[string]origin{}}}
	for _, f := range files {
		r.file = f.Name
		trees, problems := source.Trees(f)
		for _, p := range problems {
			r.fail(p.Line, "", "%s", p.Message)
		}
		for _, tree := range trees {
			r.document(tree)
		}
	}
	r.file = Set
	for _, set := range sets {
		values, err := strvals.Parse(set)
		if err != nil {
			r.fail(0, set, "want path=value: %v", err)
			continue
		}
		if !strings.Contains(set, "=") {
			r.fail(0, set, "want path=value")
			continue
		}
		var tree yaml.Node
		if err := tree.Encode(values); err != nil {
			r.fail(0, set, "%v", err)
			continue
		}
		r.walk(&tree, rule{fields: spec()}, "")
	}
	if len(r.errs) > 0 {
		return nil, r.errs
	}
	return r.request, nil
}

// Tag is the tag of images that a request asks for; a nil request asks for none.
func (r *Request) Tag() (string, bool) {
	if r == nil {
		return "", false
	}
	tag, ok := r.Values["tag"].(string)
	return tag, ok && tag != ""
}

// Over lays a request over an earlier one: what it says goes before, the rest stays.
func (r *Request) Over(earlier *Request) {
	if r.Profile == "" {
		r.Profile = earlier.Profile
	}
	r.Values = merged(earlier.Values, r.Values)
}

// Locate finds where the values were written that the chart does not take.
func (r *Request) Locate(err error) error {
	wrong := chart.ValueErrors(nil)
	if !errors.As(err, &wrong) {
		return err
	}
	var out Errors
	for _, w := range wrong {
		e := Error{Field: w.Path, Message: w.Message}
		for path := w.Path; path != ""; {
			if o, ok := r.origins[path]; ok {
				e.File, e.Line, e.Field = o.file, o.line, o.field+strings.TrimPrefix(w.Path, path)
				break
			}
			path = path[:max(0, strings.LastIndex(path, "."))]
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b Error) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return out
}
