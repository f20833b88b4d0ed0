package store

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// world is a mesh of n workloads in n/10 services.
func world(n int) mesh.Delta {
	var d mesh.Delta
	for i := range n {
		key := mesh.ServiceKey{Namespace: "default", Hostname: fmt.Sprintf("s%d.default.svc.cluster.local", i/10)}
		if i%10 == 0 {
			d.Services = append(d.Services, &mesh.Service{Key: key, Ports: []mesh.Port{{Service: 80, Target: 8080}}, VIPs: []mesh.NetworkAddr{
				mesh.NewNetworkAddr("", netip.AddrFrom4([4]byte{172, byte(i >> 16), byte(i >> 8), byte(i)}))}})
		}
		w := pod(fmt.Sprintf("Kubernetes//Pod/default/pod-%d", i), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String())
		w.Services = map[mesh.ServiceKey][]mesh.Port{key: {{Service: 80, Target: 8080}}}
		d.Workloads = append(d.Workloads, w)
	}
	return d
}

// The indexes may not cost more than the workloads themselves.
func TestMemoryPerWorkload(t *testing.T) {
	const n, budget = 20_000, 800
	d := world(n)
	s := newStore(t)
	before := heap()
	apply(t, s, d)
	perWorkload := float64(heap()-before) / n
	runtime.KeepAlive(s)
	runtime.KeepAlive(d)
	t.Logf("%.0f bytes per workload for the indexes", perWorkload)
	if perWorkload > budget {
		t.Errorf("%.0f bytes per workload, want at most %d", perWorkload, budget)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkApplyOne(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := newStore(b)
			d := world(n)
			apply(b, s, d)
			change := mesh.Delta{Workloads: d.Workloads[:1]}
			b.ReportAllocs()
			for b.Loop() {
				apply(b, s, change)
			}
		})
	}
}

// One service with very many endpoints, all in one change, as a first response has them.
func BenchmarkApplyManyEndpoints(b *testing.B) {
	d := world(20_000)
	for _, w := range d.Workloads {
		w.Services = map[mesh.ServiceKey][]mesh.Port{{Namespace: "default", Hostname: "big"}: nil}
	}
	for b.Loop() {
		apply(b, newStore(b), d)
	}
}

func BenchmarkLookup(b *testing.B) {
	s := newStore(b)
	apply(b, s, world(100_000))
	snapshot, addr := s.Snapshot(), at("10.0.1.7")
	b.ReportAllocs()
	for b.Loop() {
		if snapshot.WorkloadByAddr(addr) == nil {
			b.Fatal("not found")
		}
	}
}
