package route

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWeights(t *testing.T) {
	table := compile(t, forwarding(`{weighted_clusters: {clusters: [{name: a, weight: 1}, {name: "no", weight: 0}, {name: b, weight: 9}]}}`))
	count := map[string]int{}
	for n := range uint64(1000) {
		in := get("GET h/p")
		in.Random = n
		count[table.Find(in).Forward.Pick(in).Cluster]++
	}
	if !cmp.Equal(count, map[string]int{"a": 100, "b": 900}) {
		t.Errorf("1000 requests: %v", count)
	}
	table = compile(t, forwarding(`{weighted_clusters: {header_name: X-N, clusters: [{name: a, weight: 50}, {cluster_header: x-to, weight: 50}]}}`))
	for _, c := range []struct {
		fields []string
		random uint64
		want   string
	}{
		{[]string{"x-n: 49"}, 60, "a"},
		{[]string{"x-n: 150", "x-to: t"}, 0, "t"},
		{[]string{"x-n: 150"}, 0, ""},
		{[]string{"x-n: 150", "x-n: 150"}, 0, "a"},
		{[]string{"x-n: q", "x-to: t"}, 60, "t"},
	} {
		in := get("GET h/p", c.fields...)
		in.Random = c.random
		if got := table.Find(in).Forward.Pick(in).Cluster; got != c.want {
			t.Errorf("%v, random %d: %q, want %q", c.fields, c.random, got, c.want)
		}
	}
}

// A user's cookie decides, whatever is drawn; while the weight of b grows users only
// go over to b.
func TestWeightsByHash(t *testing.T) {
	at := func(weight int) *Table {
		return compile(t, forwarding(fmt.Sprintf(`{hash_policy: [{cookie: {name: u, ttl: 0s}}], weighted_clusters: {use_hash_policy: true, clusters: [{name: b, weight: %d}, {name: a, weight: %d}]}}`, weight, 100-weight)))
	}
	moved := 0
	was := map[int]string{}
	for _, weight := range []int{10, 50, 100} {
		table := at(weight)
		for user := range 200 {
			in := get("GET h/p", fmt.Sprintf("cookie: u=%d", user))
			in.Random = uint64(user * 7919) //nolint:gosec // small
			got := table.Find(in).Forward.Pick(in).Cluster
			if was[user] == "b" && got == "a" {
				t.Fatalf("user %d went back to a at weight %d", user, weight)
			}
			if was[user] == "a" && got == "b" {
				moved++
			}
			was[user] = got
		}
	}
	if moved < 100 {
		t.Errorf("only %d of 200 users moved", moved)
	}
	in := get("GET h/p")
	in.Info.Remote, in.Info.Local = netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("10.0.0.2:80")
	f := at(50).Find(in).Forward
	first := f.Pick(in).Cluster
	_, ok, cookie := f.Hash(in)
	pair, rest, _ := strings.Cut(cookie, ";")
	if !ok || rest != " HttpOnly" {
		t.Fatalf("set-cookie %q", cookie)
	}
	again := get("GET h/p", "cookie: "+pair)
	if got := f.Pick(again).Cluster; got != first {
		t.Errorf("the second request went to %s, the first to %s", got, first)
	}
}

func TestHashes(t *testing.T) {
	hash := func(policies string, in *Input) (uint64, bool, string) {
		return compile(t, forwarding("{cluster: c, hash_policy: ["+policies+"]}")).Find(in).Forward.Hash(in)
	}
	// XXH64 of "a", with seed 0.
	const a = 0xd24ec4f1a98c6e5b
	for _, c := range []struct {
		policies string
		in       *Input
		want     uint64
		ok       bool
	}{
		{"{header: {header_name: X}}", get("GET h/p", "x: a"), a, true},
		{"{header: {header_name: x}}", get("GET h/p"), 0, false},
		{"{header: {header_name: x, regex_rewrite: {pattern: {regex: 'b+'}, substitution: a}}}", get("GET h/p", "x: bbb"), a, true},
		{"{query_parameter: {name: x}}", get("GET h/p?x=a"), a, true},
		{"{cookie: {name: x}}", get("GET h/p", `cookie: x="a"`), a, true},
		{"{cookie: {name: x}}", get("GET h/p"), 0, false},
		{"{header: {header_name: x}}, {header: {header_name: x}}", get("GET h/p", "x: a"), bits.RotateLeft64(a, 1) ^ a, true},
		{"{header: {header_name: x}, terminal: true}, {header: {header_name: x}}", get("GET h/p", "x: a"), a, true},
		{"{header: {header_name: z}, terminal: true}, {header: {header_name: x}}", get("GET h/p", "x: a"), a, true},
	} {
		if got, ok, _ := hash(c.policies, c.in); ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %x %v, want %x %v", c.policies, got, ok, c.want, c.ok)
		}
	}
	one, _, _ := hash("{header: {header_name: x}}", get("GET h/p", "x: a", "x: b"))
	two, _, _ := hash("{header: {header_name: x}}", get("GET h/p", "x: b", "x: a"))
	if one != two || one == a {
		t.Errorf("two lines in either order: %x and %x", one, two)
	}
	in := get("GET h/p")
	in.Info.Remote, in.Info.FilterState = netip.MustParseAddrPort("1.2.3.4:5"), map[string]string{"k": "a"}
	source, ok, _ := hash("{connection_properties: {source_ip: true}}", in)
	if byHeader, _, _ := hash("{header: {header_name: x}}", get("GET h/p", "x: 1.2.3.4")); !ok || source != byHeader {
		t.Errorf("source address: %x, want %x", source, byHeader)
	}
	if got, ok, _ := hash("{filter_state: {key: k}}", in); !ok || got != a {
		t.Errorf("filter state: %x", got)
	}
	if _, _, cookie := hash("{cookie: {name: c, ttl: 60s, path: /p, attributes: [{name: SameSite, value: Strict}, {name: Secure}]}}", in); !strings.HasSuffix(cookie, `"; Max-Age=60; Path=/p; SameSite=Strict; Secure; HttpOnly`) {
		t.Errorf("set-cookie: %s", cookie)
	}
}
