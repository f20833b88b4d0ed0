package xds

import (
	"fmt"
	"runtime"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/api/workload"
)

// first is a first response with n workloads as istiod describes pods, in n/10 services.
func first(tb testing.TB, n int) []*discovery.Resource {
	tb.Helper()
	out := make([]*discovery.Resource, 0, n)
	for i := range n {
		app := i / 10
		namespace := fmt.Sprintf("team-%d", app%50)
		name := fmt.Sprintf("app-%d-5c9d7f6b8-%05d", app, i)
		b, err := proto.Marshal(&workload.Address{Type: &workload.Address_Workload{Workload: &workload.Workload{
			Uid: "Kubernetes//Pod/" + namespace + "/" + name, Name: name, Namespace: namespace, ServiceAccount: fmt.Sprintf("app-%d", app),
			Addresses: [][]byte{{10, byte(i >> 16), byte(i >> 8), byte(i)}}, Node: fmt.Sprintf("node-%d.example.internal", i%500), ClusterId: "Kubernetes",
			TunnelProtocol: workload.TunnelProtocol_HBONE, WorkloadName: fmt.Sprintf("app-%d", app), CanonicalName: fmt.Sprintf("app-%d", app),
			CanonicalRevision: "v1", Locality: &workload.Locality{Region: "europe-west1", Zone: fmt.Sprintf("europe-west1-%d", i%3)},
			Services: map[string]*workload.PortList{
				fmt.Sprintf("%s/app-%d.%s.svc.cluster.local", namespace, app, namespace): {Ports: []*workload.Port{{ServicePort: 80, TargetPort: 8080}}},
			},
			AuthorizationPolicies: []string{namespace + "/allow-app"},
		}}})
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, &discovery.Resource{Name: "Kubernetes//Pod/" + namespace + "/" + name, Resource: &anypb.Any{TypeUrl: AddressType, Value: b}})
	}
	return out
}

// What a node keeps of each workload of the mesh, without the store's indexes.
func TestMemoryPerWorkload(t *testing.T) {
	const n, budget = 20_000, 700
	resources := first(t, n)
	before := heap()
	decoded := Decode(AddressType, resources, nil)
	per := float64(heap()-before) / n
	if len(decoded.Delta.Workloads) != n {
		t.Fatalf("%d workloads, rejected %v", len(decoded.Delta.Workloads), decoded.Rejected)
	}
	runtime.KeepAlive(resources)
	t.Logf("%.0f bytes per workload", per)
	if per > budget {
		t.Errorf("%.0f bytes per workload, want at most %d", per, budget)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkDecode100k(b *testing.B) {
	resources := first(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		if d := Decode(AddressType, resources, nil); len(d.Rejected) > 0 {
			b.Fatal(d.Rejected)
		}
	}
}

// Sharing changes nothing of what is decoded, whatever the resources have in common.
func TestSharingChangesNothing(t *testing.T) {
	var resources []*discovery.Resource
	for i, ports := range [][]*workload.Port{{{ServicePort: 80, TargetPort: 8080}}, {{ServicePort: 80, TargetPort: 8081}}, {{ServicePort: 80, TargetPort: 8080}}, nil} {
		for j, policies := range [][]string{nil, {"n/a", "n/b"}, {"n/a"}} {
			uid := fmt.Sprintf("c//Pod/n/w%d%d", i, j)
			resources = append(resources, address(t, uid, "", &workload.Workload{
				Uid: uid, Name: []string{uid[len(uid)-3:], "other", ""}[j], AuthorizationPolicies: policies,
				Services: map[string]*workload.PortList{"n/h": {Ports: ports}, "n/i": {}},
			}))
		}
	}
	together := Decode(AddressType, resources, nil).Delta.Workloads
	for i, r := range resources {
		alone := Decode(AddressType, []*discovery.Resource{r}, nil).Delta.Workloads
		if diff := cmp.Diff(alone[0], together[i]); diff != "" {
			t.Errorf("%s (-alone +together):\n%s", r.Name, diff)
		}
	}
}
