package routing

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

func httpRoute(namespace, name, created string, rules ...string) string {
	return fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, namespace: %s, creationTimestamp: %q}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews, namespace: default, port: 9080}]
  rules: [%s]
`, name, namespace, created, strings.Join(rules, ", "))
}

func httpRule(name, match string) string {
	return fmt.Sprintf("{name: %s, matches: [%s], backendRefs: [{name: reviews, namespace: default, port: 9080}]}", name, match)
}

const january, february = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"

// The order of the Gateway API: exact path, (regular expression,) longest prefix,
// method, headers, query parameters, oldest route, name, order in the route.
func TestPrecedence(t *testing.T) {
	for _, tc := range []struct {
		name   string
		routes []string
		want   []string
	}{
		{"path", []string{httpRoute("default", "a", january,
			httpRule("all", "{path: {value: /}}"), httpRule("short", "{path: {value: /a}}"), httpRule("regex", "{path: {type: RegularExpression, value: /a/.*}}"),
			httpRule("long", "{path: {value: /a/b}}"), httpRule("exact", "{path: {type: Exact, value: /a}}"))},
			[]string{"exact", "regex", "long", "short", "all"}},
		{"a trailing slash is not a longer prefix", []string{httpRoute("default", "a", january,
			httpRule("slash", "{path: {value: /abc/}}"), httpRule("longer", "{path: {value: /abcd}}"))},
			[]string{"longer", "slash"}},
		{"method before headers before queries", []string{httpRoute("default", "a", january,
			httpRule("query", "{queryParams: [{name: a, value: b}]}"), httpRule("header", "{headers: [{name: a, value: b}]}"),
			httpRule("headers", "{headers: [{name: a, value: b}, {name: b, value: b}]}"), httpRule("method", "{method: GET}"),
			httpRule("both", "{method: GET, headers: [{name: a, value: b}]}"), httpRule("header-query", "{headers: [{name: a, value: b}], queryParams: [{name: a, value: b}]}"))},
			[]string{"both", "method", "headers", "header-query", "header", "query"}},
		{"path before all that", []string{httpRoute("default", "a", january,
			httpRule("short", "{path: {value: /a}, method: GET, headers: [{name: a, value: b}]}"), httpRule("long", "{path: {value: /ab}}"))},
			[]string{"long", "short"}},
		{"equal headers count once", []string{httpRoute("default", "a", january,
			httpRule("one", "{headers: [{name: a, value: b}, {name: A, value: c}, {name: a, value: d}]}"), httpRule("two", "{headers: [{name: a, value: b}, {name: b, value: b}]}"))},
			[]string{"two", "one"}},
		{"oldest route, then name, then order", []string{
			httpRoute("default", "b", january, httpRule("b-0", "{path: {value: /x}}"), httpRule("b-1", "{path: {value: /x}}")),
			httpRoute("default", "a", january, httpRule("a-0", "{path: {value: /x}}")),
			httpRoute("default", "a0", february, httpRule("young", "{path: {value: /x}}"))},
			[]string{"a-0", "b-0", "b-1", "young"}},
		{"several routes are merged", []string{
			httpRoute("default", "a", january, httpRule("a-all", "{path: {value: /}}")),
			httpRoute("default", "b", february, httpRule("b-deep", "{path: {value: /x}}"))},
			[]string{"b-deep", "a-all"}},
		{"consumers before producers, whatever they match", []string{
			httpRoute("default", "a", january, httpRule("producer", "{path: {type: Exact, value: /x}}")),
			httpRoute("other", "a", february, httpRule("consumer", "{path: {value: /}}"))},
			[]string{"consumer", "producer"}},
		{"after a rule for all nothing is sent", []string{
			httpRoute("default", "a", january, httpRule("all", "{path: {value: /}}"), httpRule("again", "{path: {value: /}}"))},
			[]string{"all"}},
		{"consumers alone leave the default", []string{httpRoute("other", "a", january, httpRule("consumer", "{path: {value: /}}"))},
			[]string{"consumer", "default"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := New(parse(t, base(t), []byte(strings.Join(tc.routes, ""))), nil)
			config := ports(t, b, nil)["inbound-vip|9080|http|reviews.default.svc.cluster.local"].config
			if diff := cmp.Diff(tc.want, names(config.VirtualHosts[0].Routes)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The order in which objects are read does not matter.
func TestDeterminism(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	var objects []string
	for i := range 40 {
		created := []string{january, february}[random.IntN(2)]
		path := fmt.Sprintf("/%c", 'a'+random.IntN(4))
		kind := []string{"Exact", "PathPrefix", "RegularExpression"}[random.IntN(3)]
		namespace := []string{"default", "default", "other"}[random.IntN(3)]
		objects = append(objects, httpRoute(namespace, fmt.Sprintf("r%d", i), created,
			httpRule(fmt.Sprintf("r%d", i), fmt.Sprintf("{path: {type: %s, value: %s}, headers: [{name: h, value: v%d}]}", kind, path, i))))
		objects = append(objects, fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v%d, namespace: default, creationTimestamp: %q}
spec: {hosts: [reviews], http: [{name: v%d, match: [{headers: {b: {exact: c}, a: {prefix: d}}, queryParams: {x: {exact: y}, w: {exact: z}}}], route: [{destination: {host: reviews}}]}]}
`, i, created, i))
	}
	var first *Builder
	for range 5 {
		random.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
		b := New(parse(t, base(t), []byte(strings.Join(objects, ""))), nil)
		if first == nil {
			first = b
			continue
		}
		want, got := ports(t, first, nil), ports(t, b, nil)
		for name := range want {
			if !proto.Equal(want[name].config, got[name].config) {
				t.Fatalf("%s depends on the order of objects:\n%s", name, cmp.Diff(names(want[name].config.VirtualHosts[0].Routes), names(got[name].config.VirtualHosts[0].Routes)))
			}
		}
		if diff := cmp.Diff(status.Join(first.Statuses()), status.Join(b.Statuses())); diff != "" {
			t.Fatal(diff)
		}
	}
}
