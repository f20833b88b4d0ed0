package differential

import (
	"fmt"
	"strings"
	"testing"
)

// answering makes a route with a direct response of its number, behind each match.
func answering(matches []string) string {
	var b strings.Builder
	for i, m := range matches {
		fmt.Fprintf(&b, "- {name: r%d, match: %s, direct_response: {status: 200, body: {inline_string: r%d}}}\n", i, m, i)
	}
	return b.String()
}

// Each match alone decides on each request as Envoy does.
func TestMatchPath(t *testing.T) {
	w := newWorld(t)
	matches := []string{
		`{prefix: /a}`, `{prefix: /A, case_sensitive: false}`, `{prefix: "/a?b"}`, `{path: /a}`, `{path: "/a/"}`, `{path: /A, case_sensitive: false}`,
		`{path_separated_prefix: /a}`, `{path_separated_prefix: /A, case_sensitive: false}`, `{path_separated_prefix: "/a/b"}`,
		`{safe_regex: {regex: "/a.c"}}`, `{safe_regex: {regex: "/a|/abc"}}`, `{safe_regex: {regex: "^/a$"}}`, `{safe_regex: {regex: "(?i)/A"}}`, `{safe_regex: {regex: ".*a"}}`, `{safe_regex: {regex: "/[^b]*"}}`,
		`{path: "/"}`, `{prefix: "//"}`, `{path: "/%61"}`,
	}
	paths := []string{"/", "/a", "/A", "/a/", "/a/b", "/a/B", "/a/bc", "/abc", "/ab", "/aXc", "/a?x=1", "/a?b", "/A?b=/a", "/a#f", "/%61", "/%2Fa", "//a", "/a//b", "/a/../b", "/a;p=1", "/\xc3\xa4", "/a%20b", "/ba"}
	ports := w.each(matches)
	w.load()
	for i, port := range ports {
		for _, p := range paths {
			w.send(fmt.Sprintf("%s on %s", matches[i], p), port, request{path: p})
		}
	}
	w.compare()
	w.compareStats()
}

// each makes a listener for each match; what does not match is 404.
func (w *world) each(matches []string) (ports []int) {
	for _, m := range matches {
		ports = append(ports, w.http("", oneRoute(answering([]string{m}))))
	}
	return ports
}

func TestMatchHeaders(t *testing.T) {
	w := newWorld(t)
	matches := []string{
		`{name: A, string_match: {exact: x}}`, `{name: a, string_match: {exact: "x,b"}}`, `{name: a, string_match: {exact: X, ignore_case: true}}`, `{name: a, string_match: {exact: ""}}`,
		`{name: a, string_match: {contains: X, ignore_case: true}}`, `{name: a, string_match: {suffix: X, ignore_case: true}}`, `{name: a, string_match: {prefix: x}}`,
		`{name: a, string_match: {safe_regex: {regex: "[0-9]+"}}}`, `{name: a, string_match: {safe_regex: {regex: ".*"}}}`,
		`{name: a, string_match: {exact: x}, invert_match: true}`, `{name: a, string_match: {exact: x}, invert_match: true, treat_missing_header_as_empty: true}`,
		`{name: a, string_match: {exact: ""}, treat_missing_header_as_empty: true}`, `{name: a, present_match: true}`, `{name: a, present_match: false}`,
		`{name: a, present_match: true, invert_match: true}`, `{name: a, present_match: false, invert_match: true}`, `{name: a, present_match: true, treat_missing_header_as_empty: true}`,
		`{name: a}`, `{name: a, invert_match: true}`, `{name: a, range_match: {start: -5, end: 13}}`, `{name: a, range_match: {start: -5, end: 5}, invert_match: true}`,
		`{name: ":method", string_match: {exact: GET}}`, `{name: host, string_match: {prefix: w}}`, `{name: ":authority", string_match: {prefix: w}}`, `{name: ":path", string_match: {contains: "q"}}`,
		`{name: ":scheme", string_match: {exact: http}}`, `{name: "content-length", present_match: true}`, `{name: "cookie", string_match: {contains: "a=x"}}`,
	}
	for i := range matches {
		matches[i] = "{prefix: /, headers: [" + matches[i] + "]}"
	}
	requests := map[string]request{
		"none": {}, "x": {fields: []string{"a: x"}}, "X": {fields: []string{"A: X"}}, "empty": {fields: []string{"a:"}}, "12": {fields: []string{"a: 12"}}, "-5": {fields: []string{"a: -5"}}, "13": {fields: []string{"a: 13"}},
		"1x": {fields: []string{"a: 1x"}}, "two": {fields: []string{"a: x", "a: b"}}, "list": {fields: []string{"a: x,b"}}, "spaces": {fields: []string{"a:  x "}}, "post": {method: "POST", body: "b"}, "query": {path: "/?q"},
		"cookie": {fields: []string{"cookie: b=1; a=x"}}, "cookies": {fields: []string{"cookie: b=1", "cookie: a=x"}}, "host": {host: "HOST:80"}, "comma": {fields: []string{"a: x, b"}}, "long": {fields: []string{"a: 123456789012345678901234567890"}},
	}
	ports := w.each(matches)
	w.load()
	for i, port := range ports {
		for name, r := range requests {
			w.send(fmt.Sprintf("%s on %s", matches[i], name), port, r)
			if i%4 == 0 {
				r.h2 = true
				w.send(fmt.Sprintf("%s on %s over HTTP/2", matches[i], name), port, r)
			}
		}
	}
	w.compare()
	w.compareStats()
}

func TestMatchQueryAndCookies(t *testing.T) {
	w := newWorld(t)
	matches := []string{
		`query_parameters: [{name: a, string_match: {exact: x}}]`, `query_parameters: [{name: a, string_match: {exact: ""}}]`, `query_parameters: [{name: a, present_match: true}]`,
		`query_parameters: [{name: a, present_match: false}]`, `query_parameters: [{name: a}]`, `query_parameters: [{name: a, string_match: {safe_regex: {regex: ".*x.*"}}}]`, `query_parameters: [{name: a, string_match: {prefix: x}}, {name: b}]`,
		`cookies: [{name: a, string_match: {exact: x}}]`, `cookies: [{name: a, string_match: {exact: x}, invert_match: true}]`, `cookies: [{name: a, string_match: {exact: ""}}]`,
		`grpc: {}`, `tls_context: {presented: true}`, `tls_context: {presented: false}`,
		`runtime_fraction: {default_value: {numerator: 100}}`, `runtime_fraction: {default_value: {numerator: 0}}`,
	}
	for i := range matches {
		matches[i] = "{prefix: /, " + matches[i] + "}"
	}
	ports := w.each(matches)
	w.load()
	for i, port := range ports {
		for _, q := range []string{"", "?", "?a", "?a=", "?a=x", "?A=x", "?a=X", "?a=y&a=x", "?a=x&a=y", "?b=1&a=x", "?a=%78", "?a=x%20", "?a=x+1", "?a=x;b=1", "?a=x#a=y", "?&a=x", "?a==x", "?ab=x", "?a=x&b", "?a=xyz&b=2"} {
			w.send(fmt.Sprintf("%s on %s", matches[i], q), port, request{path: "/p" + q})
		}
		for _, c := range []string{"a=x", "a=y", "b=1; a=x", "a=x; a=y", "a=", "a", " a=x ", `a="x"`, "A=x", "ab=x", "a=x;b=2"} {
			w.send(fmt.Sprintf("%s on cookie %s", matches[i], c), port, request{fields: []string{"cookie: " + c}})
		}
		for _, c := range []string{"application/grpc", "application/grpc+proto", "application/grpcx", "application/grpc; charset=x", "Application/grpc"} {
			w.send(fmt.Sprintf("%s on content-type %s", matches[i], c), port, request{method: "POST", fields: []string{"content-type: " + c}, h2: true})
		}
	}
	w.compare()
	w.compareStats()
}

// Virtual hosts are found as Envoy finds them.
func TestMatchDomains(t *testing.T) {
	w := newWorld(t)
	domains := []string{`"a.test"`, `"*.a.test"`, `"*-x.a.test"`, `"*.b.a.test"`, `"c.*"`, `"c.d.*"`, `"a.test:8080"`, `"*.e.test:9"`, `"[::1]"`, `"127.0.0.1"`, `"*"`}
	table := func(n int) string {
		text := "name: inline\nvirtual_hosts:\n"
		for i, d := range domains[:n] {
			text += fmt.Sprintf("- {name: v%d, domains: [%s], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: v%d}}}]}\n", i, d, i)
		}
		return text
	}
	ports := []int{w.http("", table(len(domains))), w.http("", table(len(domains)-1)), w.http("", "ignore_port_in_host_matching: true\n"+table(len(domains)-1)),
		w.http("strip_matching_host_port: true", table(len(domains)-1)), w.http("strip_any_host_port: true", table(len(domains)-1))}
	w.load()
	for i, port := range ports {
		for _, h := range []string{"a.test", "A.TEST", "x.a.test", "x-x.a.test", "-x.a.test", "b.a.test", "y.b.a.test", "c.z", "c.d.z", "c.", "c", "a.test:80", "a.test:8080", "a.test:", "x.e.test:9", "x.e.test", "[::1]", "[::1]:80", "127.0.0.1", "127.0.0.1:1", "", "a.test.", "c.a.test", fmt.Sprintf("a.test:%d", port)} {
			name := h
			if strings.HasSuffix(h, fmt.Sprint(port)) {
				name = "a.test and the port"
			}
			w.send(fmt.Sprintf("table %d on %s", i, name), port, request{host: h})
		}
	}
	w.compare()
	w.compareStats()
}
