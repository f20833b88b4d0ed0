package main

import (
	"os"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

func TestInstallersObjectsAreFoundAmongOthers(t *testing.T) {
	problems := checkInstaller(source.File{Name: "a.yaml", Data: []byte(`apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  meshConfig:
    trustDomian: a
---
apiVersion: v1
kind: Namespace
metadata: {name: b}
`)})
	if len(problems) != 1 || problems[0].Line != 9 || problems[0].File != "a.yaml" {
		t.Errorf("%v", problems)
	}
}

func TestSeedInstallation(t *testing.T) {
	const name = "../../../shared/seed/manifests/16-istiod-optimization.yaml"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Skip("the seed is not here")
	}
	problems := checkInstaller(source.File{Name: "16.yaml", Data: text})
	if len(problems) != 1 || problems[0].Line != 28 || problems[0].Field != "spec.values.pilot.enableEDSDebounce" {
		t.Errorf("%v", problems)
	}
}
