package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func virtualService(http string) string {
	return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec:\n  hosts: [a]\n  http:\n  - " + http + "\n"
}

func httpRouteRule(rule string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: [{group: '', kind: Service, name: a}]\n  rules:\n  - " + rule + "\n"
}

func TestRouteMessages(t *testing.T) {
	const to = "route: [{destination: {host: a}}]"
	for _, tc := range []struct{ name, text, want string }{
		{"no action", virtualService("{match: [{uri: {prefix: /}}]}"), "spec.http[0]: a rule needs one of route, redirect, directResponse and delegate"},
		{"two actions", virtualService("{redirect: {uri: /}, " + to + "}"), "spec.http[0].redirect: cannot be set together with route"},
		{"weights", virtualService("{route: [{destination: {host: a}}, {destination: {host: b}}]}"), "spec.http[0].route: the weights add up to 0: no destination would be chosen"},
		{"regex", virtualService("{match: [{uri: {regex: '(['}}], " + to + "}"), "spec.http[0].match[0].uri.regex: error parsing regexp: missing closing ]: `[` (regular expressions are RE2's, and must match the whole value)"},
		{"retryOn", virtualService("{retries: {attempts: 1, retryOn: 'gatewayerror,503'}, " + to + "}"), `spec.http[0].retries.retryOn: "gatewayerror" is neither a status code nor one of`},
		{"retryOn suggestion", virtualService("{retries: {attempts: 1, retryOn: 'gatewayerror,503'}, " + to + "}"), `did you mean "gateway-error"?`},
		{"timeout", virtualService("{timeout: 0s, " + to + "}"), "spec.http[0].timeout: 0s is shorter than 1ms"},
		{"abort", virtualService("{fault: {abort: {percentage: {value: 150}, httpStatus: 999}}, " + to + "}"), "spec.http[0].fault.abort.httpStatus: 999 is not between 200 and 599"},
		{"gRPC status", virtualService("{fault: {abort: {grpcStatus: UNAVAILABEL}}, " + to + "}"), `spec.http[0].fault.abort.grpcStatus: "UNAVAILABEL" is not a status of gRPC: write it like UNAVAILABLE`},
		{"method", virtualService("{corsPolicy: {allowMethods: [PSOT]}, " + to + "}"), `did you mean "POST"?`},
		{"wildcard destination", virtualService("{route: [{destination: {host: '*.bad'}}]}"), `spec.http[0].route[0].destination.host: "*.bad": a destination cannot be a wildcard`},
		{"unreachable", virtualService("{" + to + "}\n  - {" + to + "}"), "a.yaml:8: warning: VirtualService default/v: spec.http[1]: is never reached: spec.http[0] has no match, so it takes every request"},
		{"line", virtualService("match: [{headers: {'a b': {exact: x}}}]\n    " + to), `a.yaml:7: error: VirtualService default/v: spec.http[0].match[0].headers[a b]: "a b" is not a header name`},
		{"path", httpRouteRule("matches: [{path: {type: Prefix, value: /a}}]"), `a.yaml:7: error: HTTPRoute default/r: spec.rules[0].matches[0].path.type: "Prefix" is not one of Exact, PathPrefix, RegularExpression`},
		{"path form", httpRouteRule("matches: [{path: {value: /a//b}}]"), `spec.rules[0].matches[0].path.value: "/a//b" holds "//": paths are matched in their normal form`},
		{"bad regex is a warning", httpRouteRule("matches: [{path: {type: RegularExpression, value: '(['}}]"), "warning: HTTPRoute default/r: spec.rules[0].matches[0].path.value: error parsing regexp: missing closing ]: `[` (regular expressions are RE2's): nothing matches it"},
		{"filter's body", httpRouteRule("filters: [{type: URLRewrite}]"), "spec.rules[0].filters[0].urlRewrite: is needed with type URLRewrite"},
		{"filter twice", httpRouteRule("filters: [{type: CORS, cors: {}}, {type: CORS, cors: {}}]"), "spec.rules[0].filters[1].type: a filter of type CORS stands before: put both into one"},
		{"redirect with backends", httpRouteRule("{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a, port: 80}]}"), "spec.rules[0].filters[0].type: a redirect sends nothing to backends: remove backendRefs or the filter"},
		{"which prefix", httpRouteRule("{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}"), "needs a rule with exactly one match, by a path of type PathPrefix"},
		{"port", httpRouteRule("backendRefs: [{name: a}]"), "spec.rules[0].backendRefs[0].port: a backend of kind Service needs a port"},
		{"weight", httpRouteRule("backendRefs: [{name: a, port: 80, weight: -1}]"), "spec.rules[0].backendRefs[0].weight: -1 is not between 0 and 1000000"},
		{"timeouts", httpRouteRule("timeouts: {request: 1s, backendRequest: 2s}"), "spec.rules[0].timeouts.backendRequest: 2s is longer than the request's timeout of 1s"},
		{"duration", httpRouteRule("timeouts: {request: 1.5s}"), `spec.rules[0].timeouts.request: "1.5s" is not a duration: write it like "10s" or "1m30s"`},
		{"session", httpRouteRule("sessionPersistence: {type: Header, cookieConfig: {lifetimeType: Session}}"), "spec.rules[0].sessionPersistence.cookieConfig: goes with type Cookie alone"},
		{"parent's group", strings.Replace(httpRouteRule("{}"), "group: '', ", "", 1), `warning: HTTPRoute default/r: spec.parentRefs[0].kind: there is no Service in the group gateway.networking.k8s.io: write group: ""`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := strings.Join(lines(parseOne(tc.text)), "\n")
			if !strings.Contains(got, tc.want) {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// What istiod's webhook or the API server refuses is refused, and nothing else.
func TestOracleVirtualServices(t *testing.T) {
	files, err := filepath.Glob("../../../../shared/oracle/validate/*-vs-*.yaml")
	if err != nil || len(files) == 0 {
		t.Skip("the recorded answers are not here")
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		answer := func(kind string) string {
			out, err := os.ReadFile(strings.TrimSuffix(f, ".yaml") + "." + kind + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			return string(out)
		}
		good := strings.HasPrefix(answer("webhook"), "allowed: true") && strings.HasPrefix(answer("apiserver"), "accepted")
		if ours := len(parseOne(string(text)).VirtualServices) == 1; ours != good {
			t.Errorf("%s: accepted %v, istiod %v: %q", filepath.Base(f), ours, good, lines(parseOne(string(text))))
		}
	}
}

// The tutorial's routing manifests load as they are, comments alone skipped.
func TestSeedRouting(t *testing.T) {
	for name, objects := range map[string]int{"03-virtual-service": 1, "06-canary-weight-based": 1, "07-canary-content-based": 1, "10-retry-timeout": 1} {
		text, err := os.ReadFile("../../../../shared/seed/manifests/" + name + ".yaml")
		if err != nil {
			t.Skipf("the seed is not here: %v", err)
		}
		o := Parse([]File{{name + ".yaml", text}}, nil)
		if diff := cmp.Diff(objects, len(o.VirtualServices)); diff != "" || len(o.Problems) > 0 {
			t.Error(name, diff, lines(o))
		}
	}
}
