package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func encoded(t testing.TB, rc *routev3.RouteConfiguration) []byte {
	t.Helper()
	b, err := proto.Marshal(rc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// some is one of a few routes, whose name says all of it.
func some(r *rand.Rand) *routev3.Route {
	path, kind, to := fmt.Sprintf("/%c", 'a'+r.IntN(6)), r.IntN(3), r.IntN(4)
	m := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: path}}
	switch kind {
	case 1:
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: path}
	case 2:
		m.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: path}
	}
	return &routev3.Route{Name: fmt.Sprint(path, kind, to), Match: m, Action: &routev3.Route_Route{Route: &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: fmt.Sprintf("c%d", to)}}}}
}

// vary makes a configuration another in one way.
func vary(r *rand.Rand, rc *routev3.RouteConfiguration) {
	vh := rc.VirtualHosts[r.IntN(len(rc.VirtualHosts))]
	n := len(vh.Routes)
	switch what := r.IntN(12); {
	case what < 4 && n > 0:
		vh.Routes[r.IntN(n)] = some(r)
	case what < 6:
		vh.Routes = slices.Insert(vh.Routes, r.IntN(n+1), some(r))
	case what < 7 && n > 0:
		at := r.IntN(n)
		vh.Routes = slices.Delete(vh.Routes, at, at+1)
	case what < 8 && n > 1:
		a, b := r.IntN(n), r.IntN(n)
		vh.Routes[a], vh.Routes[b] = vh.Routes[b], vh.Routes[a]
	case what < 9:
		r.Shuffle(n, func(a, b int) { vh.Routes[a], vh.Routes[b] = vh.Routes[b], vh.Routes[a] })
	case what < 10:
		vh.RequestHeadersToAdd = []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-host", Value: fmt.Sprint(r.IntN(3))}}}
	case what < 11:
		rc.RequestHeadersToAdd = []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-all", Value: fmt.Sprint(r.IntN(3))}}}
	default:
		r.Shuffle(len(rc.VirtualHosts), func(a, b int) {
			rc.VirtualHosts[a], rc.VirtualHosts[b] = rc.VirtualHosts[b], rc.VirtualHosts[a]
		})
	}
}

// What a table is made of and one before it, over many changes of every kind, routes
// every request as what is compiled of the whole configuration alone, and so does the
// table before still.
func TestTablesAfterOneAnotherAreAsAlone(t *testing.T) {
	asked := func(table *Table, host, path string) string {
		in := get("GET " + host + path)
		r := table.Find(in)
		if r == nil {
			return "none"
		}
		choice := r.Forward.Pick(in)
		r.RewriteRequest(in, choice, false)
		return fmt.Sprint(r.Name, " ", r.VirtualHost(), " ", choice.Cluster, " ", in.Request.Fields)
	}
	all := func(table *Table) string {
		var out strings.Builder
		for _, host := range []string{"h0", "h1", "h2", "other"} {
			for c := 'a'; c < 'g'; c++ {
				for _, end := range []string{"", "/x", "x"} {
					fmt.Fprintln(&out, host, asked(table, host, "/"+string(c)+end))
				}
			}
		}
		return out.String()
	}
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 1))
		rc := &routev3.RouteConfiguration{Name: "r"}
		for i := range 3 {
			rc.VirtualHosts = append(rc.VirtualHosts, &routev3.VirtualHost{Name: fmt.Sprintf("v%d", i), Domains: []string{fmt.Sprintf("h%d", i)}})
		}
		var table *Table
		for step := range 150 {
			for range 1 + r.IntN(3) {
				vary(r, rc)
			}
			before, said := table, ""
			if before != nil {
				said = all(before)
			}
			var err error
			if table, err = CompileFrom(before, encoded(t, rc), Options{}); err != nil {
				t.Fatal(err)
			}
			alone, err := Compile(proto.CloneOf(rc), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := all(table), all(alone); got != want {
				t.Fatalf("seed %d, step %d: got\n%s\nwant\n%s", seed, step, got, want)
			}
			if before != nil && all(before) != said {
				t.Fatalf("seed %d, step %d: the table before has changed", seed, step)
			}
		}
	}
}

// An encoder may write fields in any order, several times, and fields that are not
// known here: the routes are those that a decoder of the whole finds.
func TestAnyEncodingOfRoutes(t *testing.T) {
	route := encoded(t, &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{Routes: []*routev3.Route{some(rand.New(rand.NewPCG(1, 1)))}}}})
	_, hosts, err := split(route, fieldHosts, 0)
	if err != nil {
		t.Fatal(err)
	}
	field := func(n protowire.Number, v string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), v)
	}
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 9999, protowire.VarintType), 1)
	vh := slices.Concat(hosts[0], unknown, field(2, "*"), field(1, "first"), hosts[0], field(1, "v"))
	wire := slices.Concat(field(2, string(vh)), field(1, "first"), unknown, field(1, "r"))
	if name, err := Name(wire); err != nil || name != "r" {
		t.Errorf("name %q, %v", name, err)
	}
	rc := &routev3.RouteConfiguration{}
	if err := proto.Unmarshal(wire, rc); err != nil {
		t.Fatal(err)
	}
	want, err := Compile(rc, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := CompileFrom(nil, wire, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != want.Name || got.hosts[0].name != "v" || len(got.hosts[0].index.routes) != 2 || !slices.Equal(got.Warnings, want.Warnings) || got.Unfamiliar == nil || want.Unfamiliar == nil {
		t.Errorf("%+v, want %+v", got, want)
	}
	again, err := CompileFrom(got, slices.Clone(wire), Options{})
	if err != nil || again.Unfamiliar != nil || !slices.Equal(again.Warnings, want.Warnings) {
		t.Errorf("again: %v, unfamiliar %v, warnings %q", err, again.Unfamiliar, again.Warnings)
	}
	for n := range wire {
		whole := proto.Unmarshal(wire[:n], &routev3.RouteConfiguration{})
		if _, err := CompileFrom(got, wire[:n], Options{}); whole != nil && err == nil {
			t.Errorf("cut off after %d bytes it is taken", n)
		}
	}
}
