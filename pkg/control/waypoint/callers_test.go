package waypoint

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// Connections that go by labels of the caller's pod follow the pods.
func TestConnectionsFollowPods(t *testing.T) {
	state := func(label string) *source.Objects {
		return source.Parse([]source.File{{Name: "in.yaml", Data: []byte(strings.Join(append(always,
			"{apiVersion: v1, kind: Service, metadata: {name: db, namespace: n}, spec: {clusterIP: 10.96.0.7, selector: {app: db}, ports: [{name: tcp, port: 81}]}}",
			"{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: db, namespace: n}, spec: {hosts: [db], tcp: [{match: [{port: 81, sourceLabels: {job: batch}}], route: [{destination: {host: o.other.svc.cluster.local, port: {number: 80}}}]}]}}",
			"{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: n, labels: {job: "+label+"}}, spec: {nodeName: n1, serviceAccountName: batch}, status: {podIP: 10.1.0.1}}",
		), "\n---\n"))}}, nil)
	}
	first, second := state("web"), state("batch")
	all := *first // but for the pod, of the same objects
	all.Pods = second.Pods
	translator := translate.NewTranslator(translate.Options{ClusterID: "c1"})
	var last *Translation
	for i, in := range []*source.Objects{first, &all} {
		out, err := translator.Translate(in)
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 && out.Changes == nil {
			t.Fatal("the pod alone was not what changed")
		}
		last = New(out, last)
		made, err := last.Generate(out.Model.Waypoints[0], Client{Own: true, Options: envoy.Options{}})
		if err != nil {
			t.Fatal(err)
		}
		if by := strings.Contains(protojson.Format(made.Listeners["main_internal"]), "spiffe://cluster.local/ns/n/sa/batch"); by != (i == 1) {
			t.Errorf("state %d: connections go by the account: %v", i, by)
		}
	}
}
