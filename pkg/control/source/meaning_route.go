package source

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/suggest"
)

// The bounds of the Gateway API's CRDs.
const (
	maxParents  = 32
	maxRules    = 16
	maxMatches  = 128 // of all rules together
	maxBackends = 16
	maxFilters  = 16
	maxWeight   = 1_000_000
)

func (m meaning) httpRoute(r *gatewayv1.HTTPRoute) {
	m.commonRoute(&r.Spec.CommonRouteSpec, len(r.Spec.Rules))
	m.hostnames(r.Spec.Hostnames)
	names, matches := map[string]bool{}, 0
	for i := range r.Spec.Rules {
		rule := &r.Spec.Rules[i]
		at := fmt.Sprintf("spec.rules[%d]", i)
		m.ruleName(at, rule.Name, names)
		if matches += len(rule.Matches); matches > maxMatches {
			m.fail(at+".matches", "a route can have %d matches in all: split it, routes of one service are merged", maxMatches)
		}
		for j, c := range rule.Matches {
			m.routeMatch(fmt.Sprintf("%s.matches[%d]", at, j), &c)
		}
		m.routeFilters(at, rule.Filters, rule.Matches, len(rule.BackendRefs) > 0)
		m.backendCount(at, len(rule.BackendRefs))
		for j, ref := range rule.BackendRefs {
			path := fmt.Sprintf("%s.backendRefs[%d]", at, j)
			m.backendRef(path, &ref.BackendRef)
			m.routeFilters(path, ref.Filters, rule.Matches, false)
		}
		m.routeTimeouts(at+".timeouts", rule.Timeouts)
		m.routeRetry(at+".retry", rule.Retry)
		m.sessionPersistence(at+".sessionPersistence", rule.SessionPersistence)
	}
}

func (m meaning) grpcRoute(r *gatewayv1.GRPCRoute) {
	m.commonRoute(&r.Spec.CommonRouteSpec, len(r.Spec.Rules))
	m.hostnames(r.Spec.Hostnames)
	names := map[string]bool{}
	for i := range r.Spec.Rules {
		rule := &r.Spec.Rules[i]
		at := fmt.Sprintf("spec.rules[%d]", i)
		m.ruleName(at, rule.Name, names)
		for j, c := range rule.Matches {
			m.grpcMatch(fmt.Sprintf("%s.matches[%d]", at, j), &c)
		}
		m.routeFilters(at, grpcFilters(rule.Filters), nil, len(rule.BackendRefs) > 0)
		m.backendCount(at, len(rule.BackendRefs))
		for j, ref := range rule.BackendRefs {
			path := fmt.Sprintf("%s.backendRefs[%d]", at, j)
			m.backendRef(path, &ref.BackendRef)
			m.routeFilters(path, grpcFilters(ref.Filters), nil, false)
		}
		m.sessionPersistence(at+".sessionPersistence", rule.SessionPersistence)
	}
}

func grpcFilters(in []gatewayv1.GRPCRouteFilter) (out []gatewayv1.HTTPRouteFilter) {
	for _, f := range in {
		out = append(out, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef})
	}
	return out
}

// connectionRoute checks a TCPRoute or TLSRoute.
func (m meaning) connectionRoute(spec *gatewayv1.CommonRouteSpec, rules [][]gatewayv1.BackendRef) {
	m.commonRoute(spec, len(rules))
	if len(rules) == 0 {
		m.fail("spec.rules", "a route of connections needs a rule")
	}
	for i, refs := range rules {
		at := fmt.Sprintf("spec.rules[%d]", i)
		m.backendCount(at, len(refs))
		if len(refs) == 0 {
			m.fail(at+".backendRefs", "a rule needs a backend")
		}
		for j := range refs {
			m.backendRef(fmt.Sprintf("%s.backendRefs[%d]", at, j), &refs[j])
		}
	}
}

func (m meaning) commonRoute(spec *gatewayv1.CommonRouteSpec, rules int) {
	if len(spec.ParentRefs) > maxParents {
		m.fail("spec.parentRefs", "a route can have %d parents", maxParents)
	}
	if rules > maxRules {
		m.fail("spec.rules", "a route can have %d rules: split it, routes of one service are merged", maxRules)
	}
	for i, p := range spec.ParentRefs {
		at := fmt.Sprintf("spec.parentRefs[%d]", i)
		if p.Name == "" {
			m.fail(at+".name", "a parent needs a name")
		}
		if p.Port != nil {
			m.port(at+".port", uint32(max(*p.Port, 0)))
		}
		if (p.Group == nil || *p.Group == gatewayv1.GroupName) && p.Kind != nil && (*p.Kind == "Service" || *p.Kind == "ServiceEntry") {
			group := map[gatewayv1.Kind]string{"Service": `""`, "ServiceEntry": groupNetworking}[*p.Kind]
			m.warn(at+".kind", fmt.Sprintf("there is no %s in the group %s: write group: %s", *p.Kind, gatewayv1.GroupName, group))
		}
	}
}

func (m meaning) hostnames(hosts []gatewayv1.Hostname) {
	for i, h := range hosts {
		if err := hostError(string(h)); err != "" {
			m.fail(fmt.Sprintf("spec.hostnames[%d]", i), "%q: %s", h, err)
		}
	}
}

func (m meaning) ruleName(at string, name *gatewayv1.SectionName, names map[string]bool) {
	if name == nil {
		return
	}
	if names[string(*name)] {
		m.fail(at+".name", "a rule with the name %q stands before", *name)
	}
	names[string(*name)] = true
}

func (m meaning) backendCount(at string, n int) {
	if n > maxBackends {
		m.fail(at+".backendRefs", "a rule can have %d backends", maxBackends)
	}
}

func (m meaning) backendRef(at string, ref *gatewayv1.BackendRef) {
	m.backendObject(at, &ref.BackendObjectReference)
	if ref.Weight != nil && (*ref.Weight < 0 || *ref.Weight > maxWeight) {
		m.fail(at+".weight", "%d is not between 0 and %d", *ref.Weight, maxWeight)
	}
}

func (m meaning) backendObject(at string, ref *gatewayv1.BackendObjectReference) {
	if ref.Name == "" {
		m.fail(at+".name", "a backend needs a name")
	}
	service := (ref.Group == nil || *ref.Group == "") && (ref.Kind == nil || *ref.Kind == "Service")
	switch {
	case ref.Port != nil:
		m.port(at+".port", uint32(max(*ref.Port, 0)))
	case service:
		m.fail(at+".port", "a backend of kind Service needs a port")
	}
}

// oneOf fails for a word that is none of those known.
func oneOf[T ~string](m meaning, at string, value *T, known ...T) {
	if value == nil || slices.Contains(known, *value) {
		return
	}
	var words []string
	for _, k := range known {
		words = append(words, string(k))
	}
	m.fail(at, "%q is not one of %s%s", *value, strings.Join(words, ", "), suggest.DidYouMean(string(*value), words))
}

func (m meaning) routeMatch(at string, c *gatewayv1.HTTPRouteMatch) {
	if c.Path != nil {
		oneOf(m, at+".path.type", c.Path.Type, gatewayv1.PathMatchExact, gatewayv1.PathMatchPathPrefix, gatewayv1.PathMatchRegularExpression)
		if c.Path.Value != nil {
			m.pathValue(at+".path.value", *c.Path.Value, c.Path.Type != nil && *c.Path.Type == gatewayv1.PathMatchRegularExpression)
		}
	}
	for i, h := range c.Headers {
		path := fmt.Sprintf("%s.headers[%d]", at, i)
		oneOf(m, path+".type", h.Type, gatewayv1.HeaderMatchExact, gatewayv1.HeaderMatchRegularExpression)
		m.headerName(path+".name", string(h.Name))
		m.doubtful(path+".value", h.Value, h.Type != nil && *h.Type == gatewayv1.HeaderMatchRegularExpression)
	}
	for i, q := range c.QueryParams {
		path := fmt.Sprintf("%s.queryParams[%d]", at, i)
		oneOf(m, path+".type", q.Type, gatewayv1.QueryParamMatchExact, gatewayv1.QueryParamMatchRegularExpression)
		m.headerName(path+".name", string(q.Name))
		m.doubtful(path+".value", q.Value, q.Type != nil && *q.Type == gatewayv1.QueryParamMatchRegularExpression)
	}
	oneOf(m, at+".method", c.Method, gatewayv1.HTTPMethodGet, gatewayv1.HTTPMethodHead, gatewayv1.HTTPMethodPost, gatewayv1.HTTPMethodPut, gatewayv1.HTTPMethodDelete,
		gatewayv1.HTTPMethodConnect, gatewayv1.HTTPMethodOptions, gatewayv1.HTTPMethodTrace, gatewayv1.HTTPMethodPatch)
}

var pathCharacters = regexp.MustCompile(`^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`)

func (m meaning) pathValue(at, value string, isRegex bool) {
	if isRegex {
		m.doubtful(at, value, true)
		return
	}
	if !strings.HasPrefix(value, "/") {
		m.fail(at, "%q does not begin with a slash", value)
		return
	}
	for _, bad := range []string{"//", "/./", "/../", "%2f", "%2F", "#"} {
		if strings.Contains(value, bad) {
			m.fail(at, "%q holds %q: paths are matched in their normal form", value, bad)
			return
		}
	}
	if strings.HasSuffix(value, "/.") || strings.HasSuffix(value, "/..") {
		m.fail(at, "%q ends in dots: paths are matched in their normal form", value)
	} else if !pathCharacters.MatchString(value) {
		m.fail(at, "%q holds characters that a path cannot: write them as %%XX", value)
	}
}

// doubtful warns of a regular expression that is none. The API server takes it,
// and the status of the route says that it is not used.
func (m meaning) doubtful(at, text string, isRegex bool) {
	if !isRegex {
		return
	}
	if _, err := syntax.Parse(text, syntax.Perl); err != nil {
		m.warn(at, fmt.Sprintf("%v (regular expressions are RE2's): nothing matches it", err))
	}
}

func (m meaning) headerName(at, name string) {
	if !httpguts.ValidHeaderFieldName(name) {
		m.fail(at, "%q is not a name of the form that HTTP allows", name)
	}
}

var (
	grpcServiceName = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*$`)
	grpcMethodName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
)

func (m meaning) grpcMatch(at string, c *gatewayv1.GRPCRouteMatch) {
	if c.Method != nil {
		path := at + ".method"
		oneOf(m, path+".type", c.Method.Type, gatewayv1.GRPCMethodMatchExact, gatewayv1.GRPCMethodMatchRegularExpression)
		isRegex := c.Method.Type != nil && *c.Method.Type == gatewayv1.GRPCMethodMatchRegularExpression
		if (c.Method.Service == nil || *c.Method.Service == "") && (c.Method.Method == nil || *c.Method.Method == "") {
			m.fail(path, "a method match needs a service or a method")
		}
		for _, part := range []struct {
			name  string
			value *string
			form  *regexp.Regexp
		}{{"service", c.Method.Service, grpcServiceName}, {"method", c.Method.Method, grpcMethodName}} {
			if part.value == nil || *part.value == "" {
				continue
			}
			m.doubtful(path+"."+part.name, *part.value, isRegex)
			if !isRegex && !part.form.MatchString(*part.value) {
				m.fail(path+"."+part.name, "%q is not the name of a gRPC %s; for a pattern write type: RegularExpression", *part.value, part.name)
			}
		}
	}
	for i, h := range c.Headers {
		path := fmt.Sprintf("%s.headers[%d]", at, i)
		oneOf(m, path+".type", h.Type, gatewayv1.GRPCHeaderMatchExact, gatewayv1.GRPCHeaderMatchRegularExpression)
		m.headerName(path+".name", string(h.Name))
		m.doubtful(path+".value", h.Value, h.Type != nil && *h.Type == gatewayv1.GRPCHeaderMatchRegularExpression)
	}
}

// gatewayDuration is the form of durations of the Gateway API (GEP-2257).
var gatewayDuration = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

func (m meaning) routeDuration(at string, d *gatewayv1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	if !gatewayDuration.MatchString(string(*d)) {
		m.fail(at, `%q is not a duration: write it like "10s" or "1m30s"`, *d)
		return 0
	}
	v, err := time.ParseDuration(string(*d))
	if err != nil {
		m.fail(at, "%v", err)
	}
	return v
}

func (m meaning) routeTimeouts(at string, t *gatewayv1.HTTPRouteTimeouts) {
	if t == nil {
		return
	}
	request, backend := m.routeDuration(at+".request", t.Request), m.routeDuration(at+".backendRequest", t.BackendRequest)
	if request > 0 && backend > request {
		m.fail(at+".backendRequest", "%v is longer than the request's timeout of %v", backend, request)
	}
}

func (m meaning) routeRetry(at string, r *gatewayv1.HTTPRouteRetry) {
	if r == nil {
		return
	}
	for i, code := range r.Codes {
		if code < 400 || code > 599 {
			m.fail(fmt.Sprintf("%s.codes[%d]", at, i), "%d is not between 400 and 599", code)
		}
	}
	if r.Attempts != nil && *r.Attempts < 0 {
		m.fail(at+".attempts", "%d is negative", *r.Attempts)
	}
	m.routeDuration(at+".backoff", r.Backoff)
}

func (m meaning) sessionPersistence(at string, s *gatewayv1.SessionPersistence) {
	if s == nil {
		return
	}
	oneOf(m, at+".type", s.Type, gatewayv1.CookieBasedSessionPersistence, gatewayv1.HeaderBasedSessionPersistence)
	absolute := m.routeDuration(at+".absoluteTimeout", s.AbsoluteTimeout)
	if s.CookieConfig == nil {
		return
	}
	if s.Type != nil && *s.Type != gatewayv1.CookieBasedSessionPersistence {
		m.fail(at+".cookieConfig", "goes with type Cookie alone")
	}
	oneOf(m, at+".cookieConfig.lifetimeType", s.CookieConfig.LifetimeType, gatewayv1.SessionCookieLifetimeType, gatewayv1.PermanentCookieLifetimeType)
	if t := s.CookieConfig.LifetimeType; t != nil && *t == gatewayv1.PermanentCookieLifetimeType && absolute == 0 {
		m.fail(at+".absoluteTimeout", "is needed with a cookie of lifetimeType Permanent")
	}
}

// referenceGrant checks that a grant names both sides.
func (m meaning) referenceGrant(g *gatewayv1.ReferenceGrant) {
	if len(g.Spec.From) == 0 {
		m.fail("spec.from", "a grant needs those to whom it is given")
	}
	if len(g.Spec.To) == 0 {
		m.fail("spec.to", "a grant needs that for which it is given")
	}
	for i, f := range g.Spec.From {
		at := fmt.Sprintf("spec.from[%d]", i)
		if f.Kind == "" {
			m.fail(at+".kind", "a kind is needed")
		}
		if f.Namespace == "" {
			m.fail(at+".namespace", "a namespace is needed")
		}
	}
	for i, t := range g.Spec.To {
		if t.Kind == "" {
			m.fail(fmt.Sprintf("spec.to[%d].kind", i), "a kind is needed")
		}
	}
}
