package analyze

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

var recorded = regexp.MustCompile(`^(?:Error|Warning|Info) \[(IST\d+)\] \((\S+ \S+?)(?: in\.yaml:(\d+))?\)`)

// differs are recorded messages that ours are not, with the reason.
var differs = map[string]string{
	"IST0102":                              "a namespace without injection is a namespace that is not in the mesh: nothing is wrong with it",
	"IST0133":                              "the schema's warnings of Istio are about its own proxies",
	"IST0162":                              "gateways are not served",
	"IST0167":                              "a Sidecar that has no effect is reported as a kind that is not served",
	"IST0134":                              "addresses are allocated to hosts without one",
	"IST0106 EnvoyFilter default/e":        "a patch's value is read where its filter's type is known",
	"IST0132 VirtualService default/nogw":  "the gateway is missing, and that is said",
	"IST0171 Service default/bad-waypoint": "the recorded answer read a status that istiod had written",
}

// TestAsIstioctl compares codes and objects with what istioctl said of wrong inputs on
// a live cluster.
func TestAsIstioctl(t *testing.T) {
	const dir = "../../../../shared/oracle/"
	names, _ := filepath.Glob(dir + "analyze/*.yaml")
	if len(names) == 0 {
		t.Skip("the recorded answers are not here")
	}
	base := objects(t, dir+"base.yaml")
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			found, err := Run(Input{Files: []source.File{{Name: "in.yaml", Data: text}}, Stored: base, Whole: true})
			if err != nil {
				t.Fatal(err)
			}
			said, err := os.ReadFile(strings.TrimSuffix(name, ".yaml") + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.SplitSeq(string(said), "\n") {
				m := recorded.FindStringSubmatch(line)
				if m == nil || differs[m[1]] != "" || differs[m[1]+" "+m[2]] != "" {
					continue
				}
				if !slices.ContainsFunc(found, func(f Message) bool { return string(f.Code) == m[1] && f.Ref.String() == m[2] }) {
					t.Errorf("istioctl says, and we do not: %s", line)
				}
			}
			if t.Failed() {
				for _, f := range found {
					t.Log(f)
				}
			}
		})
	}
}

// objects are a file's, one text each.
func objects(t *testing.T, name string) (out []source.File) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for one := range strings.SplitSeq(string(text), "\n---") {
		if len(source.Documents(source.File{Name: "x", Data: []byte(one)})) == 1 {
			out = append(out, source.File{Data: []byte(one)})
		}
	}
	return out
}
