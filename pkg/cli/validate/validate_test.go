package validate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

func check(text string) Result {
	return Files([]source.File{{Name: "a.yaml", Data: []byte(text)}}, nil)
}

func TestWhatIsPrinted(t *testing.T) {
	const good = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [a]
  http:
  - route: [{destination: {host: a}}]
    fault:
      abort:
        percentage:
          value: 0.1
        httpStatus: 500
`
	for _, tc := range []struct{ name, text, out, errs string }{
		{"valid, and percentages in words", good,
			"a.yaml:12: note: VirtualService default/v: spec.http[0].fault.abort.percentage.value: 0.1 % of requests are aborted, 1 in 1000\n\"a.yaml\" is valid\n", ""},
		{"an unknown field", strings.Replace(good, "hosts:", "host:", 1), "", `a.yaml:6: error: VirtualService default/v: spec.host: unknown field "host"; did you mean "hosts"?` + "\n"},
		{"what nothing serves is valid", "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s}\nspec: {egress: [{hosts: ['./*']}]}\n",
			"\"a.yaml\" has warnings\n", "a.yaml:1: warning: Sidecar default/s: this control plane does not serve Sidecar: it has no effect\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, errs strings.Builder
			r := check(tc.text)
			r.Write(&out, &errs)
			said := errs.String()
			if i := strings.Index(said, "\n"); i >= 0 {
				said = said[:i+1]
			}
			if !strings.HasSuffix(out.String(), tc.out) || said != tc.errs {
				t.Errorf("out: %s\nerr: %s", out.String(), errs.String())
			}
			if (r.Err() != nil) != strings.Contains(tc.errs, "error:") {
				t.Errorf("error: %v", r.Err())
			}
		})
	}
}

func TestInstallersFilesAreCheckedByTheInstaller(t *testing.T) {
	file := source.File{Name: "i.yaml", Data: []byte("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {profile: x}\n")}
	r := Files([]source.File{file}, func(f source.File) []source.Problem {
		return []source.Problem{{Position: source.Position{File: f.Name, Line: 3}, Severity: source.Error, Field: "spec.profile", Message: `no profile "x"`}}
	})
	if len(r.Errors) != 1 || len(r.Warnings) != 0 || r.Errors[0].Line != 3 {
		t.Errorf("%+v", r)
	}
}

// TestAsTheOracle holds that we refuse what Istio's webhook or the API server's schema
// refuses, and take what both take, but for what is listed with its reason.
func TestAsTheOracle(t *testing.T) {
	dir := "../../../../shared/oracle/validate"
	names, _ := filepath.Glob(dir + "/*.yaml")
	if len(names) == 0 {
		t.Skip("the recorded answers are not here")
	}
	stricter := map[string]string{}
	for _, name := range names {
		base := strings.TrimSuffix(name, ".yaml")
		webhook := read(t, base+".webhook.txt")
		schema := read(t, base+".apiserver.txt")
		text := read(t, name)
		refused := strings.HasPrefix(webhook, "allowed: false") || !strings.HasPrefix(schema, "accepted")
		r := check(text)
		if got := len(r.Errors) > 0; got != refused && stricter[filepath.Base(base)] == "" {
			t.Errorf("%s: we refuse: %v, Istio: %v\n%s%s\nours: %v", filepath.Base(base), got, refused, webhook, schema, r.Errors)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
