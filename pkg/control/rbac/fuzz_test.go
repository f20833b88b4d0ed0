package rbac

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// FuzzPolicies holds that whatever source lets through becomes filters that a
// proxy takes: one that it does not would stop every service of the waypoint.
func FuzzPolicies(f *testing.F) {
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
	f.Fuzz(func(t *testing.T, text []byte) {
		out, err := translate.Translate(source.Parse([]source.File{{Name: "in.yaml", Data: text}}, nil), translate.Options{ClusterID: "c1"})
		if err != nil {
			t.Fatal(err)
		}
		p := New(out.Model, NewLayer4(out.Policies, out.Addresses))
		for _, w := range out.Model.Waypoints {
			for _, s := range append([]*model.Service{nil}, w.Services...) {
				ports := []model.Port{{Protocol: model.Unsupported}}
				if s != nil {
					ports = s.Ports
				}
				for i := range ports {
					httpFilters(t, p, w, s, &ports[i])
					networkFilters(t, p, w, s, &ports[i])
				}
			}
		}
		p.Status()
	})
}
