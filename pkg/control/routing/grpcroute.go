package routing

import (
	"fmt"
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func (b *Builder) grpcRoute(o *gatewayv1.GRPCRoute, previous *Builder) *gatewayRoute {
	return b.index(kindGRPCRoute, "grpc-route", o, o.Spec.ParentRefs, previous, func(r *gatewayRoute) {
		for i := range o.Spec.Rules {
			b.grpcRule(r, i, &o.Spec.Rules[i])
		}
	})
}

func (b *Builder) grpcRule(r *gatewayRoute, i int, in *gatewayv1.GRPCRouteRule) {
	path := fmt.Sprintf("spec.rules[%d]", i)
	out := r.add(i, in.Name, b.defaultRetry())
	if len(in.Matches) == 0 {
		out.matches, out.ranks = []match{{envoy: gatewayAll}}, []rank{{}}
	}
	for j, m := range in.Matches {
		wrong := len(r.refused)
		if envoy, k := b.grpcMatch(r, fmt.Sprintf("%s.matches[%d]", path, j), m); len(r.refused) == wrong {
			out.matches, out.ranks = append(out.matches, match{envoy: envoy}), append(out.ranks, k)
		}
	}
	f := &filters{route: r, rule: out}
	for j, filter := range in.Filters {
		f.add(fmt.Sprintf("%s.filters[%d]", path, j), httpFilter(filter))
	}
	for j, ref := range in.BackendRefs {
		var own []gatewayv1.HTTPRouteFilter
		for _, filter := range ref.Filters {
			own = append(own, httpFilter(filter))
		}
		f.backend(backendRef{path: fmt.Sprintf("%s.backendRefs[%d]", path, j), ref: ref.BackendObjectReference, weight: weight(ref.Weight)}, own)
	}
	out.sessionPersistence(r, path, in.SessionPersistence)
	f.split()
	out.check(r, path)
}

// httpFilter is a filter of a GRPCRoute, all of which HTTPRoutes have too.
func httpFilter(in gatewayv1.GRPCRouteFilter) gatewayv1.HTTPRouteFilter {
	return gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterType(in.Type), RequestHeaderModifier: in.RequestHeaderModifier,
		ResponseHeaderModifier: in.ResponseHeaderModifier, RequestMirror: in.RequestMirror, ExtensionRef: in.ExtensionRef}
}

func (b *Builder) grpcMatch(r *gatewayRoute, path string, in gatewayv1.GRPCRouteMatch) (*routev3.RouteMatch, rank) {
	out := &routev3.RouteMatch{PathSpecifier: matchAll.PathSpecifier, CaseSensitive: yes}
	var k rank
	if m := in.Method; m != nil {
		service, method := "", ""
		if m.Service != nil {
			service = *m.Service
		}
		if m.Method != nil {
			method = *m.Method
		}
		k.path, k.length, k.second = rankExact, len(service), len(method)
		if m.Type != nil && *m.Type == gatewayv1.GRPCMethodMatchRegularExpression {
			k.path = rankRegex
			out.PathSpecifier = b.grpcPattern(r, path+".method", service, method)
		} else {
			setGRPCPath(out, service, method)
		}
	}
	seen := map[string]bool{}
	for i, h := range in.Headers {
		name := strings.ToLower(string(h.Name))
		if seen[name] {
			continue
		}
		seen[name] = true
		k.headers++
		isRegex := h.Type != nil && *h.Type == gatewayv1.GRPCHeaderMatchRegularExpression
		out.Headers = append(out.Headers, b.headerMatch(r, fmt.Sprintf("%s.headers[%d].value", path, i), string(h.Name), h.Value, isRegex))
	}
	return out, k
}

const anySegment = "[^/]+"

func (b *Builder) grpcPattern(r *gatewayRoute, path, service, method string) *routev3.RouteMatch_SafeRegex {
	b.checkPattern(r, path+".service", service)
	b.checkPattern(r, path+".method", method)
	group := func(s string) string {
		switch {
		case s == "":
			return anySegment
		case strings.Contains(s, "|"):
			return "(?:" + s + ")"
		}
		return s
	}
	return &routev3.RouteMatch_SafeRegex{SafeRegex: regex("/" + group(service) + "/" + group(method))}
}

// setGRPCPath matches the path of a gRPC request, which is "/service/method".
func setGRPCPath(out *routev3.RouteMatch, service, method string) {
	switch {
	case service != "" && method != "":
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: "/" + service + "/" + method}
	case service != "":
		out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: "/" + service}
	case method != "":
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex("/" + anySegment + "/" + regexp.QuoteMeta(method))}
	}
}
