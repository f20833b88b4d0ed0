package differential

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// generator draws route tables, and requests for each of their routes.
type generator struct {
	r *rand.Rand
	w *world
}

type (
	object = map[string]any
	// wish brings a request to what a matcher asks for.
	wish func(g *generator, r *request)
)

type randomRoute struct {
	name   string
	config object
	wishes []wish
}

type randomTable struct {
	config object
	routes []randomRoute
}

func pick[T any](g *generator, from ...T) T { return from[g.r.IntN(len(from))] }

var segments = []string{"a", "b", "c", "foo", "bar", "Foo", "x.y", "v1", "ab", "a-b"}

func (g *generator) path() string {
	var b strings.Builder
	for range 1 + g.r.IntN(3) {
		b.WriteString("/" + pick(g, segments...))
	}
	return b.String()
}

// table is one virtual host for each of some domains, with routes in each.
func (g *generator) table(n int) *randomTable {
	t := &randomTable{}
	var hosts []any
	domains := [][]any{{"web.test"}, {"*.wild.test", "other.test"}, {"pre.*"}, {"*"}}
	for h, d := range domains[:1+g.r.IntN(len(domains))] {
		name := strings.ReplaceAll(strings.ReplaceAll(d[0].(string), "*.", "x."), ".*", ".y")
		if name == "*" {
			name = "any.example"
		}
		var routes []any
		for range 1 + g.r.IntN(randomRoutes/2) {
			r := g.route(len(t.routes), name)
			t.routes = append(t.routes, r)
			routes = append(routes, r.config)
		}
		for i := range 2 {
			r := g.open(len(t.routes), name, i == 0)
			t.routes = append(t.routes, r)
			routes = append(routes, r.config)
		}
		hosts = append(hosts, object{"name": fmt.Sprintf("host%d", h), "domains": d, "routes": routes})
	}
	t.config = object{"name": fmt.Sprintf("table %d", n), "virtual_hosts": hosts}
	return t
}

// request is one that route i should get.
func (t *randomTable) request(g *generator, i, try int) request {
	r := request{}
	for _, w := range t.routes[i].wishes {
		w(g, &r)
	}
	if r.path == "" {
		r.path = "/" + strconv.Itoa(try)
	}
	return r
}

// was tells whether route i served a case, by the answer's mark.
func (t *randomTable) was(i int, c *comparison) bool {
	return valueOf(c.answers[envoyProxy].fields, "x-route-name") == t.routes[i].name
}

// spoil changes something, so that other routes get it, or none.
func (g *generator) spoil(r *request) {
	switch g.r.IntN(5) {
	case 0:
		r.path += pick(g, "/", "x", "?a=1", "/..", "%41", "//")
	case 1:
		if len(r.fields) > 0 {
			r.fields = r.fields[1:]
		}
	case 2:
		r.host = pick(g, "web.test", "x.wild.test", "pre.y", "nobody.example", "WEB.test:80")
	case 3:
		r.fields = append(r.fields, pick(g, "x-a: 1", "x-b: foo", "x-c: 17", "x-a: zzz", "cookie: user=1"))
	case 4:
		r.path = strings.ToUpper(r.path)
	}
}

// route makes one. Every one but few asks for something of its own, so that those before
// it do not take what is meant for it.
func (g *generator) route(i int, host string) randomRoute {
	name := fmt.Sprintf("route%d", i)
	out := randomRoute{name: name, wishes: []wish{func(_ *generator, r *request) { r.host = host }}}
	match := g.matchPath(&out)
	var headers, query []any
	for range g.r.IntN(3) {
		headers = append(headers, g.matchHeader(&out))
	}
	for range g.r.IntN(2) {
		query = append(query, g.matchQuery(&out))
	}
	own := strconv.Itoa(i)
	headers = append(headers, object{"name": "x-own", "string_match": pick(g, object{"exact": own}, object{"safe_regex": object{"regex": own + "|none"}}, object{"suffix": own, "ignore_case": true})})
	out.wishes = append(out.wishes, func(_ *generator, r *request) { r.fields = append(r.fields, "x-own: "+own) })
	match["headers"] = headers
	if len(query) > 0 {
		match["query_parameters"] = query
	}
	if g.r.IntN(8) == 0 {
		match["runtime_fraction"] = object{"default_value": object{"numerator": 100}}
	}
	out.config = object{"name": name, "match": match, "response_headers_to_add": []any{object{"header": object{"key": "x-route-name", "value": name}}}}
	g.action(out.config)
	return out
}

// open makes a route that takes what those before it took, too: their order decides.
func (g *generator) open(i int, host string, narrow bool) randomRoute {
	name := fmt.Sprintf("route%d", i)
	match := object{"prefix": "/"}
	out := randomRoute{name: name, wishes: []wish{func(_ *generator, r *request) { r.host = host }}}
	if narrow {
		match["headers"] = []any{object{"name": "x-open", "present_match": true}}
		out.wishes = append(out.wishes, func(_ *generator, r *request) { r.fields = append(r.fields, "x-open: 1") })
	}
	out.config = object{"name": name, "match": match, "response_headers_to_add": []any{object{"header": object{"key": "x-route-name", "value": name}}}}
	g.action(out.config)
	return out
}

func (g *generator) matchPath(out *randomRoute) object {
	p := g.path()
	set := func(paths ...string) {
		out.wishes = append(out.wishes, func(g *generator, r *request) { r.path = pick(g, paths...) + r.path })
	}
	switch g.r.IntN(6) {
	case 0:
		set(p, p+"/more", p+"x", p+"?q=1")
		return object{"prefix": p}
	case 1:
		set(p)
		return object{"path": p}
	case 2:
		set(p, p+"/", p+"/more")
		return object{"path_separated_prefix": p}
	case 3:
		set(strings.ToUpper(p), strings.ToLower(p))
		return object{"path": p, "case_sensitive": false}
	case 4:
		set(p+"/17", p+"/0")
		return object{"safe_regex": object{"regex": strings.ReplaceAll(p, ".", "[.]") + "/[0-9]+"}}
	}
	set(strings.ToUpper(p)+"/Z", p)
	return object{"prefix": p, "case_sensitive": false}
}

func (g *generator) matchHeader(out *randomRoute) object {
	name := pick(g, "x-a", "x-b", "x-c")
	send := func(values ...string) {
		out.wishes = append(out.wishes, func(g *generator, r *request) {
			has := slices.ContainsFunc(r.fields, func(f string) bool { return strings.HasPrefix(f, name+":") })
			if !has {
				r.fields = append(r.fields, name+": "+pick(g, values...))
			}
		})
	}
	// What two matchers of one field ask for must not conflict.
	switch name {
	case "x-a":
		send("value-1")
		return object{"name": name, "string_match": pick(g, object{"exact": "value-1"}, object{"prefix": "val"}, object{"suffix": "-1"}, object{"contains": "ue"}, object{"safe_regex": object{"regex": "v.*[0-9]"}}, object{"exact": "VALUE-1", "ignore_case": true})}
	case "x-b":
		if g.r.IntN(2) == 0 {
			return object{"name": name, "present_match": false}
		}
		return object{"name": name, "string_match": object{"exact": "foo"}, "invert_match": true, "treat_missing_header_as_empty": g.r.IntN(2) == 0 || true}
	}
	send("17", "20")
	return object{"name": name, "range_match": object{"start": 10, "end": 21}}
}

func (g *generator) matchQuery(out *randomRoute) object {
	out.wishes = append(out.wishes, func(_ *generator, r *request) {
		join := "?"
		if strings.Contains(r.path, "?") {
			join = "&"
		}
		r.path += join + "version=two"
	})
	return object{"name": "version", "string_match": pick(g, object{"exact": "two"}, object{"prefix": "t"}, object{"safe_regex": object{"regex": "t.o"}})}
}

// action is what a route does: answer itself, redirect, or forward with rewrites.
func (g *generator) action(config object) {
	switch g.r.IntN(3) {
	case 0:
		config["direct_response"] = object{"status": pick(g, 200, 201, 404, 503), "body": object{"inline_string": config["name"]}}
	case 1:
		config["redirect"] = pick(g, object{"host_redirect": "to.test"}, object{"path_redirect": "/p"}, object{"https_redirect": true, "port_redirect": 8443}, object{"prefix_rewrite": "/z", "response_code": "FOUND"}, object{"scheme_redirect": "https", "strip_query": true})
	default:
		action := object{"cluster": g.w.nameOf("up" + strconv.Itoa(g.r.IntN(3)))}
		switch g.r.IntN(6) {
		case 0:
			action["prefix_rewrite"] = pick(g, "/", "/z", "/z/")
		case 1:
			action["regex_rewrite"] = object{"pattern": object{"regex": pick(g, "a+", "/([a-z]+)", "[0-9]")}, "substitution": pick(g, "-", `<\0>`)}
		case 2:
			action["host_rewrite_literal"] = "rewritten.test"
		case 3:
			config["request_headers_to_add"] = []any{object{"header": object{"key": "x-a", "value": "%REQ(x-c)%"}, "append_action": pick(g, "APPEND_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT")}}
			config["request_headers_to_remove"] = []any{"x-own"}
		}
		if action["regex_rewrite"] != nil && strings.Contains(fmt.Sprint(action["regex_rewrite"]), `\0`) && g.r.IntN(2) == 0 {
			delete(action, "regex_rewrite")
		}
		config["route"] = action
		if p, ok := config["match"].(object)["path_separated_prefix"]; ok && p != nil && action["prefix_rewrite"] == "/z/" {
			action["prefix_rewrite"] = "/z"
		}
	}
}
