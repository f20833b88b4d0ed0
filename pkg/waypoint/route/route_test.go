package route

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

func parse(t testing.TB, text string) *routev3.RouteConfiguration {
	t.Helper()
	js, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	rc := &routev3.RouteConfiguration{}
	if err := protojson.Unmarshal(js, rc); err != nil {
		t.Fatal(err)
	}
	return rc
}

func compile(t testing.TB, text string) *Table {
	t.Helper()
	table, err := Compile(parse(t, text), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// get is a request: "GET host/path" and fields as "name: value".
func get(line string, fields ...string) *Input {
	method, rest, _ := strings.Cut(line, " ")
	host, path, ok := strings.Cut(rest, "/")
	r := &message.Request{Version: message.HTTP11, Method: method, Scheme: "http", Authority: host}
	if ok {
		r.Path = "/" + path
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Fields.Add(name, value)
	}
	return &Input{Request: r, Info: &streaminfo.Info{Connection: &streaminfo.Connection{}, Request: r}}
}

func name(r *Route) string {
	if r == nil {
		return "-"
	}
	return r.Name
}

// one is a virtual host with routes of the given matches, named by their index.
func one(matches ...string) string {
	var b strings.Builder
	b.WriteString("virtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n")
	for i, m := range matches {
		fmt.Fprintf(&b, "  - {name: '%d', match: %s, direct_response: {status: 200}}\n", i, m)
	}
	return b.String()
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		match string
		in    *Input
		want  bool
	}{
		{`{prefix: /a}`, get("GET h/ab"), true},
		{`{prefix: /a}`, get("GET h/A"), false},
		{`{prefix: /a, case_sensitive: false}`, get("GET h/Ab"), true},
		{`{prefix: "/a?b"}`, get("GET h/a?b"), false},
		{`{path: /a}`, get("GET h/a?x=1"), true},
		{`{path: /a}`, get("GET h/a#x"), true},
		{`{path: /a}`, get("GET h/a/"), false},
		{`{path: /A, case_sensitive: false}`, get("GET h/a"), true},
		{`{path_separated_prefix: /a}`, get("GET h/a"), true},
		{`{path_separated_prefix: /a}`, get("GET h/a/b?c"), true},
		{`{path_separated_prefix: /a}`, get("GET h/ab"), false},
		{`{path_separated_prefix: /a, case_sensitive: false}`, get("GET h/A/b"), true},
		{`{safe_regex: {regex: "/a.c"}}`, get("GET h/abc?d"), true},
		{`{safe_regex: {regex: "/a.c"}}`, get("GET h/abcd"), false},
		{`{safe_regex: {regex: "/a|/abc"}}`, get("GET h/abc"), true},
		{`{safe_regex: {regex: "/.*"}}`, get("GET h/a\xff"), true},
		{`{safe_regex: {regex: "/."}}`, get("GET h/é"), false},
		{`{safe_regex: {regex: "/.."}}`, get("GET h/é"), true},
		{`{safe_regex: {regex: "/é"}}`, get("GET h/é"), true},
		{`{connect_matcher: {}}`, get("CONNECT h:80"), true},
		{`{connect_matcher: {}}`, get("GET h/"), false},
		{`{prefix: /}`, get("CONNECT h:80"), false},
		{`{prefix: ""}`, get("CONNECT h:80"), false},
		{`{prefix: /, grpc: {}}`, get("POST h/", "content-type: application/grpc+proto"), true},
		{`{prefix: /, grpc: {}}`, get("POST h/", "content-type: application/grpc-web"), false},

		{`{prefix: /, headers: [{name: A, string_match: {exact: x}}]}`, get("GET h/", "a: x"), true},
		{`{prefix: /, headers: [{name: a, string_match: {exact: "x,y"}}]}`, get("GET h/", "a: x", "a: y"), false},
		{`{prefix: /, headers: [{name: user-agent, string_match: {exact: "x,y"}}]}`, get("GET h/", "user-agent: x", "user-agent: y"), true},
		{`{prefix: /, headers: [{name: a, string_match: {exact: x}}]}`, get("GET h/", "a: x", "a: y"), true},
		{`{prefix: /, headers: [{name: a, string_match: {exact: y1}, invert_match: true}]}`, get("GET h/", "a: x", "a: y1"), false},
		{`{prefix: /, headers: [{name: a, string_match: {exact: X, ignore_case: true}}]}`, get("GET h/", "a: x"), true},
		{`{prefix: /, headers: [{name: a, string_match: {contains: Q, ignore_case: true}}]}`, get("GET h/", "a: pqr"), true},
		{`{prefix: /, headers: [{name: a, string_match: {suffix: Qr, ignore_case: true}}]}`, get("GET h/", "a: pqr"), true},
		{`{prefix: /, headers: [{name: a, string_match: {prefix: q}}]}`, get("GET h/", "a: pqr"), false},
		{`{prefix: /, headers: [{name: a, string_match: {safe_regex: {regex: "[0-9]+"}}}]}`, get("GET h/", "a: 12"), true},
		{`{prefix: /, headers: [{name: a, string_match: {exact: x}, invert_match: true}]}`, get("GET h/"), false},
		{`{prefix: /, headers: [{name: a, string_match: {exact: x}, invert_match: true, treat_missing_header_as_empty: true}]}`, get("GET h/"), true},
		{`{prefix: /, headers: [{name: a, present_match: true}]}`, get("GET h/", "a: "), true},
		{`{prefix: /, headers: [{name: a, present_match: false}]}`, get("GET h/", "a: "), false},
		{`{prefix: /, headers: [{name: a, present_match: false}]}`, get("GET h/"), true},
		{`{prefix: /, headers: [{name: a, present_match: true, invert_match: true}]}`, get("GET h/"), true},
		{`{prefix: /, headers: [{name: a}]}`, get("GET h/"), false},
		{`{prefix: /, headers: [{name: a, range_match: {start: -5, end: 5}}]}`, get("GET h/", "a: -5"), true},
		{`{prefix: /, headers: [{name: a, range_match: {start: -5, end: 5}}]}`, get("GET h/", "a: 5"), false},
		{`{prefix: /, headers: [{name: a, range_match: {start: -5, end: 5}, invert_match: true}]}`, get("GET h/", "a: x"), true},
		{`{prefix: /, headers: [{name: ":method", string_match: {exact: GET}}]}`, get("GET h/"), true},
		{`{prefix: /, headers: [{name: host, string_match: {exact: h}}]}`, get("GET h/"), true},
		{`{prefix: /, headers: [{name: ":path", string_match: {exact: "/?q"}}]}`, get("GET h/?q"), true},

		{`{prefix: /, query_parameters: [{name: a, string_match: {exact: x}}]}`, get("GET h/?b&a=x&a=y"), true},
		{`{prefix: /, query_parameters: [{name: a, string_match: {exact: z}}]}`, get("GET h/?a=x&a=z"), false},
		{`{prefix: /, query_parameters: [{name: a, string_match: {exact: ""}}]}`, get("GET h/?a"), true},
		{`{prefix: /, query_parameters: [{name: a, present_match: true}]}`, get("GET h/?a"), true},
		{`{prefix: /, query_parameters: [{name: a, present_match: false}]}`, get("GET h/?b"), true},
		{`{prefix: /, query_parameters: [{name: a}]}`, get("GET h/"), false},
		{`{prefix: /, cookies: [{name: a, string_match: {exact: x}}]}`, get("GET h/", `cookie: b=1; a="x"`), true},
		{`{prefix: /, cookies: [{name: a, string_match: {exact: x}, invert_match: true}]}`, get("GET h/"), true},
		{`{prefix: /, tls_context: {presented: true}}`, get("GET h/"), false},
		{`{prefix: /, tls_context: {presented: false}}`, get("GET h/"), true},
	} {
		table := compile(t, one(c.match))
		if got := table.Find(c.in) != nil; got != c.want {
			t.Errorf("%s on %s %s%s %v: %v, want %v", c.match, c.in.Request.Method, c.in.Request.Authority, c.in.Request.Path, c.in.Request.Fields, got, c.want)
		}
	}
}

func TestFindsByMetadataAndFilterState(t *testing.T) {
	table := compile(t, one(
		`{prefix: /, dynamic_metadata: [{filter: jwt, path: [{key: claims}, {key: groups}], value: {list_match: {one_of: {string_match: {exact: admin}}}}}]}`,
		`{prefix: /, filter_state: [{key: who, string_match: {prefix: "spiffe://"}}]}`,
		`{prefix: /, filter_state: [{key: from, address_match: {ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}}]}`,
	))
	in := get("GET h/")
	if r := table.Find(in); r != nil {
		t.Fatalf("found %s without metadata", r.Name)
	}
	in.Info.FilterState = map[string]string{"from": "10.1.2.3:80"}
	if got := name(table.Find(in)); got != "2" {
		t.Errorf("by address: %s", got)
	}
	in.Info.FilterState["who"] = "spiffe://x"
	if got := name(table.Find(in)); got != "1" {
		t.Errorf("by string: %s", got)
	}
	in.Info.Dynamic = streaminfo.Metadata{"jwt": {"claims": map[string]any{"groups": []any{"user", "admin"}}}}
	if got := name(table.Find(in)); got != "0" {
		t.Errorf("by metadata: %s", got)
	}
}

func TestFraction(t *testing.T) {
	table := compile(t, one(`{prefix: /, runtime_fraction: {default_value: {numerator: 25, denominator: TEN_THOUSAND}}}`, `{prefix: /}`))
	hits := 0
	for n := range uint64(20_000) {
		in := get("GET h/")
		in.Random = n
		if name(table.Find(in)) == "0" {
			hits++
		}
	}
	if hits != 50 {
		t.Errorf("%d of 20000 requests, want 50", hits)
	}
}

func TestVirtualHosts(t *testing.T) {
	const domains = `
virtual_hosts:
- {name: exact, domains: [a.b.c, "a.b.c:80"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}
- {name: suffix, domains: ["*.b.c"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}
- {name: longer, domains: ["*-x.b.c"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}
- {name: prefix, domains: ["a.*", "A.b.*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}
`
	for _, c := range []struct{ authority, want string }{
		{"a.b.c", "exact"},
		{"A.B.C", "exact"},
		{"a.b.c:80", "exact"},
		{"a.b.c:81", "prefix"},
		{"x.b.c", "suffix"},
		{"y-x.b.c", "longer"},
		{".b.c", "-"},
		{"a.q", "prefix"},
		{"a.", "-"},
		{"", "-"},
	} {
		got := "-"
		if r := compile(t, domains).Find(get("GET " + c.authority + "/")); r != nil {
			got = r.VirtualHost()
		}
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.authority, got, c.want)
		}
	}
	ignoring := compile(t, "ignore_port_in_host_matching: true\n"+strings.ReplaceAll(domains, `, "a.b.c:80"`, ""))
	for authority, want := range map[string]string{"a.b.c:81": "exact", "x.b.c:1": "suffix", "[::1]": "-"} {
		got := "-"
		if r := ignoring.Find(get("GET " + authority + "/")); r != nil {
			got = r.VirtualHost()
		}
		if got != want {
			t.Errorf("port ignored, %q: %s, want %s", authority, got, want)
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct{ config, want string }{
		{one(`{safe_regex: {regex: "["}}`), `virtual_hosts[0] "v": routes[0] "0": match: safe_regex`},
		{one(`{prefix: /, headers: [{name: a, string_match: {safe_regex: {regex: "("}}}]}`), `headers[0]: header "a"`},
		{one(`{}`), `it names no path`},
		{"virtual_hosts: [{name: a, domains: [x]}, {name: b, domains: [X]}]", `virtual_hosts[1] "b": domains[0]: "x" already belongs to virtual host "a"`},
		{"virtual_hosts: [{name: a, domains: ['*']}, {name: b, domains: ['*']}]", `already belongs to virtual host "a"`},
		{forwarding(`{weighted_clusters: {clusters: [{name: a, weight: 0}]}}`), `sum of the weights is 0`},
		{forwarding(`{cluster: a, prefix_rewrite: /, regex_rewrite: {pattern: {regex: a}}}`), `only one of prefix_rewrite`},
		{forwarding(`{cluster: a, internal_redirect_policy: {}}`), `internal_redirect_policy is not supported`},
		{forwarding(`{cluster: a, retry_policy: {retry_host_predicate: [{name: x}]}}`), `retry_host_predicate[0]`},
		{forwarding(`{cluster: a}`) + "    request_headers_to_add: [{header: {key: a, value: '%NOPE%'}}]\n", `there is no command NOPE`},
		{forwarding(`{cluster: a}`) + "    request_headers_to_remove: [Host]\n", `"host" cannot be removed`},
	} {
		_, err := Compile(parse(t, c.config), Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\nerror %v, want %q", c.config, err, c.want)
		}
	}
	rc := parse(t, one(`{prefix: /}`))
	rc.VirtualHosts[0].Routes[0].Match.ProtoReflect().SetUnknown([]byte{0xa2, 0x38, 0})
	if _, err := Compile(rc, Options{}); err == nil || !strings.Contains(err.Error(), "not known here") {
		t.Errorf("an unknown condition: %v", err)
	}
	rc = parse(t, one(`{prefix: /}`))
	rc.VirtualHosts[0].Routes[0].ProtoReflect().SetUnknown([]byte{0xa2, 0x38, 0})
	if table, err := Compile(rc, Options{}); err != nil || len(table.Warnings) != 1 {
		t.Errorf("an unknown field: %v", err)
	}
}

// forwarding is a virtual host with one route to an action.
func forwarding(action string) string {
	return "virtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n  - name: r\n    match: {prefix: /p}\n    route: " + action + "\n"
}

// naive looks at routes one after another, as Envoy does.
func naive(routes []*routev3.Route, in *Input) string {
	path, _, _ := strings.Cut(in.Request.Path, "?")
	for _, r := range routes {
		m := r.GetMatch()
		p := path
		low := m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue()
		if low {
			p = strings.ToLower(p)
		}
		fold := func(s string) string {
			if low {
				return strings.ToLower(s)
			}
			return s
		}
		var ok bool
		switch s := m.GetPathSpecifier().(type) {
		case *routev3.RouteMatch_Prefix:
			ok = strings.HasPrefix(p, fold(s.Prefix))
		case *routev3.RouteMatch_Path:
			ok = p == fold(s.Path)
		case *routev3.RouteMatch_PathSeparatedPrefix:
			ok = p == fold(s.PathSeparatedPrefix) || strings.HasPrefix(p, fold(s.PathSeparatedPrefix)+"/")
		case *routev3.RouteMatch_SafeRegex:
			// The random tables have "literal.*" alone.
			ok = strings.HasPrefix(path, strings.TrimSuffix(s.SafeRegex.GetRegex(), ".*"))
		}
		for _, h := range m.GetHeaders() {
			ok = ok && in.Request.Fields.Get(h.GetName()) == h.GetStringMatch().GetExact()
		}
		if ok {
			return r.GetName()
		}
	}
	return "-"
}

// randomTable has routes whose paths share much.
func randomTable(r *rand.Rand, n int) string {
	var list []string
	path := func() string {
		var b strings.Builder
		for range 1 + r.IntN(3) {
			b.WriteString("/" + string("abAB"[r.IntN(4)]))
			if r.IntN(3) == 0 {
				b.WriteByte("ab"[r.IntN(2)])
			}
		}
		return b.String()
	}
	for range n {
		var m string
		switch p := path(); r.IntN(5) {
		case 0:
			m = "prefix: " + p
		case 1:
			m = "path: " + p
		case 2:
			m = "path_separated_prefix: " + p
		case 3:
			m = "safe_regex: {regex: '" + p + ".*'}"
		case 4:
			m = "prefix: " + p + ", headers: [{name: h, string_match: {exact: x}}]"
		}
		if r.IntN(4) == 0 {
			m += ", case_sensitive: false"
		}
		list = append(list, "{"+m+"}")
	}
	return one(list...)
}

func TestFindsTheFirstAsANaiveMatcher(t *testing.T) {
	seed := rand.Uint64() //nolint:gosec // a test's draw
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test's draw
	hit := 0
	for range 150 {
		rc := parse(t, randomTable(r, 1+r.IntN(40)))
		table, err := Compile(rc, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			var b strings.Builder
			for range 1 + r.IntN(4) {
				b.WriteString("/" + string("abAB"[r.IntN(4)]))
				if r.IntN(3) == 0 {
					b.WriteByte("ab"[r.IntN(2)])
				}
			}
			in := get("GET h" + b.String())
			if r.IntN(2) == 0 {
				in.Request.Fields.Add("h", "x")
			}
			want := naive(rc.VirtualHosts[0].Routes, in)
			if got := name(table.Find(in)); got != want {
				t.Fatalf("%s %v: route %s, want %s of\n%v", b.String(), in.Request.Fields, got, want, rc)
			}
			if want != "-" {
				hit++
			}
		}
	}
	if hit < 1000 {
		t.Errorf("only %d of 15000 requests found a route: the tables test nothing", hit)
	}
}

func FuzzFind(f *testing.F) {
	f.Add(uint64(1), "/a/b?c")
	f.Add(uint64(7), "/A\xff")
	f.Fuzz(func(t *testing.T, seed uint64, path string) {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "#\n") || !isASCII(path) {
			return
		}
		rc := parse(t, randomTable(rand.New(rand.NewPCG(seed, 2)), 30)) //nolint:gosec // a test's draw
		table, err := Compile(rc, Options{})
		if err != nil {
			t.Fatal(err)
		}
		in := get("GET h" + path)
		if got, want := name(table.Find(in)), naive(rc.VirtualHosts[0].Routes, in); got != want {
			t.Fatalf("%q: route %s, want %s", path, got, want)
		}
	})
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
