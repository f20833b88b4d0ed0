package route

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// lines are fields as "name: value".
func lines(f message.Fields) []string {
	var out []string
	for _, l := range f {
		out = append(out, l.Name+": "+l.Value)
	}
	return out
}

func TestRewrites(t *testing.T) {
	for _, c := range []struct {
		match, action, request string
		authority, path        string
		fields                 []string
	}{
		{"prefix: /p", "cluster: c, prefix_rewrite: /q", "GET h/p/x?y", "h", "/q/x?y", []string{"x-envoy-original-path: /p/x?y"}},
		{"prefix: /p/", "cluster: c, prefix_rewrite: /", "GET h/p/x", "h", "/x", []string{"x-envoy-original-path: /p/x"}},
		{"path: /p", "cluster: c, prefix_rewrite: /q", "GET h/p?y", "h", "/q?y", []string{"x-envoy-original-path: /p?y"}},
		{"path_separated_prefix: /p", "cluster: c, prefix_rewrite: /q", "GET h/p/x", "h", "/q/x", []string{"x-envoy-original-path: /p/x"}},
		{"safe_regex: {regex: '/p.*'}", "cluster: c, prefix_rewrite: /q", "GET h/p/x?y", "h", "/q?y", []string{"x-envoy-original-path: /p/x?y"}},
		{"prefix: /", `cluster: c, regex_rewrite: {pattern: {regex: "^/(\\w+)/(\\w+)"}, substitution: '/\2/\1'}`, "GET h/a/b/c?a/b", "h", "/b/a/c?a/b", []string{"x-envoy-original-path: /a/b/c?a/b"}},
		{"prefix: /", `cluster: c, regex_rewrite: {pattern: {regex: "a"}, substitution: '\0\\'}`, "GET h/aa", "h", `/a\a\`, []string{"x-envoy-original-path: /aa"}},
		{"prefix: /", "cluster: c, host_rewrite_literal: new", "GET h:1/", "new", "/", []string{"x-envoy-original-host: h:1"}},
		{"prefix: /", "cluster: c, host_rewrite_header: X-To", "GET h/", "h", "/", nil},
		{"prefix: /", `cluster: c, host_rewrite_path_regex: {pattern: {regex: "^/([^/]+).*$"}, substitution: '\1.ex'}`, "GET h/a/b?c", "a.ex", "/a/b?c", []string{"x-envoy-original-host: h"}},
		{"prefix: /", "cluster: c, host_rewrite_literal: new, append_x_forwarded_host: true", "GET h/", "new", "/", []string{"x-forwarded-host: h", "x-envoy-original-host: h"}},
		{template("/a/{v=*}/{r=**}"), rewriteTemplate("/{r}/x/{v}"), "GET h/a/1/b/c?d", "h", "/b/c/x/1?d", []string{"x-envoy-original-path: /a/1/b/c?d"}},
	} {
		table := compile(t, "virtual_hosts: [{name: v, domains: ['*'], routes: [{name: r, match: {"+c.match+"}, route: {"+c.action+"}}]}]")
		in := get(c.request)
		r := table.Find(in)
		if r == nil {
			t.Errorf("%s: no route", c.request)
			continue
		}
		r.RewriteRequest(in, r.Forward.Pick(in), true)
		if in.Request.Authority != c.authority || in.Request.Path != c.path || !cmp.Equal(lines(in.Request.Fields), c.fields) {
			t.Errorf("%s of %s: %s%s %q, want %s%s %q", c.action, c.request, in.Request.Authority, in.Request.Path, lines(in.Request.Fields), c.authority, c.path, c.fields)
		}
	}
}

func template(path string) string {
	return `path_match_policy: {name: m, typed_config: {"@type": type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '` + path + `'}}`
}

func rewriteTemplate(path string) string {
	return `cluster: c, path_rewrite_policy: {name: m, typed_config: {"@type": type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig, path_template_rewrite: '` + path + `'}}`
}

func TestTemplates(t *testing.T) {
	for _, c := range []struct {
		template, path string
		want           bool
	}{
		{"/a/*", "/a/b", true},
		{"/a/*", "/a/b/c", false},
		{"/a/*", "/a/", false},
		{"/a/**", "/a/b/c", true},
		{"/a/**", "/b", false},
		{"/{x}/b", "/q/b", true},
		{"/{x=a/*}/b", "/a/1/b", true},
		{"/v1/*.json", "/v1/x.json", true},
		{"/v1/*.json", "/v1/xAjson", false},
	} {
		table := compile(t, one("{"+template(c.template)+"}"))
		if got := table.Find(get("GET h"+c.path+"?q")) != nil; got != c.want {
			t.Errorf("%s on %s: %v", c.template, c.path, got)
		}
	}
	for _, bad := range []string{"a", "/a//b", "/{a", "/{a}/{a}", "/{1}", "/**/x", "/{a}/{b}/{c}/{d}/{e}/{f}"} {
		if _, err := Compile(parse(t, one("{"+template(bad)+"}")), Options{}); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func TestHeaderMutations(t *testing.T) {
	const config = `
%s
request_headers_to_add: [{header: {key: order, value: table}}]
response_headers_to_add: [{header: {key: order, value: table}}]
virtual_hosts:
- name: v
  domains: ['*']
  request_headers_to_add: [{header: {key: order, value: host}}]
  response_headers_to_add: [{header: {key: order, value: host}}]
  routes:
  - name: r
    match: {prefix: /}
    request_headers_to_remove: [gone]
    request_headers_to_add:
    - {header: {key: order, value: route}}
    - {header: {key: Set, value: "%%REQ(set)%%+%%REQ(:path)%%"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
    - {header: {key: gone, value: back}, append_action: ADD_IF_ABSENT}
    - {header: {key: there, value: "no"}, append_action: ADD_IF_ABSENT}
    - {header: {key: never, value: "no"}, append_action: OVERWRITE_IF_EXISTS}
    - {header: {key: there, value: over}, append_action: OVERWRITE_IF_EXISTS}
    - {header: {key: empty, value: "%%REQ(nothing)%%"}}
    - {header: {key: kept, value: "%%REQ(nothing)%%"}, keep_empty_value: true}
    response_headers_to_add: [{header: {key: order, value: route}}]
    route:
      weighted_clusters:
        clusters:
        - name: c
          weight: 1
          host_rewrite_literal: other
          request_headers_to_add: [{header: {key: order, value: cluster}}]
          response_headers_to_add: [{header: {key: order, value: cluster}}]
`
	for _, c := range []struct{ config, order string }{
		{"", "cluster route host table"},
		{"most_specific_header_mutations_wins: true", "cluster table host route"},
	} {
		table := compile(t, fmt.Sprintf(config, c.config))
		in := get("GET h/p", "gone: 1", "set: 1", "set: 2", "there: 1")
		r := table.Find(in)
		choice := r.Forward.Pick(in)
		r.RewriteRequest(in, choice, true)
		var order []string
		for _, f := range in.Request.Fields {
			if f.Name == "order" {
				order = append(order, f.Value)
			}
		}
		if got := strings.Join(order, " "); got != c.order {
			t.Errorf("%s: request changes in order %s, want %s", c.config, got, c.order)
		}
		for name, want := range map[string]string{"set": "1+/p", "gone": "back", "there": "over", "never": "", "empty": "", "kept": ""} {
			if v, _ := in.Request.Fields.Joined(name); v != want {
				t.Errorf("%s is %q, want %q", name, v, want)
			}
		}
		if _, ok := in.Request.Fields.Lookup("kept"); !ok {
			t.Error("an empty value that was to be kept is gone")
		}
		if in.Request.Authority != "other" {
			t.Errorf("authority %s", in.Request.Authority)
		}
		resp := &message.Response{Status: 200}
		r.ResponseHeaders(resp, in.Info, choice)
		order = nil
		for _, f := range resp.Fields {
			order = append(order, f.Value)
		}
		if got := strings.Join(order, " "); got != c.order {
			t.Errorf("%s: response changes in order %s, want %s", c.config, got, c.order)
		}
	}
}

func TestRedirects(t *testing.T) {
	for _, c := range []struct{ match, redirect, request, scheme, want string }{
		{"prefix: /", "https_redirect: true", "GET h/a?b", "http", "https://h/a?b"},
		{"prefix: /", "https_redirect: true", "GET h:80/a", "http", "https://h/a"},
		{"prefix: /", "https_redirect: true", "GET h:8080/a", "http", "https://h:8080/a"},
		{"prefix: /", "scheme_redirect: http", "GET h:443/a", "https", "http://h/a"},
		{"prefix: /", "port_redirect: 8443", "GET h:80/a", "http", "http://h:8443/a"},
		{"prefix: /", "port_redirect: 8443", "GET [::1]:80/a", "http", "http://[::1]:8443/a"},
		{"prefix: /", "host_redirect: new", "GET h:80/a", "http", "http://new/a"},
		{"prefix: /", "path_redirect: /x", "GET h/a?b", "http", "http://h/x?b"},
		{"prefix: /", "path_redirect: x", "GET h/a?b", "http", "http://h/x?b"},
		{"prefix: /", "path_redirect: '/x?y', strip_query: true", "GET h/a?b", "http", "http://h/x?y"},
		{"prefix: /", "path_redirect: /x, strip_query: true", "GET h/a?b", "http", "http://h/x"},
		{"prefix: /a", "prefix_rewrite: /x", "GET h/a/c?b", "http", "http://h/x/c?b"},
		{"prefix: /a", "prefix_rewrite: /x, strip_query: true", "GET h/a/c?b", "http", "http://h/x/c"},
		{"prefix: /a", `regex_rewrite: {pattern: {regex: "^/a/(.*)$"}, substitution: '/\1'}`, "GET h/a/c?b", "http", "http://h/c?b"},
	} {
		table := compile(t, "virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {"+c.match+"}, redirect: {response_code: FOUND, "+c.redirect+"}}]}]")
		in := get(c.request)
		in.Request.Scheme = c.scheme
		r := table.Find(in)
		if got := r.Location(in); got != c.want || r.Redirect.Status != 302 {
			t.Errorf("%s of %s: %d %s, want %s", c.redirect, c.request, r.Redirect.Status, got, c.want)
		}
	}
}

func TestRequireTLS(t *testing.T) {
	table := compile(t, "virtual_hosts: [{name: v, domains: ['*'], require_tls: ALL, routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]")
	in := get("GET h/a")
	if r := table.Find(in); r.Redirect == nil || r.Redirect.Status != 301 || r.Location(in) != "https://h/a" || r.VirtualHost() != "v" {
		t.Errorf("plain text: %+v", r)
	}
	in.Scheme = "https"
	if r := table.Find(in); r.Direct == nil {
		t.Errorf("TLS: %+v", r)
	}
}

func TestDirectResponses(t *testing.T) {
	table := compile(t, `
max_direct_response_body_size_bytes: 10
virtual_hosts:
- name: v
  domains: ['*']
  routes:
  - {match: {path: /text}, direct_response: {status: 404, body: {inline_string: "not here"}}}
  - {match: {path: /format}, direct_response: {status: 200, body_format: {text_format: "%REQ(:path)% %REQ(x)%", content_type: text/x}}}
  - {match: {path: /json}, direct_response: {status: 200, body_format: {json_format: {p: "%REQ(:path)%", q: "%REQ(x)%"}}}}
  - {match: {path: /moved}, direct_response: {status: 301}}
  - {match: {path: /wrap}, direct_response: {status: 200, body: {inline_string: "body"}, body_format: {text_format: "<%LOCAL_REPLY_BODY%>"}}}
`)
	for path, want := range map[string]string{"/text": "404 not here ", "/format": "200 /format - text/x", "/json": `200 {"p":"/json","q":null}` + "\n application/json", "/moved": "301  ", "/wrap": "200 <body> "} {
		in := get("GET h" + path)
		d := table.Find(in).Direct
		if got := fmt.Sprint(d.Status, " ", d.Body(in.Info), " ", d.ContentType); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if in := get("GET h/moved"); table.Find(in).Location(in) != "http://h/moved" {
		t.Error("a direct 301 points elsewhere")
	}
	if _, err := Compile(parse(t, `{virtual_hosts: [{name: v, domains: [a], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: "12345678901"}}}]}], max_direct_response_body_size_bytes: 10}`), Options{}); err == nil {
		t.Error("a body over the limit is accepted")
	}
}

func TestRetries(t *testing.T) {
	table := compile(t, `
virtual_hosts:
- name: v
  domains: ['*']
  retry_policy: {retry_on: reset}
  routes:
  - match: {path: /own}
    route:
      cluster: c
      retry_policy:
        retry_on: "5xx, connect-failure,unavailable,retriable-status-codes,what"
        num_retries: 3
        per_try_timeout: 2s
        retriable_status_codes: [418]
        retry_back_off: {base_interval: 0.1s, max_interval: 0.5s}
        host_selection_retry_max_attempts: 5
        retry_host_predicate: [{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]
        retry_priority: {name: q, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig, update_frequency: 2}}
        retriable_request_headers: [{name: ":method", string_match: {exact: GET}}]
  - match: {path: /host}
    route: {cluster: c}
`)
	r := table.Find(get("GET h/own")).Forward.Retry
	r.RequestHeaders = nil
	if diff := cmp.Diff(r, &Retry{
		On: On5xx | OnConnectFailure | OnUnavailable | OnRetriableStatusCodes, Retries: 3, PerTry: 2 * time.Second, Statuses: []int{418},
		Base: 100 * time.Millisecond, Max: 500 * time.Millisecond, HostAttempts: 5, PreviousHosts: true, PreviousPriorities: 2,
	}); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(table.Find(get("GET h/host")).Forward.Retry, &Retry{
		On: OnReset, Retries: 1, Base: 25 * time.Millisecond, Max: 250 * time.Millisecond, HostAttempts: 1,
	}); diff != "" {
		t.Error(diff)
	}
}

func TestForwardSettings(t *testing.T) {
	table := compile(t, `
request_mirror_policies: [{cluster: all}]
virtual_hosts:
- name: v
  domains: ['*']
  include_request_attempt_count: true
  routes:
  - match: {path: /a}
    decorator: {operation: op}
    metadata: {filter_metadata: {istio: {config: x}}}
    route:
      cluster_header: X-To
      timeout: 0s
      idle_timeout: 3s
      max_stream_duration: {max_stream_duration: 4s, grpc_timeout_header_max: 0s}
      cluster_not_found_response_code: INTERNAL_SERVER_ERROR
      priority: HIGH
      upgrade_configs: [{upgrade_type: WebSocket}, {upgrade_type: CONNECT, enabled: false, connect_config: {}}]
      metadata_match: {filter_metadata: {envoy.lb: {version: v1}}}
      request_mirror_policies: [{cluster: m, runtime_fraction: {default_value: {numerator: 50}}, disable_shadow_host_suffix_append: true}, {cluster_header: x-to}]
  - match: {path: /b}
    route: {cluster: c, auto_host_rewrite: true}
`)
	in := get("GET h/a", "x-to: t")
	r := table.Find(in)
	f := r.Forward
	if f.Timeout != 0 || *f.IdleTimeout != 3*time.Second || *f.MaxDuration != 4*time.Second || *f.GRPCHeaderMax != 0 || f.MaxGRPCTimeout != nil {
		t.Errorf("timeouts: %+v", f)
	}
	if f.NotFoundStatus != 500 || !f.HighPriority || !f.Upgrades["websocket"] || f.Upgrades["connect"] || !f.ConnectTerminates {
		t.Errorf("settings: %+v", f)
	}
	if c := f.Pick(in); c.Cluster != "t" || c.MetadataMatch()["version"] != "v1" {
		t.Errorf("choice: %+v", c)
	}
	if in.Random = 49; f.Mirrors[0].Cluster(in) != "m" || !f.Mirrors[0].KeepHost || f.Mirrors[1].Cluster(in) != "t" {
		t.Error("mirrors do not go where they should")
	}
	if in.Random = 50; f.Mirrors[0].Cluster(in) != "" {
		t.Error("a mirror took what its fraction leaves out")
	}
	if r.Decorator != "op" || r.Metadata["istio"]["config"] != "x" || !r.AttemptCountInRequest() || r.AttemptCountInResponse() {
		t.Errorf("route: %+v", r)
	}
	b := table.Find(get("GET h/b")).Forward
	if b.Timeout != 15*time.Second || b.NotFoundStatus != 503 || !b.AutoHostRewrite || len(b.Mirrors) != 1 || b.Mirrors[0].Cluster(in) != "all" {
		t.Errorf("defaults: %+v", b)
	}
}

func TestFilterConfigurations(t *testing.T) {
	const cfg = `{"@type": type.googleapis.com/google.protobuf.StringValue, value: `
	config := `
typed_per_filter_config: {f: ` + cfg + `table}, g: ` + cfg + `table}, o: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, is_optional: true, config: ` + cfg + `bad}}}
virtual_hosts:
- name: v
  domains: ['*']
  typed_per_filter_config: {f: ` + cfg + `host}}
  routes:
  - match: {path: /a}
    typed_per_filter_config: {f: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}
    route: {weighted_clusters: {clusters: [{name: c, weight: 1, typed_per_filter_config: {g: ` + cfg + `cluster}}}]}}
`
	table, err := Compile(parse(t, config), Options{Filter: func(_ string, a *anypb.Any) (any, error) {
		m, err := a.UnmarshalNew()
		if s := fmt.Sprint(m); strings.Contains(s, "bad") {
			err = errors.New("bad")
		}
		return m, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	in := get("GET h/a")
	r := table.Find(in)
	c := r.Forward.Pick(in)
	for name, want := range map[string]string{"f": "host true", "g": "cluster false", "o": "nil false", "x": "nil true"} {
		cfg, disabled := r.Filter(name, c), r.Disabled(name, c, name == "x")
		text := "nil"
		if v, ok := cfg.(interface{ GetValue() string }); ok {
			text = v.GetValue()
		}
		if got := fmt.Sprint(text, " ", disabled); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if len(table.Warnings) != 1 || !strings.Contains(table.Warnings[0], `["o"] is optional`) {
		t.Errorf("warnings: %q", table.Warnings)
	}
}

func TestLegacyFields(t *testing.T) {
	table, err := Compile(parse(t, `
virtual_hosts:
- name: v
  domains: ['*']
  per_request_buffer_limit_bytes: 7
  cors: {allow_methods: host}
  routes:
  - {match: {path: /a}, route: {cluster: c, cors: {allow_methods: route}}, request_body_buffer_limit: 9}
  - {match: {path: /b}, route: {cluster: c, rate_limits: [{actions: [{remote_address: {}}]}]}}
`), Options{Filter: func(name string, a *anypb.Any) (any, error) {
		m, err := a.UnmarshalNew()
		return name + " " + m.(interface{ GetAllowMethods() string }).GetAllowMethods(), err
	}})
	if err != nil {
		t.Fatal(err)
	}
	a, b := table.Find(get("GET h/a")), table.Find(get("GET h/b"))
	if *a.BufferLimit != 9 || *b.BufferLimit != 7 {
		t.Errorf("limits %d and %d", *a.BufferLimit, *b.BufferLimit)
	}
	for r, want := range map[*Route]string{a: "envoy.filters.http.cors route", b: "envoy.filters.http.cors host"} {
		if got := r.Filter("envoy.filters.http.cors", Choice{}); got != want {
			t.Errorf("cors: %v, want %s", got, want)
		}
	}
	if len(table.Warnings) != 1 || !strings.Contains(table.Warnings[0], "rate_limits have no effect") {
		t.Errorf("warnings: %q", table.Warnings)
	}
	again, err := CompileFrom(table, encoded(t, parse(t, "virtual_hosts: []")), table.common.options)
	if err != nil || len(again.Warnings) != 0 {
		t.Errorf("warnings of what is gone: %q %v", again.Warnings, err)
	}
}

func TestMatchesTLS(t *testing.T) {
	table := compile(t, one(`{prefix: /, tls_context: {presented: true, validated: true}}`))
	in := get("GET h/")
	in.Info.TLS = &tls.ConnectionState{}
	if table.Find(in) != nil {
		t.Error("matched without a certificate")
	}
}
