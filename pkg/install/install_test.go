package install

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
	"github.com/fairlead-mesh/fairlead/pkg/install/operator"
	"github.com/fairlead-mesh/fairlead/pkg/install/plan"
)

func build(t *testing.T, sets ...string) *Manifest {
	t.Helper()
	r, err := operator.Read(nil, sets)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Build(r, "v9")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Whatever is installed is found again: it has the label, and is of a kind that is looked for.
func TestEverythingIsFoundAgain(t *testing.T) {
	for _, profile := range chart.Profiles() {
		for _, o := range build(t, "profile="+profile, "remote.address=10.0.0.1").All() {
			gk := o.GroupVersionKind().GroupKind()
			if o.GetLabels()[plan.Label] == "" || !slices.Contains(kinds, gk) {
				t.Errorf("profile %s: %s would be left by an uninstall", profile, plan.Name(o))
			}
		}
	}
}

// Each part comes after what it needs: definitions before objects of their kinds, the
// control plane before the agents, which mount the roots that it publishes.
func TestOrder(t *testing.T) {
	at := map[string]int{}
	for i, o := range build(t).All() {
		at[o.GetKind()+"/"+o.GetName()] = i
	}
	order := []string{"Namespace/istio-system", "CustomResourceDefinition/gateways.gateway.networking.k8s.io", "GatewayClass/istio-waypoint", "Deployment/istiod",
		"ValidatingWebhookConfiguration/istio-validator-istio-system", "DaemonSet/ztunnel"}
	for i := range order[1:] {
		if at[order[i]] >= at[order[i+1]] {
			t.Errorf("%s does not come before %s", order[i], order[i+1])
		}
	}
}

// The manifest is for kubectl, and remembers what was asked for.
func TestWrite(t *testing.T) {
	var b bytes.Buffer
	if err := build(t, "profile=minimal", "controlPlane.replicas=3").Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kind: Namespace", "name: virtualservices.networking.istio.io", "replicas: 3", "profile: minimal", "image: ghcr.io/fairlead-mesh/fairlead/control-plane:v9"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the manifest has no %q", want)
		}
	}
}
