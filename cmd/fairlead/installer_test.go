package main

import (
	"os"
	"strings"
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

func TestFlagsMayStandBeforeTheCommand(t *testing.T) {
	for given, want := range map[string]string{
		"-n shop proxy-status":                      "proxy-status -n shop",
		"--namespace=shop -i mesh pc routes web":    "pc --namespace=shop -i mesh routes web",
		"proxy-status -n shop":                      "proxy-status -n shop",
		"--help":                                    "--help",
		"-n shop":                                   "-n shop",
		"lab exec client -- curl -s":                "lab exec client -- curl -s",
		"--context c analyze -A --use-kube=false a": "analyze --context c -A --use-kube=false a",
	} {
		if got := strings.Join(commandFirst(strings.Fields(given)), " "); got != want {
			t.Errorf("%s: %s, want %s", given, got, want)
		}
	}
}
