package matcher

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"
)

func parseChains(t *testing.T, text string) (func(ConnInput) (string, bool), error) {
	t.Helper()
	js, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m := new(xdsmatcherv3.Matcher)
	if err := protojson.Unmarshal(js, m); err != nil {
		t.Fatal(err)
	}
	return CompileChains(m)
}

const (
	inputs = `"@type": type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.`
	action = `{action: {name: a, typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: `
)

func input1(name string) string { return `{name: i, typed_config: {` + inputs + name + `}}` }

func to(chain string) string { return action + chain + `}}}` }

func TestChains(t *testing.T) {
	ports := func(port, chain string) string {
		return `{matcher: {matcher_tree: {input: ` + input1("DestinationPortInput") + `, exact_match_map: {map: {"` + port + `": ` + to(chain) + `}}}}}`
	}
	find, err := parseChains(t, `
on_no_match: `+to("other")+`
matcher_tree:
  input: `+input1("DestinationIPInput")+`
  custom_match:
    name: ip
    typed_config:
      "@type": type.googleapis.com/xds.type.matcher.v3.IPMatcher
      range_matchers:
      - {ranges: [{address_prefix: 10.0.0.1, prefix_len: 32}], on_match: `+ports("80", "one")+`}
      - {ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}], on_match: `+ports("81", "net")+`}
      - {ranges: [{address_prefix: 10.0.0.0, prefix_len: 16}], exclusive: true, on_match: `+ports("82", "alone")+`}
      - {ranges: [{address_prefix: "fd00::1", prefix_len: 128}], on_match: `+to("six")+`}
      - ranges: [{address_prefix: 10.0.0.2, prefix_len: 32}]
        on_match: {matcher: {on_no_match: `+to("tcp")+`, matcher_tree: {input: `+input1("ApplicationProtocolInput")+`, exact_match_map: {map: {"'h2c'": `+to("http")+`}}}}}
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ to, alpn, want string }{
		{"10.0.0.1:80", "", "one"},
		{"10.0.0.1:81", "", "net"},
		{"10.0.0.1:82", "", "other"},
		{"10.0.0.9:82", "", "alone"},
		{"10.0.0.9:83", "", "other"},
		{"10.0.0.2:5", "", "tcp"},
		{"10.0.0.2:5", "h2c", "http"},
		{"10.0.0.2:5", "http/1.1", "tcp"},
		{"[::ffff:10.0.0.1]:80", "", "one"},
		{"[fd00::1]:1", "", "six"},
		{"[fd00::2]:1", "", "other"},
	} {
		in := ConnInput{Destination: netip.MustParseAddrPort(c.to)}
		if c.alpn != "" {
			in.ApplicationProtocols = []string{c.alpn}
		}
		if got, ok := find(in); got != c.want || !ok {
			t.Errorf("%s %s: %s, want %s", c.to, c.alpn, got, c.want)
		}
	}
}

func TestChainsByNameAndPredicate(t *testing.T) {
	find, err := parseChains(t, `
matcher_list:
  matchers:
  - predicate:
      and_matcher: {predicate: [
        {single_predicate: {input: `+input1("TransportProtocolInput")+`, value_match: {exact: tls}}},
        {not_matcher: {single_predicate: {input: `+input1("ServerNameInput")+`, value_match: {suffix: .internal}}}}]}
    on_match: {matcher: {matcher_tree: {input: `+input1("ServerNameInput")+`, custom_match: {name: names, typed_config: {
      "@type": type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher,
      domain_matchers: [{domains: [a.b.c], on_match: `+to("exact")+`}, {domains: ["*.c"], on_match: `+to("short")+`}, {domains: ["*.b.c"], on_match: `+to("long")+`}]}}}}}
`)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a.b.c": "exact", "A.b.c": "exact", "x.y.b.c": "long", "b.c": "short", "c": "", "a.internal": ""} {
		got, ok := find(ConnInput{ServerName: name, TransportProtocol: "tls"})
		if got != want || ok != (want != "") {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if _, ok := find(ConnInput{ServerName: "a.b.c", TransportProtocol: "raw_buffer"}); ok {
		t.Error("plain text took the chain of TLS")
	}
}

// Before a connection's first bytes are read, a destination whose chain hangs on them is
// told apart from one that has none.
// Who calls, and from where, finds a chain.
func TestChainsByCaller(t *testing.T) {
	const key = "io.istio.peer_principal"
	caller := `{name: i, typed_config: {` + inputs + `FilterStateInput, key: ` + key + `}}`
	find, err := parseChains(t, `
on_no_match: `+to("others")+`
matcher_list:
  matchers:
  - predicate: {and_matcher: {predicate: [{single_predicate: {input: `+caller+`, value_match: {prefix: "spiffe://td/ns/a/sa/"}}}, {single_predicate: {input: `+caller+`, value_match: {safe_regex: {google_re2: {}, regex: ".*/sa/(x|y)"}}}}]}}
    on_match: `+to("caller")+`
  - predicate: {single_predicate: {input: `+input1("SourceIPInput")+`, custom_match: {name: ip, typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.input_matchers.ip.v3.Ip, stat_prefix: s, cidr_ranges: [{address_prefix: 10.9.8.0, prefix_len: 24}, {address_prefix: "fd00::", prefix_len: 8}]}}}}
    on_match: `+to("from")+`
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ caller, source, want string }{
		{"spiffe://td/ns/a/sa/x", "10.9.8.1:1", "caller"}, {"spiffe://td/ns/a/sa/z", "10.9.8.1:1", "from"}, {"spiffe://td/ns/b/sa/x", "[::ffff:10.9.8.1]:1", "from"},
		{"", "[fd00::1]:1", "from"}, {"", "10.9.9.1:1", "others"}, {"spiffe://td/ns/ab/sa/x", "10.9.9.1:1", "others"},
	} {
		in := ConnInput{Source: netip.MustParseAddrPort(tc.source), FilterState: map[string]string{key: tc.caller}}
		if got, ok := find(in); !ok || got != tc.want {
			t.Errorf("%s from %s: %q, want %q", tc.caller, tc.source, got, tc.want)
		}
	}
	if got, ok := find(ConnInput{}); !ok || got != "others" {
		t.Errorf("nobody: %q", got)
	}
}

func TestUndecidedChains(t *testing.T) {
	byName := `{matcher: {matcher_list: {matchers: [{predicate: {single_predicate: {input: ` + input1("ServerNameInput") + `, value_match: {exact: a.b}}}, on_match: ` + to("named") + `}]}}}`
	find, err := parseChains(t, `matcher_tree: {input: `+input1("DestinationPortInput")+`, exact_match_map: {map: {"443": `+byName+`, "80": `+to("plain")+`}}}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		to, chain string
		undecided bool
	}{{"10.0.0.1:443", "", true}, {"10.0.0.1:80", "plain", false}, {"10.0.0.1:81", "", false}} {
		undecided := false
		got, _ := find(ConnInput{Destination: netip.MustParseAddrPort(c.to), Undecided: &undecided})
		if got != c.chain || undecided != c.undecided {
			t.Errorf("%s: %q, undecided %v", c.to, got, undecided)
		}
	}
	undecided := false
	if got, ok := find(ConnInput{Destination: netip.MustParseAddrPort("10.0.0.1:443"), ServerName: "b", Undecided: &undecided}); ok || undecided {
		t.Errorf("another name: %q, undecided %v", got, undecided)
	}
}

func TestChainsRefuse(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`on_no_match: {action: {name: x, typed_config: {"@type": type.googleapis.com/google.protobuf.BoolValue, value: true}}}`, "only a StringValue"},
		{`on_no_match: {}`, "neither matcher nor action"},
		{`matcher_tree: {input: {name: i, typed_config: {"@type": type.googleapis.com/google.protobuf.BoolValue, value: true}}, exact_match_map: {}}`, `input "i"`},
	} {
		if _, err := parseChains(t, c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.text, err, c.want)
		}
	}
}

// What a real istiod sent compiles, and each chain's own name leads to a chain.
func TestChainsOfIstiod(t *testing.T) {
	files, _ := filepath.Glob("../../../../shared/oracle/*/waypoint*.json")
	if len(files) == 0 {
		t.Skip("no recordings of istiod here")
	}
	for _, file := range files {
		b, err := os.ReadFile(file) //nolint:gosec // the test's own data
		if err != nil {
			t.Fatal(err)
		}
		var all struct {
			Listeners map[string]json.RawMessage
		}
		if err := json.Unmarshal(b, &all); err != nil {
			t.Fatal(err)
		}
		for name, raw := range all.Listeners {
			var l struct{ FilterChainMatcher json.RawMessage }
			if json.Unmarshal(raw, &l) != nil || l.FilterChainMatcher == nil {
				continue
			}
			m := new(xdsmatcherv3.Matcher)
			if err := protojson.Unmarshal(l.FilterChainMatcher, m); err != nil {
				t.Fatal(err)
			}
			if _, err := CompileChains(m); err != nil {
				t.Errorf("%s %s: %v", file, name, err)
			}
		}
	}
}
