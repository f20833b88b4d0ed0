package routing

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

const (
	kindHTTPRoute = "HTTPRoute"
	kindGRPCRoute = "GRPCRoute"
)

func (b *Builder) httpRoute(o *gatewayv1.HTTPRoute, previous *Builder) *gatewayRoute {
	return b.index(kindHTTPRoute, "http-route", o, o.Spec.ParentRefs, previous, func(r *gatewayRoute) {
		for i := range o.Spec.Rules {
			b.httpRule(r, i, &o.Spec.Rules[i])
		}
	})
}

func (b *Builder) httpRule(r *gatewayRoute, i int, in *gatewayv1.HTTPRouteRule) {
	path := fmt.Sprintf("spec.rules[%d]", i)
	out := r.add(i, in.Name, b.defaultRetry())
	if len(in.Matches) == 0 {
		out.matches, out.ranks = []match{{envoy: gatewayAll}}, []rank{{length: 1}}
	}
	for j, m := range in.Matches {
		wrong := len(r.refused)
		if envoy, k := b.httpMatch(r, fmt.Sprintf("%s.matches[%d]", path, j), m); len(r.refused) == wrong {
			out.matches, out.ranks = append(out.matches, match{envoy: envoy}), append(out.ranks, k)
		}
	}
	f := &filters{route: r, rule: out, matches: in.Matches}
	for j, filter := range in.Filters {
		f.add(fmt.Sprintf("%s.filters[%d]", path, j), filter)
	}
	for j, ref := range in.BackendRefs {
		f.backend(backendRef{path: fmt.Sprintf("%s.backendRefs[%d]", path, j), ref: ref.BackendObjectReference, weight: weight(ref.Weight)}, ref.Filters)
	}
	if out.action != nil { // a redirect waits for nobody
		out.httpTimeouts(r, path, in.Timeouts)
		out.httpRetry(r, path, in.Retry, in.Timeouts)
	}
	out.sessionPersistence(r, path, in.SessionPersistence)
	f.split()
	out.check(r, path)
}

// add appends an empty rule.
func (r *gatewayRoute) add(i int, name *gatewayv1.SectionName, retry *routev3.RetryPolicy) *gatewayRule {
	out := &gatewayRule{first: len(r.refused), rule: rule{owner: r.owner, index: i, name: fmt.Sprintf("%s.%s.%d", r.object.GetNamespace(), r.object.GetName(), i)}}
	if name != nil && *name != "" {
		out.name = string(*name)
	}
	out.action = plainAction(retry)
	out.action.ClusterNotFoundResponseCode = routev3.RouteAction_INTERNAL_SERVER_ERROR
	r.rules = append(r.rules, out)
	return out
}

// check ends a rule: it takes what was found wrong with it, and what Envoy's types do
// not allow.
func (g *gatewayRule) check(r *gatewayRoute, path string) {
	g.refused = r.refused[g.first:len(r.refused):len(r.refused)]
	if len(g.refused) > 0 {
		return
	}
	for _, one := range append([]*gatewayRule{g}, g.pieces...) {
		var destinations []destination
		for _, ref := range one.refs {
			destinations = append(destinations, destination{weight: ref.weight, headers: ref.headers, invalid: true})
		}
		if err := one.validate(destinations); err != nil {
			r.refuse("%s: %v", path, err)
			g.refused = r.refused[g.first:len(r.refused):len(r.refused)]
			return
		}
	}
}

// close closes the rules that cannot be used, as far as they can be matched: what they
// would keep out, or send elsewhere, must not come to another rule. A route none of
// whose rules can be used is as if it was not there, but for filters that are not
// served.
func (r *gatewayRoute) close() {
	partly := !r.invalid()
	for _, g := range r.rules {
		if len(g.refused) == 0 || !partly && g.unserved == 0 {
			continue
		}
		out := rule{owner: g.owner, index: g.index, name: g.name, direct: &routev3.DirectResponseAction{Status: http.StatusInternalServerError}}
		var ranks []rank
		for i, m := range g.matches {
			if m.envoy.ValidateAll() == nil {
				out.matches, ranks = append(out.matches, m), append(ranks, g.ranks[i])
			}
		}
		g.rule, g.ranks, g.closed = out, ranks, len(ranks) > 0
		g.refs, g.copies, g.pieces = nil, nil, nil
	}
}

var gatewayAll = &routev3.RouteMatch{PathSpecifier: matchAll.PathSpecifier, CaseSensitive: yes}

func (b *Builder) httpMatch(r *gatewayRoute, path string, in gatewayv1.HTTPRouteMatch) (*routev3.RouteMatch, rank) {
	out := &routev3.RouteMatch{CaseSensitive: yes}
	var k rank
	kind, value := gatewayv1.PathMatchPathPrefix, "/"
	if in.Path != nil {
		if in.Path.Type != nil {
			kind = *in.Path.Type
		}
		if in.Path.Value != nil {
			value = *in.Path.Value
		}
	}
	switch kind {
	case gatewayv1.PathMatchExact:
		k.path, k.length = rankExact, len(value)
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: value}
	case gatewayv1.PathMatchRegularExpression:
		k.path, k.length = rankRegex, len(value)
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex(value)}
		b.checkPattern(r, path+".path.value", value)
	case gatewayv1.PathMatchPathPrefix:
		trimmed := strings.TrimRight(value, "/")
		k.path, k.length = rankPrefix, max(len(trimmed), 1)
		out.PathSpecifier = matchAll.PathSpecifier
		if trimmed != "" {
			out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: trimmed}
		}
	default:
		r.refuse("%s.path.type: %q is not one of Exact, PathPrefix, RegularExpression", path, kind)
	}
	seen := map[string]bool{}
	for i, h := range in.Headers {
		name := strings.ToLower(string(h.Name))
		if seen[name] {
			continue // of equal names the first counts
		}
		seen[name] = true
		k.headers++
		isRegex := h.Type != nil && *h.Type == gatewayv1.HeaderMatchRegularExpression
		out.Headers = append(out.Headers, b.headerMatch(r, fmt.Sprintf("%s.headers[%d].value", path, i), string(h.Name), h.Value, isRegex))
	}
	if in.Method != nil {
		k.second = 1
		out.Headers = append(out.Headers, &routev3.HeaderMatcher{Name: ":method",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exactMatcher(string(*in.Method))}})
	}
	seen = map[string]bool{}
	for i, q := range in.QueryParams {
		if seen[string(q.Name)] {
			continue
		}
		seen[string(q.Name)] = true
		k.queries++
		m := exactMatcher(q.Value)
		if q.Type != nil && *q.Type == gatewayv1.QueryParamMatchRegularExpression {
			b.checkPattern(r, fmt.Sprintf("%s.queryParams[%d].value", path, i), q.Value)
			m = regexMatcher(q.Value)
		}
		out.QueryParameters = append(out.QueryParameters, &routev3.QueryParameterMatcher{Name: string(q.Name),
			QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: m}})
	}
	return out, k
}

func (b *Builder) headerMatch(r *gatewayRoute, path, name, value string, isRegex bool) *routev3.HeaderMatcher {
	m := exactMatcher(value)
	if isRegex {
		b.checkPattern(r, path, value)
		m = regexMatcher(value)
	}
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m}}
}

func (b *Builder) checkPattern(r *gatewayRoute, path, text string) {
	if err := b.pattern(text); err != nil {
		r.refuse("%s: %v", path, err)
	}
}

// duration reads a duration of the Gateway API.
func (r *gatewayRoute) duration(path string, d *gatewayv1.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	v, err := time.ParseDuration(string(*d))
	if err != nil || v < 0 {
		r.refuse("%s: %q is not a duration like 10s", path, *d)
		return nil
	}
	return durationpb.New(v)
}

func (g *gatewayRule) httpTimeouts(r *gatewayRoute, path string, in *gatewayv1.HTTPRouteTimeouts) {
	if in == nil {
		return
	}
	if d := r.duration(path+".timeouts.request", in.Request); d != nil {
		g.action.Timeout = d
		g.action.MaxGrpcTimeout = d //nolint:staticcheck // as plainAction
	}
}

// httpRetry sets what is tried again. Without a retry of its own a rule has the
// mesh's policy, and the time that one try may take all the same.
func (g *gatewayRule) httpRetry(r *gatewayRoute, path string, in *gatewayv1.HTTPRouteRetry, timeouts *gatewayv1.HTTPRouteTimeouts) {
	var perTry *durationpb.Duration
	if timeouts != nil {
		if perTry = r.duration(path+".timeouts.backendRequest", timeouts.BackendRequest); perTry.AsDuration() == 0 {
			perTry = nil
		}
	}
	if in == nil {
		if perTry == nil {
			return
		}
		in = &gatewayv1.HTTPRouteRetry{}
		if g.action.RetryPolicy == nil {
			in.Attempts = new(int)
		}
	}
	attempts := defaultAttempts
	if in.Attempts != nil {
		attempts = *in.Attempts
	}
	switch {
	case attempts > 0:
		g.action.RetryPolicy = retryPolicy(uint32(attempts))
	case perTry != nil:
		g.action.RetryPolicy = &routev3.RetryPolicy{NumRetries: wrapperspb.UInt32(0)}
	default:
		g.action.RetryPolicy = nil
		return
	}
	policy := g.action.RetryPolicy
	policy.PerTryTimeout = perTry
	for _, code := range in.Codes {
		if code < 400 || code > 599 {
			r.refuse("%s.retry.codes: %s is not between 400 and 599", path, strconv.Itoa(int(code)))
			continue
		}
		policy.RetriableStatusCodes = append(policy.RetriableStatusCodes, uint32(code))
	}
	if d := r.duration(path+".retry.backoff", in.Backoff); d.AsDuration() > 0 {
		policy.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: d}
	}
}

// sessionName is the cookie or header of sessions that have no name.
const sessionName = "fairlead-session"

// sessionPersistence keeps a session on its backend: on its version by the
// weighted clusters' hash, on its endpoint by the balancers'.
func (g *gatewayRule) sessionPersistence(r *gatewayRoute, path string, in *gatewayv1.SessionPersistence) {
	if in == nil {
		return
	}
	name := sessionName
	if in.SessionName != nil {
		name = *in.SessionName
	}
	a := &affinity{persistent: true}
	if in.Type != nil && *in.Type == gatewayv1.HeaderBasedSessionPersistence {
		a.header = strings.ToLower(name)
	} else {
		a.cookie, a.generate = name, true
		if d := r.duration(path+".sessionPersistence.absoluteTimeout", in.AbsoluteTimeout); d != nil {
			a.ttl = d.AsDuration()
		}
	}
	if _, err := parseAffinity("cookie=" + name); err != nil {
		r.refuse("%s.sessionPersistence.sessionName: %q is not a name of a cookie or header", path, name)
		return
	}
	g.affinity = a
}
