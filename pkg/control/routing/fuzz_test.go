package routing

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// FuzzRoutes holds that whatever source lets through is translated into routes
// that Envoy takes, and that what is the same is translated the same from before.
func FuzzRoutes(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, in := range inputs {
		text, err := os.ReadFile(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	around := base(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		out, err := translate.Translate(source.Parse([]source.File{{Name: "base.yaml", Data: around}, {Name: "in.yaml", Data: text}}, nil), translate.Options{ClusterID: "c1"})
		if err != nil {
			t.Fatal(err)
		}
		first := New(out.Model, nil)
		got := render(t, first)
		if again := render(t, New(out.Model, first)); string(again) != string(got) {
			t.Errorf("translated from before it differs:\n%s\n%s", got, again)
		}
	})
}
