package waypoint

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/push"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// world is a waypoint with n services of two pods, and a VirtualService for each.
func world(t testing.TB, n int) *source.Objects {
	t.Helper()
	var text strings.Builder
	text.WriteString(`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: n}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: waypoint, namespace: n, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}, spec: {clusterIP: 10.97.0.1, ports: [{port: 15008}]}}
`)
	for i := range n {
		fmt.Fprintf(&text, "---\n{apiVersion: v1, kind: Service, metadata: {name: s%d, namespace: n, labels: {istio.io/use-waypoint: waypoint}}, spec: {clusterIP: 10.96.%d.%d, selector: {app: a%d}, ports: [{name: http, port: 80}, {name: tcp-db, port: 81}]}}\n", i, i/250, i%250+1, i)
		for p := range 2 {
			fmt.Fprintf(&text, "---\n{apiVersion: v1, kind: Pod, metadata: {name: p%d-%d, namespace: n, labels: {app: a%d}}, status: {podIP: 10.%d.%d.%d}}\n", i, p, i, 100+p, i/250, i%250+1)
		}
		fmt.Fprintf(&text, "---\n{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v%d, namespace: n}, spec: {hosts: [s%d], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: s%d}}]}]}}\n", i, i, i)
	}
	in := source.Parse([]source.File{{Name: "in.yaml", Data: []byte(text.String())}}, nil)
	if len(in.VirtualServices) != n || len(in.Problems) > 0 {
		t.Fatalf("%d, %v", len(in.VirtualServices), in.Problems)
	}
	return in
}

// with is a state with another form of a VirtualService.
func with(in *source.Objects, i int, change func(v *networkingv1.VirtualService)) *source.Objects {
	out := *in
	out.VirtualServices = append([]*networkingv1.VirtualService(nil), in.VirtualServices...)
	out.VirtualServices[i] = in.VirtualServices[i].DeepCopy()
	change(out.VirtualServices[i])
	return &out
}

func path(prefix string) func(v *networkingv1.VirtualService) {
	return func(v *networkingv1.VirtualService) {
		other := source.Parse([]source.File{{Name: "x.yaml", Data: []byte("{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: n}, spec: {hosts: [x], http: [{match: [{uri: {prefix: " + prefix + "}}], route: [{destination: {host: x}}]}]}}")}}, nil)
		v.Spec.Http[0].Match = other.VirtualServices[0].Spec.Http[0].Match
	}
}

func leadsTo(host string) func(v *networkingv1.VirtualService) {
	return func(v *networkingv1.VirtualService) { v.Spec.Http[0].Route[0].Destination.Host = host }
}

// What is made from what was there before is what would be made anew, and what a
// change does not concern is the very message that it was.
func TestOnlyWhatChangedIsMadeAgain(t *testing.T) {
	in := world(t, 4)
	tr := translate.NewTranslator(translate.Options{ClusterID: "c1"})
	var last *Translation
	var before push.Resources
	fresh := func(in *source.Objects) push.Resources {
		out, err := translate.Translate(in, translate.Options{ClusterID: "c1"})
		if err != nil {
			t.Fatal(err)
		}
		all, err := New(out, nil).Resources(out.Model.Waypoints[0], push.Consumer{Own: true})
		if err != nil {
			t.Fatal(err)
		}
		return all.All
	}
	for _, step := range []struct {
		name string
		in   func() *source.Objects
		// again is how many messages of clusters, endpoints, listeners and routes may
		// be others than before; -1 is all.
		again int
	}{
		{"at first", func() *source.Objects { return in }, -1},
		{"nothing changed", func() *source.Objects { c := *in; return &c }, 0},
		{"another path", func() *source.Objects { return with(in, 1, path("/b")) }, 1},
		{"another destination", func() *source.Objects { return with(in, 1, leadsTo("s3")) }, -1},
		{"back", func() *source.Objects { return in }, -1},
		{"gone", func() *source.Objects { c := *in; c.VirtualServices = in.VirtualServices[1:]; return &c }, 1},
		{"rules for connections", func() *source.Objects {
			return with(in, 2, func(v *networkingv1.VirtualService) {
				other := source.Parse([]source.File{{Name: "x.yaml", Data: []byte("{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: n}, spec: {hosts: [x], tcp: [{route: [{destination: {host: s1, port: {number: 81}}}]}]}}")}}, nil)
				v.Spec.Tcp = other.VirtualServices[0].Spec.Tcp
			})
		}, -1},
		{"an HTTPRoute", func() *source.Objects {
			c := *in
			routes := source.Parse([]source.File{{Name: "x.yaml", Data: []byte("{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: n}, spec: {parentRefs: [{group: '', kind: Service, name: s0}], rules: [{backendRefs: [{name: s0, port: 80}]}]}}")}}, nil)
			c.HTTPRoutes = append([]*gatewayv1.HTTPRoute{}, routes.HTTPRoutes...)
			return &c
		}, -1},
		{"fewer pods", func() *source.Objects { c := *in; c.Pods = in.Pods[1:]; return &c }, -1},
	} {
		state := step.in()
		out, err := tr.Translate(state)
		if err != nil {
			t.Fatal(err)
		}
		last = New(out, last)
		made, err := last.Resources(out.Model.Waypoints[0], push.Consumer{Own: true})
		if err != nil {
			t.Fatal(err)
		}
		got := made.All
		if diff := cmp.Diff(fresh(state), got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: differs from what is made anew (-want +got):\n%s", step.name, diff)
		}
		others := 0
		for typeURL, messages := range got {
			for name, m := range messages {
				if before[typeURL][name] != m {
					others++
				}
			}
		}
		if step.again >= 0 && others != step.again {
			t.Errorf("%s: %d messages are others than before, want %d", step.name, others, step.again)
		}
		before = got
		if n := len(last.Status()); n < len(state.VirtualServices) {
			t.Errorf("%s: %d statuses", step.name, n)
		}
	}
}

var sink proto.Message

// BenchmarkOneRoute is a route that changes among 3,000 of 300 and of 3,000
// services: from the objects to the resources, and what is noted of them.
func BenchmarkOneRoute(b *testing.B) {
	for _, n := range []int{300, 3000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			in := world(b, n)
			tr := translate.NewTranslator(translate.Options{ClusterID: "c1"})
			var last *Translation
			i := 0
			for b.Loop() {
				i++
				out, err := tr.Translate(with(in, i%n, path(fmt.Sprintf("/p%d", i))))
				if err != nil {
					b.Fatal(err)
				}
				last = New(out, last)
				all, err := last.Resources(out.Model.Waypoints[0], push.Consumer{Own: true})
				if err != nil {
					b.Fatal(err)
				}
				sink = all.All[push.RouteType]["inbound-vip|80|http|s0.n.svc.cluster.local"]
			}
		})
	}
}
