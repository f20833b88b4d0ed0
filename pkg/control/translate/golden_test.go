package translate

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	securityapi "github.com/fairlead-mesh/fairlead/api/security"
	"github.com/fairlead-mesh/fairlead/pkg/control/golden"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// TestGolden compares testdata/x.in.yaml, translated, with testdata/x.out.yaml.
func TestGolden(t *testing.T) {
	golden.Run(t, func(t *testing.T, _ string, in []byte) []byte { return render(t, run(t, in)) })
}

func run(t *testing.T, text []byte) Output {
	t.Helper()
	out, err := Translate(source.Parse([]source.File{{Name: "in.yaml", Data: text}}, nil), Options{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	checkOutput(t, out)
	return out
}

// checkOutput holds what must be true of every output.
func checkOutput(t *testing.T, out Output) {
	t.Helper()
	var names, policies []string
	for _, a := range out.Addresses {
		names = append(names, AddressName(a))
	}
	for _, p := range out.Policies {
		policies = append(policies, PolicyName(p))
		for _, g := range p.Groups {
			for _, r := range g.Rules {
				if len(r.Matches) == 0 {
					t.Errorf("%s has a clause without matches", PolicyName(p))
				}
				for _, m := range r.Matches {
					if proto.Equal(m, &securityapi.Match{}) {
						t.Errorf("%s has an empty match, which never matches", PolicyName(p))
					}
				}
			}
		}
	}
	for _, list := range [][]string{names, policies} {
		if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) || slices.Contains(list, "") {
			t.Errorf("names are not sorted, unique and set: %q", list)
		}
	}
	for _, a := range out.Addresses {
		for _, key := range a.GetWorkload().GetAuthorizationPolicies() {
			if !slices.Contains(policies, key) {
				t.Errorf("%s names policy %s, which is not sent", AddressName(a), key)
			}
		}
		for key := range a.GetWorkload().GetServices() {
			if !slices.Contains(names, key) {
				t.Errorf("%s is in service %s, which is not sent", AddressName(a), key)
			}
		}
	}
}

func render(t *testing.T, out Output) []byte {
	t.Helper()
	view := map[string]any{"denied": out.Denied, "model": renderModel(out.Model)}
	put := func(list string, m proto.Message) {
		all, _ := view[list].([]any)
		view[list] = append(all, golden.Tree(t, m))
	}
	for _, a := range out.Addresses {
		put("addresses", a)
	}
	for _, p := range out.Policies {
		put("policies", p)
	}
	status := map[string]any{}
	for _, s := range out.Status {
		said := map[string]any{}
		for _, c := range s.Conditions {
			said[c.Type] = c.Status + " " + c.Reason + ": " + c.Message
		}
		if len(s.Addresses) > 0 {
			said["addresses"] = s.Addresses
		}
		status[s.Object.Kind+" "+s.Object.Namespace+"/"+s.Object.Name] = said
	}
	view["status"] = status
	text, err := yaml.Marshal(view)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestOptionsAreChecked(t *testing.T) {
	if _, err := Translate(source.Parse(nil, nil), Options{}); err == nil {
		t.Error("no cluster id was accepted")
	}
}

// FuzzTranslate holds that whatever source lets through can be translated, and
// that no policy comes out that fails open.
func FuzzTranslate(f *testing.F) {
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
	f.Fuzz(func(t *testing.T, text []byte) { run(t, text) })
}
