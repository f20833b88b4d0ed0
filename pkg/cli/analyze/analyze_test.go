package analyze

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

func TestEveryCodeIsExplained(t *testing.T) {
	text, err := os.ReadFile("../../../docs/analyze.md")
	if err != nil {
		t.Fatal(err)
	}
	for n := 101; n <= 118; n++ {
		if code := fmt.Sprintf("FL%04d", n); strings.Count(string(text), `<a id="`+strings.ToLower(code)+`"></a>`+code+" |") != 1 {
			t.Errorf("docs/analyze.md does not explain %s", code)
		}
	}
}

// TestPrunedFields holds that a field that the API server has dropped is found by what
// kubectl applied, and no other.
func TestPrunedFields(t *testing.T) {
	stored := source.File{Data: []byte(`{"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry",
		"metadata": {"name": "m", "namespace": "shop", "annotations": {"kubectl.kubernetes.io/last-applied-configuration":
		"{\"apiVersion\":\"telemetry.istio.io/v1\",\"kind\":\"Telemetry\",\"metadata\":{\"name\":\"m\",\"namespace\":\"shop\"},\"spec\":{\"metrics\":[{\"overrides\":[{\"tag\":{\"a\":\"b\"}}]}]}}"}},
		"spec": {"metrics": [{"overrides": [{"disabled": true}]}]}}`)}
	found, err := Run(Input{Stored: []source.File{stored}})
	if err != nil || len(found) != 1 {
		t.Fatalf("%v %v", found, err)
	}
	m := found[0]
	if m.Code != PrunedFields || m.Level != Error || m.Origin() != "Telemetry shop/m" || !strings.Contains(m.Text, `spec.metrics[0].overrides[0].tag: unknown field "tag"; did you mean "tagOverrides"?`) {
		t.Errorf("%s", m)
	}
}

func TestNamespaces(t *testing.T) {
	files := []source.File{{Name: "a.yaml", Data: []byte(`
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "discoverySelectors: [{matchExpressions: [{key: mesh, operator: In, values: [a, b]}]}]"}
---
apiVersion: v1
kind: Namespace
metadata: {name: seen, labels: {mesh: a, istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Namespace
metadata: {name: hidden, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: Namespace
metadata: {name: old, labels: {istio-injection: enabled, mesh: b}}
`)}}
	found, err := Run(Input{Files: files}, "namespace")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range found {
		got = append(got, string(m.Code)+" "+m.Ref.Name)
	}
	if strings.Join(got, ",") != "FL0105 hidden,FL0104 old" {
		t.Errorf("%v", found)
	}
}

func TestFiltersAndFormats(t *testing.T) {
	all := []Message{
		{Error, "IST0101", source.Ref{Kind: "VirtualService", Namespace: "shop", Name: "v"}, source.Position{File: "a.yaml", Line: 7}, "Referenced host not found: \"a\""},
		{Info, "IST0118", source.Ref{Kind: "Service", Namespace: "other", Name: "web"}, source.Position{}, "Port name"},
		{Info, "FL0104", source.Ref{Kind: "Namespace", Name: "third"}, source.Position{}, "label"},
	}
	for _, c := range []struct {
		namespace, suppress string
		want                int
	}{{"", "", 3}, {"shop", "", 1}, {"third", "", 1}, {"", "IST0118=Service web.other", 2}, {"", "IST0118=Service *.other", 2}, {"", "IST0118=Service *.shop", 3}, {"", "IST0118=*", 2}} {
		var suppressed []Suppression
		if c.suppress != "" {
			s, err := NewSuppression(c.suppress)
			if err != nil {
				t.Fatal(err)
			}
			suppressed = append(suppressed, s)
		}
		if got := Filter(all, c.namespace, suppressed); len(got) != c.want {
			t.Errorf("-n %q -S %q: %v", c.namespace, c.suppress, got)
		}
	}
	if _, err := NewSuppression("IST0118"); err == nil {
		t.Error("a suppression without an object is taken")
	}
	for format, want := range map[string]string{
		"log":  "Error [IST0101] (VirtualService shop/v a.yaml:7) Referenced host not found: \"a\"\n",
		"json": `"reference": "a.yaml:7"`,
		"yaml": "origin: VirtualService shop/v",
	} {
		var out strings.Builder
		if err := Print(&out, all[:1], format, false); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s %v", format, out.String(), err)
		}
	}
	if err := Print(&strings.Builder{}, all, "xml", false); err == nil {
		t.Error("xml is written")
	}
}
