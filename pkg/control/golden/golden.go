// Package golden compares what a translation makes of files of YAML with what is
// committed beside them. It is for the tests of the packages under control alone.
package golden

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write testdata/*.out.yaml anew; read the difference before it is committed")

// Run renders each testdata/x.in.yaml and compares with testdata/x.out.yaml. The same
// input must give the same output.
func Run(t *testing.T, render func(t *testing.T, name string, in []byte) []byte) {
	t.Helper()
	if *update && os.Getenv("CI") != "" {
		t.Fatal("-update is for people: in CI the outputs are compared only")
	}
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no inputs in testdata: %v", err)
	}
	for _, in := range inputs {
		name := strings.TrimSuffix(filepath.Base(in), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			got := render(t, name, text)
			if again := render(t, name, text); !bytes.Equal(got, again) {
				t.Errorf("the same input gave another output:\n%s", cmp.Diff(string(got), string(again)))
			}
			compare(t, strings.TrimSuffix(in, ".in.yaml")+".out.yaml", got)
		})
	}
}

func compare(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got), `go test -update` writes it anew:\n%s", file, diff)
	}
}

// YAML is a view as text.
func YAML(t testing.TB, view any) []byte {
	t.Helper()
	out, err := yaml.Marshal(view)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Tree is a message as JSON decodes it.
func Tree(t testing.TB, m proto.Message) any {
	t.Helper()
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
