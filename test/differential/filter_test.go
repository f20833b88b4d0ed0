package differential

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

const (
	faultType = `"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault`
	corsType  = `"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors`

	rbacType = `"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC`
)

func TestFaults(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	always := `percentage: {numerator: 100}`
	faults := []string{
		`abort: {http_status: 503, ` + always + `}`, `abort: {http_status: 418, ` + always + `}`, `abort: {grpc_status: 14, ` + always + `}`, `delay: {fixed_delay: 0.2s, ` + always + `}`,
		`delay: {fixed_delay: 0.1s, ` + always + `}, abort: {http_status: 400, ` + always + `}`, `abort: {http_status: 503, percentage: {numerator: 0}}`, `abort: {http_status: 503, ` + always + `}, headers: [{name: x-fault, string_match: {exact: "yes"}}]`,
		`abort: {http_status: 503, ` + always + `}, upstream_cluster: Faults.up`, `abort: {http_status: 503, ` + always + `}, upstream_cluster: other`,
		`abort: {header_abort: {}, ` + always + `}`, `abort: {header_abort: {}, percentage: {numerator: 0}}`, `delay: {header_delay: {}, ` + always + `}`, `delay: {header_delay: {}, ` + always + `}, abort: {header_abort: {}, percentage: {numerator: 1000000, denominator: MILLION}}`,
		`abort: {http_status: 503, ` + always + `}, max_active_faults: 0`, `abort: {http_status: 503, ` + always + `}, downstream_nodes: [m, "n"]`, `max_active_faults: 0, delay: {fixed_delay: 0.05s, ` + always + `}, abort: {http_status: 404, ` + always + `}`,
	}
	var ports []int
	for _, f := range faults {
		ports = append(ports, w.http(`http_filters: [{name: envoy.filters.http.fault, typed_config: {`+faultType+`, `+f+`}}]`, oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up}}")))
		ports = append(ports, w.http(`http_filters: [{name: envoy.filters.http.fault, typed_config: {`+faultType+`}}]`, oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up}, typed_per_filter_config: {envoy.filters.http.fault: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, "+f+"}}}")))
	}
	w.load()
	b := w.batch(16)
	for i, port := range ports {
		for _, r := range []request{{}, {h2: true}, {method: "HEAD"}, {method: "POST", body: "abc"}, {fields: []string{"x-fault: yes"}}, {fields: []string{"x-envoy-fault-abort-request: 429"}}, {fields: []string{"x-envoy-fault-abort-request: 429", "x-envoy-fault-abort-request-percentage: 0"}}, {fields: []string{"x-envoy-fault-abort-request: x"}}, {fields: []string{"x-envoy-fault-delay-request: 100"}}, {fields: []string{"x-envoy-fault-delay-request: 60", "x-envoy-fault-abort-request: 418"}}, {fields: []string{"x-envoy-fault-delay-request: x", "x-envoy-fault-abort-request: 199"}},
			{fields: []string{"x-envoy-fault-delay-request: 100", "x-envoy-fault-delay-request-percentage: 0", "x-envoy-fault-abort-request: 600"}}, {fields: []string{"x-envoy-fault-abort-request: 503", "x-envoy-fault-abort-request-percentage: nonsense", "x-envoy-fault-abort-grpc-request: 5"}},
			{fields: []string{"x-envoy-fault-abort-grpc-request: 5", "x-envoy-fault-abort-request-percentage: 100"}}, {fields: []string{"x-envoy-fault-abort-grpc-request: 5", "content-type: application/grpc"}, h2: true}, {fields: []string{"x-envoy-fault-abort-request: 404", "x-envoy-fault-abort-request: 405"}},
			{fields: []string{"x-envoy-fault-abort-grpc-request: 5"}}, {fields: []string{"x-envoy-downstream-service-node: n"}}, {method: "POST", h2: true, fields: []string{"content-type: application/grpc"}}} {
			b.send(fmt.Sprintf("%s in route %v on %s", faults[i/2], i%2 == 1, describe(r)), port, r)
		}
	}
	b.work.Wait()
	w.compare()
	w.compareStats()
	for i, port := range ports {
		if i%2 == 0 && len(faults[i/2]) > 6 && faults[i/2][:6] == "delay:" && faults[i/2][8:19] == "fixed_delay" {
			for _, p := range proxies() {
				start := time.Now()
				if ask(p, port, request{}.withDefaults(), p.mark+"-delay"); time.Since(start) < 95*time.Millisecond {
					t.Errorf("%s: %s: answered after %s", p.name, faults[i/2], time.Since(start))
				}
			}
		}
	}
}

// At most so many faults are active at a time, each until its exchange ends.
func TestActiveFaults(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	port := w.http(`http_filters: [{name: envoy.filters.http.fault, typed_config: {`+faultType+`, max_active_faults: 1, delay: {header_delay: {}, percentage: {numerator: 100}}, abort: {header_abort: {}, percentage: {numerator: 100}}}}]`, oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up}}"))
	w.load()
	active := func(n int64) {
		for _, p := range proxies() {
			until(t, fmt.Sprintf("%s has %d active faults", p.name, n), func() bool {
				stats, err := p.stats()
				return err == nil && stats["http."+w.prefixes[0]+".fault.active_faults"] == n
			})
		}
	}
	b := w.batch(1)
	b.send("the first is delayed and goes on", port, request{fields: []string{"x-envoy-fault-delay-request: 1000"}, script: "delay=1500ms"})
	active(1)
	for range 3 {
		w.send("others are not, or not aborted", port, request{fields: []string{"x-envoy-fault-abort-request: 418"}})
	}
	b.work.Wait()
	active(0)
	w.send("there is a place again", port, request{fields: []string{"x-envoy-fault-abort-request: 418"}})
	w.compare()
	w.compareStats()
}

// A filter that is disabled runs where a route has a configuration for it.
func TestDisabledFilters(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	const abort = `"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: 418, percentage: {numerator: 100}}`
	wrapped := func(config string) string {
		return `typed_per_filter_config: {envoy.filters.http.fault: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, ` + config + `}}`
	}
	own := `typed_per_filter_config: {envoy.filters.http.fault: {` + abort + `}}`
	route := func(path, more string) string {
		return "\n  - {name: r, match: {prefix: " + path + "}, route: {cluster: @up}, " + more + "}"
	}
	var ports []int
	for _, disabled := range []string{"true", "false"} {
		for _, host := range []string{"", own, wrapped("disabled: true"), wrapped(`config: {` + abort + `}`)} {
			routes := "name: inline\nvirtual_hosts:\n- name: all\n  domains: ['*']\n  " + host + "\n  routes:" + route("/own", own) + route("/off", wrapped("disabled: true")) + route("/on", wrapped(`config: {`+abort+`}`)) +
				"\n  - {name: r, match: {prefix: /weighted}, route: {weighted_clusters: {clusters: [{name: @up, weight: 1, " + own + "}]}}}" + route("/", "")
			ports = append(ports, w.http(`http_filters: [{name: envoy.filters.http.fault, disabled: `+disabled+`, typed_config: {`+abort+`}}]`, routes))
		}
	}
	w.load()
	for i, port := range ports {
		for _, path := range []string{"/own", "/off", "/on", "/weighted", "/none"} {
			w.send(fmt.Sprintf("%d on %s", i, path), port, request{path: path})
		}
	}
	w.compare()
	w.compareStats()
}

func TestCORS(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	policies := []string{
		`allow_origin_string_match: [{exact: "http://a.test"}]`, `allow_origin_string_match: [{prefix: "http://a"}, {suffix: ".b.test"}], allow_methods: "GET,POST", allow_headers: "x-a,x-b", expose_headers: "x-c", max_age: "600", allow_credentials: true`,
		`allow_origin_string_match: [{exact: "*"}]`, `allow_origin_string_match: [{safe_regex: {regex: "https?://[a-z]+[.]test"}}], allow_methods: "*"`, `allow_origin_string_match: [{exact: "http://a.test"}], forward_not_matching_preflights: false`,
		`allow_origin_string_match: [{exact: "http://a.test"}], forward_not_matching_preflights: true`, `filter_enabled: {default_value: {numerator: 0}}, allow_origin_string_match: [{exact: "http://a.test"}]`, `filter_enabled: {default_value: {numerator: 0}}, shadow_enabled: {default_value: {numerator: 100}}, allow_origin_string_match: [{exact: "http://a.test"}]`,
		`allow_origin_string_match: [{exact: "http://a.test"}], allow_private_network_access: true`, ``,
	}
	var ports []int
	for _, p := range policies {
		ports = append(ports, w.http(`http_filters: [{name: envoy.filters.http.cors, typed_config: {`+corsType+`}}]`, oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up}, typed_per_filter_config: {envoy.filters.http.cors: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy, "+p+"}}}")))
	}
	w.load()
	for i, port := range ports {
		for _, origin := range []string{"", "http://a.test", "http://ab.test", "https://x.b.test", "http://other.example", "HTTP://A.TEST", "null"} {
			for _, f := range [][]string{nil, {"access-control-request-method: GET"}, {"access-control-request-method: DELETE", "access-control-request-headers: x-a, x-z"}, {"access-control-request-method: GET", "access-control-request-private-network: true"}} {
				fields := f
				if origin != "" {
					fields = append([]string{"origin: " + origin}, f...)
				}
				for _, method := range []string{"OPTIONS", "GET"} {
					r := request{method: method, fields: fields, script: "h=access-control-allow-origin:up h=vary:x"}
					w.send(policies[i]+" on "+describe(r), port, r)
				}
			}
		}
	}
	w.compare()
	w.compareStats()
}

// Rules decide as in Envoy, and the log names the policy.
func TestHTTPRBAC(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	all := `permissions: [{any: true}], principals: [{any: true}]`
	policies := []string{
		all, `permissions: [{header: {name: ":method", string_match: {exact: GET}}}], principals: [{any: true}]`, `permissions: [{url_path: {path: {prefix: /a}}}], principals: [{any: true}]`, `permissions: [{url_path: {path: {exact: /a}}}], principals: [{any: true}]`, `permissions: [{url_path: {path: {suffix: b}}}], principals: [{any: true}]`,
		`permissions: [{url_path: {path: {safe_regex: {regex: "/a.*"}}}}], principals: [{any: true}]`, `permissions: [{header: {name: ":authority", string_match: {suffix: test, ignore_case: true}}}], principals: [{any: true}]`, `permissions: [{not_rule: {header: {name: x-a, present_match: true}}}], principals: [{any: true}]`,
		`permissions: [{and_rules: {rules: [{header: {name: ":method", string_match: {exact: GET}}}, {url_path: {path: {prefix: /a}}}]}}], principals: [{any: true}]`, `permissions: [{or_rules: {rules: [{header: {name: x-a, string_match: {exact: "1"}}}, {header: {name: x-a, string_match: {prefix: z}}}]}}], principals: [{any: true}]`,
		`permissions: [{any: true}], principals: [{remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}]`, `permissions: [{any: true}], principals: [{remote_ip: {address_prefix: 1.2.3.0, prefix_len: 24}}]`, `permissions: [{any: true}], principals: [{direct_remote_ip: {address_prefix: 127.0.0.1, prefix_len: 32}}]`, `permissions: [{any: true}], principals: [{source_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}]`,
		`permissions: [{destination_port: 1}], principals: [{any: true}]`, `permissions: [{destination_port_range: {start: 21000, end: 30000}}], principals: [{any: true}]`, `permissions: [{destination_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}], principals: [{any: true}]`, `permissions: [{requested_server_name: {exact: ""}}], principals: [{any: true}]`,
		`permissions: [{any: true}], principals: [{header: {name: x-a, string_match: {contains: "1"}}}]`, `permissions: [{any: true}], principals: [{not_id: {header: {name: x-a, string_match: {exact: "1"}}}}]`, `permissions: [{any: true}], principals: [{authenticated: {}}]`, `permissions: [{any: true}], principals: [{authenticated: {principal_name: {exact: "x"}}}]`,
		`permissions: [{any: true}], principals: [{url_path: {path: {prefix: /a}}}]`, `permissions: [{any: true}], principals: [{and_ids: {ids: [{any: true}, {header: {name: x-a, present_match: true}}]}}]`, `permissions: [{any: true}], principals: [{filter_state: {key: k, string_match: {exact: v}}}]`, `permissions: [{any: true}], principals: [{not_id: {filter_state: {key: k, string_match: {exact: v}}}}]`,
		`permissions: [{metadata: {filter: f, path: [{key: k}], value: {string_match: {exact: v}}}}], principals: [{any: true}]`, `permissions: [{any: true}], principals: [{metadata: {filter: f, path: [{key: k}], value: {present_match: true}, invert: true}}]`,
	}
	type one struct {
		port int
		what string
	}
	var ports []one
	for _, p := range policies {
		for _, action := range []string{"ALLOW", "DENY", "LOG"} {
			ports = append(ports, one{w.http(`http_filters: [{name: envoy.filters.http.rbac, typed_config: {`+rbacType+`, rules: {action: `+action+`, policies: {"the policy": {`+p+`}}}}}]`, oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up}}")), action + " " + p})
		}
	}
	ports = append(ports, one{w.http(`http_filters: [{name: envoy.filters.http.rbac, typed_config: {`+rbacType+`, rules: {action: ALLOW}}}]`, oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up}}")), "no policy allows"})
	ports = append(ports, one{w.http(`http_filters: [{name: envoy.filters.http.rbac, typed_config: {`+rbacType+`, rules: {action: DENY}}}]`, oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up}}")), "no policy denies"})
	ports = append(ports, one{w.http(`http_filters: [{name: envoy.filters.http.rbac, typed_config: {`+rbacType+`}}]`, oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up}}")), "no rules"})
	ports = append(ports, one{w.http(`http_filters: [{name: envoy.filters.http.rbac, typed_config: {`+rbacType+`, shadow_rules: {action: DENY, policies: {p: {`+all+`}}}}}]`, oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up}}")), "shadow"})
	ports = append(ports, one{w.http(`http_filters: [{name: envoy.filters.http.rbac, typed_config: {`+rbacType+`, rules: {action: DENY, policies: {b: {`+all+`}, a: {`+policies[1]+`}}}}}]`, oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up}}")), "two"})
	ports = append(ports, one{w.http(`http_filters: [{name: envoy.filters.http.rbac, typed_config: {`+rbacType+`, rules: {action: DENY, policies: {b: {`+all+`}}}}}]`, oneRoute("- {name: r, match: {prefix: /a}, route: {cluster: @up}, typed_per_filter_config: {envoy.filters.http.rbac: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute}}}\n- {name: r, match: {prefix: /b}, route: {cluster: @up}, typed_per_filter_config: {envoy.filters.http.rbac: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute, rbac: {rules: {action: ALLOW, policies: {p: {"+policies[1]+"}}}}}}}\n- {name: r, match: {prefix: /}, route: {cluster: @up}}")), "per route"})
	w.load()
	b := w.batch(4)
	for _, o := range ports {
		for _, r := range []request{{}, {path: "/a"}, {path: "/ab?x=/b"}, {path: "/b", method: "POST"}, {path: "/a/1", h2: true}, {fields: []string{"x-a: 1"}}, {fields: []string{"x-a: 1", "x-a: 2"}}, {fields: []string{"x-a: zz"}}, {host: "WEB.TEST"}, {fields: []string{"x-forwarded-for: 1.2.3.4"}}, {method: "POST", body: "abc"}, {method: "POST", h2: true, fields: []string{"content-type: application/grpc"}}, {method: "HEAD"}} {
			b.send(o.what+" on "+describe(r), o.port, r)
		}
	}
	b.work.Wait()
	w.compare()
	w.compareStats()
}

// Copies are sent, and look as Envoy's do.
func TestMirrors(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	w.cluster("copy", "", 1)
	w.cluster("copy2", http2Upstream, 2)
	policies := []string{`[{cluster: @copy}]`, `[{cluster: @copy, runtime_fraction: {default_value: {numerator: 0}}}]`, `[{cluster: @copy}, {cluster: @copy2}]`, `[{cluster: missing}]`, `[{cluster: @copy, disable_shadow_host_suffix_append: true}]`}
	var ports []int
	for _, p := range policies {
		ports = append(ports, w.http("", oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up, prefix_rewrite: /z, request_mirror_policies: "+p+"}, request_headers_to_add: [{header: {key: x-added, value: z}}]}")))
	}
	w.load()
	for i, port := range ports {
		for _, r := range []request{{path: "/a"}, {path: "/a", method: "POST", body: "abc"}, {path: "/a", method: "POST", body: "abc", chunked: true}, {path: "/a", h2: true, method: "POST", body: "abc"}, {path: "/a", host: "web.test:80"}, {path: "/a", fields: []string{"x-a: 1"}}} {
			c := w.send(policies[i]+" on "+describe(r), port, r)
			want := 1
			switch i {
			case 0, 4:
				want = 2
			case 2:
				want = 3
			}
			for _, p := range proxies() {
				until(t, p.name+" sent its copies", func() bool {
					tries := upstreams.seenOf(c.marks[p])
					return len(tries) >= want && !slices.ContainsFunc(tries, func(s seen) bool { return s.body != r.body })
				})
			}
			c.sorted = true
		}
	}
	w.compare()
	w.compareStats()
}
