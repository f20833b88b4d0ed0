package route

import (
	"fmt"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// large has n routes as a waypoint of a large mesh has them.
func large(n int) *routev3.RouteConfiguration {
	vh := &routev3.VirtualHost{Name: "v", Domains: []string{"shop.example", "*"}}
	for i := range n {
		vh.Routes = append(vh.Routes, &routev3.Route{
			Name:  fmt.Sprintf("r%d", i),
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: fmt.Sprintf("/api/v1/thing%d", i)}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: fmt.Sprintf("outbound|80|http|svc%d", i)},
				RetryPolicy:      &routev3.RetryPolicy{RetryOn: "connect-failure,refused-stream,unavailable,cancelled"},
			}},
			ResponseHeadersToAdd: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-route", Value: "r"}}},
		})
	}
	return &routev3.RouteConfiguration{Name: "rc", VirtualHosts: []*routev3.VirtualHost{vh}}
}

func TestFindDoesNotAllocate(t *testing.T) {
	table, err := Compile(large(5000), Options{})
	if err != nil {
		t.Fatal(err)
	}
	in := get("GET shop.example/api/v1/thing4711/x?y=z", "user-agent: t")
	if n := testing.AllocsPerRun(100, func() {
		r := table.Find(in)
		if r == nil || r.Name != "r4711" || r.Forward.Pick(in).Cluster != "outbound|80|http|svc4711" {
			t.Fatal("wrong route")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a request", n)
	}
}

func TestUpdateSharesWhatIsUnchanged(t *testing.T) {
	old, err := CompileFrom(nil, encoded(t, large(100)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	rc := large(100)
	rc.VirtualHosts[0].Routes[50].Name = "changed"
	table, err := CompileFrom(old, encoded(t, rc), Options{})
	if err != nil {
		t.Fatal(err)
	}
	in := func(i int) *Input { return get(fmt.Sprintf("GET shop.example/api/v1/thing%d", i)) }
	if got := name(table.Find(in(50))); got != "changed" {
		t.Errorf("the changed route is %s", got)
	}
	if old.Find(in(51)) != table.Find(in(51)) {
		t.Error("an unchanged route was compiled again")
	}
	if got := name(old.Find(in(50))); got != "r50" {
		t.Errorf("the old table changed: %s", got)
	}
	rc.VirtualHosts[0].Routes = rc.VirtualHosts[0].Routes[1:]
	if table, err = CompileFrom(table, encoded(t, rc), Options{}); err != nil || table.Find(in(0)) != nil || name(table.Find(in(99))) != "r99" {
		t.Errorf("a removed route: %v", err)
	}
	rc.VirtualHosts[0].RequestHeadersToRemove = []string{"x"}
	next, err := CompileFrom(table, encoded(t, rc), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if a := get("GET shop.example/api/v1/thing7", "x: y"); true {
		next.Find(a).RewriteRequest(a, Choice{}, false)
		if len(a.Request.Fields) != 0 {
			t.Error("a changed virtual host kept its routes' old surroundings")
		}
	}
}

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table, err := Compile(large(n), Options{})
			if err != nil {
				b.Fatal(err)
			}
			in := get(fmt.Sprintf("GET shop.example/api/v1/thing%d/x?y=z", n-1), "user-agent: t")
			b.ReportAllocs()
			for b.Loop() {
				if table.Find(in) == nil {
					b.Fatal("no route")
				}
			}
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	old, err := CompileFrom(nil, encoded(b, large(3000)), Options{})
	if err != nil {
		b.Fatal(err)
	}
	for what, change := range map[string]func(*routev3.VirtualHost){
		"action": func(vh *routev3.VirtualHost) { vh.Routes[50].Name = "changed" },
		"path": func(vh *routev3.VirtualHost) {
			vh.Routes[50].Match.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: "/other"}
		},
		"order": func(vh *routev3.VirtualHost) { vh.Routes = append(vh.Routes[1:], vh.Routes[0]) },
	} {
		rc := large(3000)
		change(rc.VirtualHosts[0])
		wire := encoded(b, rc)
		b.Run(what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := CompileFrom(old, wire, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
