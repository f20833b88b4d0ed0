package chart

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/fairlead-mesh/fairlead/deploy"
	"github.com/fairlead-mesh/fairlead/pkg/suggest"
)

// ValueError is a value that the chart does not take.
type ValueError struct {
	Path    string // as controlPlane.replicas; empty where no one value is wrong
	Message string
}

// ValueErrors are all that is wrong with a release's values.
type ValueErrors []ValueError

func (e ValueErrors) Error() string {
	var lines []string
	for _, one := range e {
		lines = append(lines, strings.TrimPrefix(one.Path+": "+one.Message, ": "))
	}
	return strings.Join(lines, "\n")
}

var schema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	text, err := deploy.Chart.ReadFile(root + "/values.schema.json")
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("values.schema.json", doc); err != nil {
		return nil, err
	}
	return c.Compile("values.schema.json")
})

// check holds values against values.schema.json.
func check(values map[string]any) error {
	s, err := schema()
	if err != nil {
		return err
	}
	err = s.Validate(values)
	wrong := (*jsonschema.ValidationError)(nil)
	if !errors.As(err, &wrong) {
		return err
	}
	var out ValueErrors
	leaves(wrong, s, &out)
	slices.SortFunc(out, func(a, b ValueError) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// leaves are the errors at the ends of the tree, in words.
func leaves(e *jsonschema.ValidationError, s *jsonschema.Schema, out *ValueErrors) {
	if len(e.Causes) > 0 {
		for _, cause := range e.Causes {
			leaves(cause, s, out)
		}
		return
	}
	at := e.InstanceLocation
	add := func(path []string, format string, args ...any) {
		*out = append(*out, ValueError{Path: strings.Join(path, "."), Message: fmt.Sprintf(format, args...)})
	}
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			add(append(slices.Clone(at), name), "no such value%s", suggest.DidYouMean(name, Keys(at)))
		}
	case *kind.Enum:
		got := fmt.Sprint(k.Got)
		var want []string
		for _, w := range k.Want {
			want = append(want, fmt.Sprint(w))
		}
		add(at, "%q is not one of %s%s", got, strings.Join(want, ", "), suggest.DidYouMean(got, want))
	case *kind.Type:
		add(at, "%s is wanted, and this is %s", strings.Join(k.Want, " or "), k.Got)
	case *kind.Pattern:
		add(at, "%q does not match %s", k.Got, k.Want)
	case *kind.Minimum:
		got, _ := k.Got.Float64()
		want, _ := k.Want.Float64()
		add(at, "%v is less than %v", got, want)
	case *kind.Maximum:
		got, _ := k.Got.Float64()
		want, _ := k.Want.Float64()
		add(at, "%v is more than %v", got, want)
	default:
		add(at, "%s", e.Error())
	}
}

// typed holds objects of Kubernetes' own kinds against their types: what the schema leaves
// open, such as affinities and quantities, is checked by those before a cluster sees it.
func typed(objects []*unstructured.Unstructured) error {
	var out ValueErrors
	for _, o := range objects {
		into, err := scheme.Scheme.New(o.GroupVersionKind())
		if err != nil {
			continue // a kind that is defined in the cluster
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, into, true); err != nil {
			said := strings.TrimPrefix(err.Error(), "strict decoding error: ")
			out = append(out, ValueError{Message: fmt.Sprintf("the values make no right %s %s: %s", o.GetKind(), o.GetName(), said)})
		}
	}
	if len(out) > 0 {
		return out
	}
	return nil
}

// Keys are the names of values below a path, as far as the schema closes them.
func Keys(path []string) []string {
	s, err := schema()
	if err != nil {
		return nil
	}
	for _, p := range path {
		if s = s.Properties[p]; s == nil {
			return nil
		}
	}
	keys := make([]string, 0, len(s.Properties))
	for k := range s.Properties {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
