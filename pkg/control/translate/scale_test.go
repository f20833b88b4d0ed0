package translate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// BenchmarkTranslate is a cluster of 5,000 pods and 500 services in ten namespaces.
func BenchmarkTranslate(b *testing.B) {
	var text strings.Builder
	for ns := range 10 {
		for s := range 50 {
			fmt.Fprintf(&text, "---\n{apiVersion: v1, kind: Service, metadata: {name: s%d, namespace: n%d}, spec: {clusterIP: 10.96.%d.%d, selector: {app: a%d}, ports: [{port: 80}]}}\n", s, ns, ns, s, s)
			for p := range 10 {
				fmt.Fprintf(&text, "---\n{apiVersion: v1, kind: Pod, metadata: {name: p%d-%d, namespace: n%d, labels: {app: a%d}}, status: {podIP: 10.%d.%d.%d}}\n", s, p, ns, s, 100+ns, s, p)
			}
		}
	}
	in := source.Parse([]source.File{{Name: "in.yaml", Data: []byte(text.String())}}, nil)
	if len(in.Pods) != 5000 || len(in.Problems) > 0 {
		b.Fatalf("%d pods, problems %v", len(in.Pods), in.Problems)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Translate(in, Options{ClusterID: "c1"}); err != nil {
			b.Fatal(err)
		}
	}
}
