package logging

import (
	"fmt"
	"regexp"
	"strconv"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// runtimeKey is never set: what a filter compares with cannot be overridden.
const runtimeKey = "istio.io/unset"

// filter is an expression of the Common Expression Language as a filter: as it is
// for a proxy that reads it, else of Envoy's own filters.
func filter(expression string, cel bool) (*accesslogv3.AccessLogFilter, error) {
	if !cel {
		e, err := parse(expression)
		if err != nil {
			return nil, err
		}
		return e.filter(false)
	}
	config, err := anypb.New(&celv3.ExpressionFilter{Expression: expression})
	if err != nil {
		return nil, fmt.Errorf("encode the filter %q: %w", expression, err)
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogv3.ExtensionFilter{
		Name: "envoy.access_loggers.extension_filters.cel", ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: config},
	}}}, nil
}

// filter is what e says, or its contrary.
func (e *expression) filter(not bool) (*accesslogv3.AccessLogFilter, error) {
	switch e.op {
	case "!":
		return e.parts[0].filter(!not)
	case "&&", "||":
		var all []*accesslogv3.AccessLogFilter
		for _, p := range e.parts {
			f, err := p.filter(not)
			if err != nil {
				return nil, err
			}
			all = append(all, f)
		}
		if (e.op == "&&") != not {
			return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{AndFilter: &accesslogv3.AndFilter{Filters: all}}}, nil
		}
		return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{OrFilter: &accesslogv3.OrFilter{Filters: all}}}, nil
	}
	if e.attribute == "response.code" {
		return e.code(not)
	}
	return e.header(not)
}

// code compares the response's status.
func (e *expression) code(not bool) (*accesslogv3.AccessLogFilter, error) {
	n, err := strconv.ParseUint(e.literal, 10, 16)
	if err != nil || e.text {
		return nil, fmt.Errorf("response.code is compared with a number, not %q", e.literal)
	}
	op := e.op
	if not {
		op = map[string]string{"==": "!=", "!=": "==", ">=": "<", "<": ">=", "<=": ">", ">": "<="}[op]
	}
	value := uint32(n)
	var comparison accesslogv3.ComparisonFilter_Op
	switch op {
	case "==":
		comparison = accesslogv3.ComparisonFilter_EQ
	case "!=":
		comparison = accesslogv3.ComparisonFilter_NE
	case ">=":
		comparison = accesslogv3.ComparisonFilter_GE
	case ">":
		comparison, value = accesslogv3.ComparisonFilter_GE, value+1
	case "<=":
		comparison = accesslogv3.ComparisonFilter_LE
	case "<":
		if value == 0 {
			return nil, fmt.Errorf("no response.code is below 0")
		}
		comparison, value = accesslogv3.ComparisonFilter_LE, value-1
	default:
		return nil, fmt.Errorf("response.code is a number: %s is not for it", e.op)
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{StatusCodeFilter: &accesslogv3.StatusCodeFilter{
		Comparison: &accesslogv3.ComparisonFilter{Op: comparison, Value: &corev3.RuntimeUInt32{DefaultValue: value, RuntimeKey: runtimeKey}},
	}}}, nil
}

// headers are the attributes that are request headers.
var headers = map[string]string{
	"request.method": ":method", "request.path": ":path", "request.url_path": ":path", "request.host": ":authority", "request.scheme": ":scheme",
	"request.useragent": "user-agent", "request.referer": "referer", "request.id": "x-request-id",
}

// header matches a request header.
func (e *expression) header(not bool) (*accesslogv3.AccessLogFilter, error) {
	name := e.key
	if e.attribute != "request.headers" {
		name = headers[e.attribute]
	}
	if name == "" {
		return nil, fmt.Errorf("the attribute %s cannot be matched: use response.code, request.headers[...], request.method, .path, .url_path, .host, .useragent, .referer, .id", e.attribute)
	}
	m := &routev3.HeaderMatcher{Name: name, InvertMatch: not}
	if e.op == "has" {
		m.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
		return headerFilter(m), nil
	}
	if !e.text {
		return nil, fmt.Errorf("%s is compared with text, not with %s", e.attribute, e.literal)
	}
	s, err := e.match()
	if err != nil {
		return nil, err
	}
	if e.op == "!=" {
		m.InvertMatch = !not
	}
	m.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: s}
	return headerFilter(m), nil
}

func headerFilter(m *routev3.HeaderMatcher) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{HeaderFilter: &accesslogv3.HeaderFilter{Header: m}}}
}

// match is the comparison with the literal; of url_path without the query.
func (e *expression) match() (*matcherv3.StringMatcher, error) {
	quoted := regexp.QuoteMeta(e.literal)
	const query = `(\?.*)?`
	path := e.attribute == "request.url_path"
	switch e.op {
	case "==", "!=":
		if path {
			return regex(quoted + query), nil
		}
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: e.literal}}, nil
	case "startsWith", "endsWith", "contains", "matches":
		if e.literal == "" {
			return nil, fmt.Errorf("%s needs some text", e.op)
		}
	}
	switch e.op {
	case "startsWith":
		if path {
			return regex(quoted + `[^?]*` + query), nil
		}
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: e.literal}}, nil
	case "endsWith":
		if path {
			return regex(`[^?]*` + quoted + query), nil
		}
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: e.literal}}, nil
	case "contains":
		if path {
			return regex(`[^?]*` + quoted + `[^?]*` + query), nil
		}
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: e.literal}}, nil
	case "matches":
		if _, err := regexp.Compile(e.literal); err != nil {
			return nil, fmt.Errorf("matches: %w", err)
		}
		if path {
			return nil, fmt.Errorf("matches is not for request.url_path: use request.path, which has the query")
		}
		return regex(`(?s:.*)(?:` + e.literal + `)(?s:.*)`), nil
	}
	return nil, fmt.Errorf("%s is text: %s is not for it", e.attribute, e.op)
}

func regex(r string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: r}}}
}
