package routing

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// many is a VirtualService of n rules with a regular expression each, or n
// HTTPRoutes.
func many(n int, kind string) string {
	var s strings.Builder
	if kind == kindVirtualService {
		s.WriteString("---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: many, namespace: default}\nspec:\n  hosts: [reviews]\n  http:\n")
		for i := range n {
			fmt.Fprintf(&s, "  - {match: [{uri: {prefix: /p%d}, headers: {cookie: {regex: '^(.*;)?user=%d(;.*)?$'}}}], route: [{destination: {host: reviews, subset: v1}, weight: 90}, {destination: {host: reviews, subset: v2}, weight: 10}]}\n", i, i)
		}
		return s.String()
	}
	for i := range n {
		s.WriteString(httpRoute("default", fmt.Sprintf("r%d", i), january, httpRule(fmt.Sprintf("r%d", i), fmt.Sprintf("{path: {value: /p%d}, headers: [{name: cookie, type: RegularExpression, value: 'user=%d'}]}", i, i))))
	}
	return s.String()
}

func reviews(m *model.Model) *model.Service {
	for _, s := range m.Services {
		if s.Name == "reviews" {
			return s
		}
	}
	return nil
}

// 5,000 routes are translated in a moment, with the deadline far off so that a
// busy machine does not fail it.
func TestManyRoutes(t *testing.T) {
	for _, kind := range []string{kindVirtualService, kindHTTPRoute} {
		m := parse(t, base(t), []byte(many(5000, kind)))
		began := time.Now()
		config, _ := New(m, nil).HTTP(nil, reviews(m), &reviews(m).Ports[0], true)
		took := time.Since(began)
		if n := len(config.VirtualHosts[0].Routes); n != 5000 {
			t.Errorf("%s: %d routes", kind, n)
		}
		if took > 5*time.Second {
			t.Errorf("%s: took %v", kind, took)
		}
		t.Logf("%s: %v, %d bytes", kind, took, proto.Size(config))
	}
}

// What has not changed is taken from before, and comes out the same.
func TestPreviousIsUsedAgain(t *testing.T) {
	m := parse(t, base(t), []byte(many(50, kindVirtualService)))
	first := New(m, nil)
	second := New(m, first)
	for v, old := range first.kept {
		if now := second.kept[v]; now.rules[0].matches[0].envoy != old.rules[0].matches[0].envoy {
			t.Error("an unchanged VirtualService was translated again")
		}
	}
	a, b := ports(t, first, nil), ports(t, second, nil)
	for name := range a {
		if !proto.Equal(a[name].config, b[name].config) {
			t.Errorf("%s differs", name)
		}
	}
}

func BenchmarkTranslate(b *testing.B) {
	for _, kind := range []string{kindVirtualService, kindHTTPRoute} {
		m := parse(b, base(b), []byte(many(3000, kind)))
		s := reviews(m)
		var before *Builder
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				before = New(m, before)
				before.HTTP(nil, s, &s.Ports[0], true)
			}
		})
	}
}
