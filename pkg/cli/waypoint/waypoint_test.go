package waypoint

import (
	"strings"
	"testing"
)

func TestGenerate(t *testing.T) {
	var out strings.Builder
	if err := Generate(&out, Spec{Namespace: "shop", For: "all", Revision: "r1"}); err != nil {
		t.Fatal(err)
	}
	const want = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  labels:
    istio.io/rev: r1
    istio.io/waypoint-for: all
  name: waypoint
  namespace: shop
spec:
  gatewayClassName: istio-waypoint
  listeners:
  - name: mesh
    port: 15008
    protocol: HBONE
`
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
	for _, wrong := range []Spec{{Name: "none"}, {For: "everything"}} {
		if err := Generate(&out, wrong); err == nil {
			t.Errorf("%+v is generated", wrong)
		}
	}
}
