package envoy

import (
	"fmt"
	"net/netip"
	"testing"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

func BenchmarkGenerate(b *testing.B) {
	w := &model.Waypoint{Key: model.Key{Namespace: "shop", Name: "wp"}, Gateway: &gatewayv1.Gateway{}}
	m := &model.Model{Objects: &source.Objects{Mesh: &meshv1alpha1.MeshConfig{}}, Waypoints: []*model.Waypoint{w}, ClusterDomain: "cluster.local", TrustDomain: "cluster.local"}
	for i := range 1000 {
		s := &model.Service{Index: i, Namespace: "shop", Name: fmt.Sprintf("s%d", i), Hostname: fmt.Sprintf("s%d.shop.svc.cluster.local", i), Waypoint: w,
			Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)}, Ports: []model.Port{{Name: "http", Number: 80, Protocol: model.HTTP}}}
		m.Endpoints = append(m.Endpoints, nil)
		for j := range 3 {
			m.Endpoints[i] = append(m.Endpoints[i], &model.Endpoint{Name: fmt.Sprintf("e%d-%d", i, j), Address: netip.AddrFrom4([4]byte{10, byte(j + 1), byte(i >> 8), byte(i)}),
				Ports: map[uint32]uint32{80: 8080}, Tunnel: true, Ready: true, Namespace: "shop", ServiceAccount: fmt.Sprintf("a%d", i)})
		}
		m.Services = append(m.Services, s)
		w.Services = append(w.Services, s)
	}
	b.ResetTimer()
	for b.Loop() {
		if _, err := Generate(m, w, Options{Locality: Locality{Region: "r1"}}); err != nil {
			b.Fatal(err)
		}
	}
}
