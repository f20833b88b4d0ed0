package oracle

import (
	"fmt"
	"reflect"
	"slices"
)

// difference is one field that is not the same.
type difference struct {
	name, resource, path string
	want, got            any // nil: not there
}

func (d difference) String() string {
	return fmt.Sprintf("%s: %s: %s: istiod has %v, we have %v", d.name, d.resource, d.path, d.want, d.got)
}

// comparison walks two trees of JSON and counts.
type comparison struct {
	name        string
	fields      int
	differences []difference
}

// resources compares two sets of resources by name. A resource that one side
// lacks is a difference with an empty path.
func (c *comparison) resources(want, got map[string]any) {
	for _, name := range keys(want, got) {
		w, inWant := want[name]
		g, inGot := got[name]
		if !inWant || !inGot {
			c.fields++
			c.differences = append(c.differences, difference{c.name, name, "", w, g})
			continue
		}
		c.value(name, "", w, g)
	}
}

func (c *comparison) value(resource, path string, want, got any) {
	switch w := want.(type) {
	case map[string]any:
		if g, ok := got.(map[string]any); ok {
			for _, k := range keys(w, g) {
				at := k
				if path != "" {
					at = path + "." + k
				}
				c.value(resource, at, w[k], g[k])
			}
			if len(w) == 0 && len(g) == 0 {
				c.fields++ // {} is a value too: a rule without clauses
			}
			return
		}
	case []any:
		if g, ok := got.([]any); ok && len(g) == len(w) {
			for i := range w {
				c.value(resource, fmt.Sprintf("%s[%d]", path, i), w[i], g[i])
			}
			return
		}
	}
	c.fields++
	if !reflect.DeepEqual(want, got) {
		c.differences = append(c.differences, difference{c.name, resource, path, want, got})
	}
}

func keys(a, b map[string]any) []string {
	var all []string
	for k := range a {
		all = append(all, k)
	}
	for k := range b {
		if _, both := a[k]; !both {
			all = append(all, k)
		}
	}
	slices.Sort(all)
	return all
}
