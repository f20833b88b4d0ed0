package plan

import (
	"maps"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// most is how many fields of a change are named.
const most = 4

// bookkeeping is what the API server keeps of an object, and no one wants.
var bookkeeping = [][]string{
	{"metadata", "managedFields"}, {"metadata", "resourceVersion"}, {"metadata", "generation"}, {"metadata", "creationTimestamp"}, {"metadata", "uid"}, {"status"},
	{"metadata", "annotations", "deprecated.daemonset.template.generation"},
}

// differences are the fields in which an object would be another.
func differences(before, after *unstructured.Unstructured) []string {
	a, b := before.DeepCopy(), after.DeepCopy()
	for _, path := range bookkeeping {
		unstructured.RemoveNestedField(a.Object, path...)
		unstructured.RemoveNestedField(b.Object, path...)
	}
	var out []string
	compare(a.Object, b.Object, "", &out)
	if len(out) > most {
		out = append(out[:most], "...")
	}
	return out
}

func compare(a, b any, path string, out *[]string) {
	if reflect.DeepEqual(a, b) {
		return
	}
	x, mapA := a.(map[string]any)
	y, mapB := b.(map[string]any)
	if !mapA || !mapB {
		*out = append(*out, path)
		return
	}
	keys := slices.Sorted(maps.Keys(x))
	for k := range y {
		if _, both := x[k]; !both {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		at := k
		if path != "" {
			at = path + "." + k
		}
		compare(x[k], y[k], at, out)
	}
}
