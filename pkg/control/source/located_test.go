package source

import "testing"

func TestDocuments(t *testing.T) {
	all := Documents(File{"a.yaml", []byte(`# a comment
apiVersion: v1
kind: List
items:
- apiVersion: networking.istio.io/v1
  kind: Sidecar
  metadata: {name: s}
  spec:
    egress:
    - hosts:
      - a/b
      - c/d
---
a: b: c
---
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec: {profile: default}
`)})
	if len(all) != 2 {
		t.Fatalf("%d documents", len(all))
	}
	side, operator := all[0], all[1]
	if side.Ref != (Ref{groupNetworking, "Sidecar", "default", "s"}) || side.Position != (Position{"a.yaml", 5}) {
		t.Errorf("%+v", side)
	}
	for field, want := range map[string]int{"spec.egress[0].hosts[1]": 12, "spec.egress[0].port": 10, "metadata.name": 7, "nothing": 5} {
		if got := side.Line(field); got != want {
			t.Errorf("%s is in line %d, not %d", field, got, want)
		}
	}
	if spec, _ := operator.Value()["spec"].(map[string]any); operator.Ref.Namespace != "" || spec["profile"] != "default" {
		t.Errorf("%+v", operator)
	}
	o := Parse([]File{{"a.yaml", []byte("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {}\n")}}, nil)
	if len(o.Problems) != 1 || !o.Problems[0].NotServed || o.Problems[0].Severity != Warning {
		t.Errorf("%q", lines(o))
	}
}
