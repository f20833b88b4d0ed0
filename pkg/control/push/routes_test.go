package push

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
)

func newRoute(n int) *routev3.Route {
	return &routev3.Route{Name: fmt.Sprint("r", n), Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: fmt.Sprint("/", n)}}}
}

// A route configuration that follows another, over random changes, has the bytes that
// it has alone, they are its own, and so is what is around them.
func TestRoutesAfterOneAnotherAreAsAlone(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 2))
		e := &encoder{keep: true}
		hosts := make([][]*routev3.Route, 3)
		var last *resource
		for step := range 100 {
			for range 1 + r.IntN(3) {
				h := &hosts[r.IntN(len(hosts))]
				n := len(*h)
				switch what := r.IntN(6); {
				case what < 2:
					*h = slices.Insert(slices.Clone(*h), r.IntN(n+1), newRoute(r.IntN(20)))
				case n == 0:
				case what < 3:
					*h = slices.Clone(*h)
					(*h)[r.IntN(n)] = newRoute(r.IntN(20))
				case what < 4:
					at := r.IntN(n)
					*h = slices.Delete(slices.Clone(*h), at, at+1)
				case what < 5:
					*h = slices.Clone(*h)
					r.Shuffle(n, func(a, b int) { (*h)[a], (*h)[b] = (*h)[b], (*h)[a] })
				default:
					slices.Reverse(hosts)
				}
			}
			c := &routev3.RouteConfiguration{Name: "c", MostSpecificHeaderMutationsWins: step%7 == 0}
			for i, h := range hosts {
				c.VirtualHosts = append(c.VirtualHosts, &routev3.VirtualHost{Name: fmt.Sprint("v", i), Domains: []string{fmt.Sprint("h", i)}, Routes: h, IncludeRequestAttemptCount: true})
			}
			now, err := e.encode(RouteType, "c", c, last)
			if err != nil {
				t.Fatal(err)
			}
			alone, err := (&encoder{keep: true}).encode(RouteType, "c", proto.CloneOf(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(now.value, alone.value) || now.version != alone.version {
				t.Fatalf("seed %d, step %d: %x, want %x", seed, step, now.value, alone.value)
			}
			got, response := &routev3.RouteConfiguration{}, &discovery.DeltaDiscoveryResponse{}
			if err := proto.Unmarshal(now.field.ReadOnlyData(), response); err != nil || len(response.Resources) != 1 {
				t.Fatal(err)
			}
			if err := response.Resources[0].Resource.UnmarshalTo(got); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, c) || response.Resources[0].Name != "c" || response.Resources[0].Version != now.version {
				t.Fatalf("seed %d, step %d: it reads %v, want %v", seed, step, got, c)
			}
			last = now
		}
	}
}

// Of routes that are the same messages nothing is marshalled again.
func TestUnchangedRoutesAreNotLookedAt(t *testing.T) {
	e := &encoder{keep: true}
	routes := []*routev3.Route{newRoute(0), newRoute(1), newRoute(2)}
	configuration := func(routes ...*routev3.Route) *routev3.RouteConfiguration {
		return &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{Routes: routes}}}
	}
	first, err := e.encode(RouteType, "c", configuration(routes...), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		r.Name = "changed behind the log's back, to see whether it looks"
	}
	next, err := e.encode(RouteType, "c", configuration(routes[2], newRoute(3), routes[0], routes[1]), first)
	if err != nil {
		t.Fatal(err)
	}
	want, err := (&encoder{keep: true}).encode(RouteType, "c", configuration(newRoute(2), newRoute(3), newRoute(0), newRoute(1)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(next.value, want.value) {
		t.Errorf("%q, want %q", next.value, want.value)
	}
}
