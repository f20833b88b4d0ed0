package translate

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

const routedWorld = `
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: n}, spec: {clusterIP: 10.96.0.1, selector: {app: a}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: n, labels: {app: a}}, status: {podIP: 10.0.0.1}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: n}, spec: {hosts: [s], http: [{route: [{destination: {host: s}}]}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: n}, spec: {hosts: [e.example.com], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}]}}
`

// Where only a route changed, the last output stands, with the new objects; any
// other change is translated.
func TestRoutesAloneAreNotTranslatedAgain(t *testing.T) {
	in := source.Parse([]source.File{{Name: "in.yaml", Data: []byte(routedWorld)}}, nil)
	if len(in.VirtualServices) != 1 || len(in.Problems) > 0 {
		t.Fatalf("%v", in.Problems)
	}
	tr := NewTranslator(Options{ClusterID: "c1"})
	translated := func(in *source.Objects, wantAgain bool) Output {
		t.Helper()
		out, err := tr.Translate(in)
		if again := out.Changes != nil; err != nil || again != wantAgain {
			t.Fatalf("again %t, %v; want %t", again, err, wantAgain)
		}
		if out.Model.Objects != in {
			t.Error("the model has other objects than were given")
		}
		return out
	}
	first := translated(in, false)

	route := *in
	route.VirtualServices = nil
	route.Generation++
	second := translated(&route, true)
	if len(second.Addresses) != len(first.Addresses) || second.Model.Services[0] != first.Model.Services[0] {
		t.Error("something was translated again")
	}
	fewer := route
	fewer.Pods = nil
	if out := translated(&fewer, true); len(out.Addresses) != len(first.Addresses)-1 {
		t.Errorf("%d addresses", len(out.Addresses))
	}
	replaced := route
	replaced.Pods = []*corev1.Pod{in.Pods[0].DeepCopy()}
	translated(&replaced, true)
	problem := replaced
	problem.Problems = []source.Problem{{Message: "x"}}
	translated(&problem, false)
}
