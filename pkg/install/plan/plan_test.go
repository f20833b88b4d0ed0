package plan

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func with(pairs ...any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"kind": "Service", "apiVersion": "v1", "metadata": map[string]any{"name": "s"}}}
	for i := 0; i < len(pairs); i += 2 {
		_ = unstructured.SetNestedField(o.Object, pairs[i+1], pairs[i].([]string)...)
	}
	return o
}

// What the API server keeps of an object is no change of it; all else is, by field.
func TestDifferences(t *testing.T) {
	base := with([]string{"spec", "type"}, "ClusterIP")
	for _, c := range []struct {
		name  string
		after *unstructured.Unstructured
		want  []string
	}{
		{"nothing", base, nil},
		{"bookkeeping", with([]string{"spec", "type"}, "ClusterIP", []string{"metadata", "generation"}, int64(3), []string{"status", "x"}, "y"), nil},
		{"a value", with([]string{"spec", "type"}, "NodePort"), []string{"spec.type"}},
		{"a field that comes", with([]string{"spec", "type"}, "ClusterIP", []string{"spec", "ports"}, "p"), []string{"spec.ports"}},
		{"a field that goes", with(), []string{"spec"}},
		{"many", with([]string{"spec", "a"}, "1", []string{"spec", "b"}, "1", []string{"spec", "c"}, "1", []string{"spec", "d"}, "1"), []string{"spec.a", "spec.b", "spec.c", "spec.d", "..."}},
	} {
		if got := differences(base, c.after); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// What was installed and is not rendered any more goes; the rest is left to its steps.
func TestPrune(t *testing.T) {
	kept, gone := with(), with([]string{"metadata", "name"}, "old")
	p := Plan{{Object: kept, Action: Keep}}.Prune([]*unstructured.Unstructured{kept, gone})
	if len(p) != 2 || p[1].Action != Delete || p[1].Object != gone || !p.Changes() {
		t.Errorf("%v", p)
	}
	if (Plan{{Object: kept, Action: Keep}, {Object: kept, Action: Leave}}).Changes() {
		t.Error("what is kept and left is a change")
	}
}
