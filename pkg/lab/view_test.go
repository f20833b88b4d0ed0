package lab

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestTheFormOfPSIsDocumented holds docs/lab.md to the fields that there are.
func TestTheFormOfPSIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/lab.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "## `lab ps -o json`")
	if !found {
		t.Fatal("docs/lab.md says nothing of `lab ps -o json`")
	}
	var walk func(reflect.Type)
	walk = func(s reflect.Type) {
		for i := range s.NumField() {
			f := s.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				t.Errorf("%s.%s has no name in JSON", s, f.Name)
			}
			if !strings.Contains(table, "`"+name+"`") && !strings.Contains(table, "."+name+"`") && !strings.Contains(table, "`"+name+"[]") && !strings.Contains(table, "."+name+"[]`") {
				t.Errorf("docs/lab.md says nothing of %s (%s.%s)", name, s.Name(), f.Name)
			}
			inner := f.Type
			for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				walk(inner)
			}
		}
	}
	walk(reflect.TypeFor[View]())
}
