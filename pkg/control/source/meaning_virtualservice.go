package source

import (
	"fmt"
	"maps"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-mesh/fairlead/pkg/suggest"
)

// jwtClaim begins names of headers that stand for claims of JWTs.
const jwtClaim = "@request.auth.claims"

// gatewayMesh stands for callers in the mesh among a VirtualService's gateways.
const gatewayMesh = "mesh"

// retryWords are Envoy's retry policies that retryOn may name; status codes may
// stand among them.
var retryWords = []string{
	"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream", "retriable-status-codes", "retriable-headers",
	"envoy-ratelimited", "http3-post-connect-failure", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}

var httpMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"}

func (m meaning) virtualService(v *networkingv1.VirtualService) {
	s := &v.Spec
	inMesh := len(s.Gateways) == 0 || slices.Contains(s.Gateways, gatewayMesh)
	seen := map[string]int{}
	for i, h := range s.Hosts {
		at := fmt.Sprintf("spec.hosts[%d]", i)
		switch err := hostError(h); {
		case h == "*" && inMesh:
			m.fail(at, "a host of * alone is not allowed in the mesh: name the services, or list ingress gateways alone under gateways")
		case h != "*" && err != "":
			m.fail(at, "%q: %s", h, err)
		}
		if first, twice := seen[h]; twice {
			m.warn(at, fmt.Sprintf("%q stands already in spec.hosts[%d]", h, first))
		} else {
			seen[h] = i
		}
	}
	if len(s.Hosts) == 0 && len(s.Tcp)+len(s.Tls) > 0 {
		m.fail("spec.hosts", "a VirtualService without hosts is a delegate, and a delegate can have http rules alone")
	}
	if len(s.Http)+len(s.Tcp)+len(s.Tls) == 0 {
		m.fail("spec", "a VirtualService needs http, tcp or tls rules")
	}
	all := -1
	for i, h := range s.Http {
		at := fmt.Sprintf("spec.http[%d]", i)
		m.httpRule(at, h, len(s.Hosts) == 0, inMesh)
		if all >= 0 {
			m.warn(at, fmt.Sprintf("is never reached: spec.http[%d] has no match, so it takes every request", all))
		} else if len(h.GetMatch()) == 0 {
			all = i
		}
	}
	m.streamRules(s)
}

func (m meaning) httpRule(at string, h *networkingapi.HTTPRoute, isDelegate, inMesh bool) {
	var actions []string
	for _, a := range []struct {
		set  bool
		name string
	}{{len(h.GetRoute()) > 0, "route"}, {h.GetRedirect() != nil, "redirect"}, {h.GetDirectResponse() != nil, "directResponse"}, {h.GetDelegate() != nil, "delegate"}} {
		if a.set {
			actions = append(actions, a.name)
		}
	}
	switch {
	case len(actions) == 0:
		m.fail(at, "a rule needs one of route, redirect, directResponse and delegate")
	case len(actions) > 1:
		m.fail(at+"."+actions[1], "cannot be set together with %s", actions[0])
	case h.GetDelegate() != nil && isDelegate:
		m.fail(at+".delegate", "a VirtualService without hosts is a delegate itself and cannot delegate again")
	}
	if (h.GetRedirect() != nil || h.GetDirectResponse() != nil) && h.GetRewrite() != nil {
		m.fail(at+".rewrite", "cannot be set together with %s", actions[0])
	}
	if h.GetDelegate() != nil && h.GetDelegate().GetName() == "" {
		m.fail(at+".delegate.name", "the delegate needs a name")
	}
	for i, c := range h.GetMatch() {
		m.httpMatch(fmt.Sprintf("%s.match[%d]", at, i), c, inMesh)
	}
	m.destinations(at, h)
	m.redirect(at+".redirect", h.GetRedirect())
	m.directResponse(at+".directResponse", h.GetDirectResponse())
	m.rewrite(at+".rewrite", h.GetRewrite())
	m.atLeastMillisecond(at+".timeout", h.GetTimeout())
	m.retries(at+".retries", h.GetRetries())
	m.fault(at+".fault", h.GetFault())
	m.corsPolicy(at+".corsPolicy", h.GetCorsPolicy())
	m.headerOperations(at+".headers", h.GetHeaders())
}

func (m meaning) httpMatch(at string, c *networkingapi.HTTPMatchRequest, inMesh bool) {
	m.stringMatch(at+".uri", c.GetUri())
	m.stringMatch(at+".scheme", c.GetScheme())
	m.stringMatch(at+".method", c.GetMethod())
	m.stringMatch(at+".authority", c.GetAuthority())
	for _, set := range []struct {
		name    string
		matches map[string]*networkingapi.StringMatch
		headers bool
	}{{"headers", c.GetHeaders(), true}, {"withoutHeaders", c.GetWithoutHeaders(), true}, {"queryParams", c.GetQueryParams(), false}} {
		for _, name := range slices.Sorted(maps.Keys(set.matches)) {
			path := fmt.Sprintf("%s.%s[%s]", at, set.name, name)
			switch claim := strings.HasPrefix(name, jwtClaim); {
			case set.headers && claim && inMesh:
				m.fail(path, "claims of JWTs are matched at ingress gateways alone: list these under gateways, without mesh")
			case set.headers && claim:
			case set.headers && !httpguts.ValidHeaderFieldName(strings.TrimPrefix(name, ":")):
				m.fail(path, "%q is not a header name", name)
			}
			m.stringMatch(path, set.matches[name])
		}
	}
	if c.GetPort() != 0 {
		m.port(at+".port", c.GetPort())
	}
	if ns := c.GetSourceNamespace(); ns != "" && len(validation.IsDNS1123Label(ns)) > 0 {
		m.fail(at+".sourceNamespace", "%q is not the name of a namespace", ns)
	}
}

func (m meaning) stringMatch(at string, s *networkingapi.StringMatch) {
	if text := s.GetRegex(); text != "" && text != "*" {
		m.pattern(at+".regex", text)
	}
}

// pattern checks a regular expression of RE2's syntax, which Go's is.
func (m meaning) pattern(at, text string) {
	if _, err := syntax.Parse(text, syntax.Perl); err != nil {
		m.fail(at, "%v (regular expressions are RE2's, and must match the whole value)", err)
	}
}

func (m meaning) destinations(at string, h *networkingapi.HTTPRoute) {
	total := int64(0)
	for i, d := range h.GetRoute() {
		path := fmt.Sprintf("%s.route[%d]", at, i)
		m.destination(path+".destination", d.GetDestination())
		m.headerOperations(path+".headers", d.GetHeaders())
		if d.GetWeight() < 0 {
			m.fail(path+".weight", "%d is negative", d.GetWeight())
		}
		total += int64(max(d.GetWeight(), 0))
	}
	if len(h.GetRoute()) > 1 && total == 0 {
		m.fail(at+".route", "the weights add up to 0: no destination would be chosen")
	}
	if h.GetMirror() != nil && len(h.GetMirrors()) > 0 {
		m.fail(at+".mirrors", "cannot be set together with mirror")
	}
	if h.GetMirror() != nil {
		m.destination(at+".mirror", h.GetMirror())
	}
	if len(h.GetRoute()) == 0 && (h.GetMirror() != nil || len(h.GetMirrors()) > 0) && h.GetDelegate() == nil {
		m.fail(at+".mirror", "copies need a route whose requests are copied")
	}
	m.percentage(at+".mirrorPercentage.value", h.GetMirrorPercentage())
	for i, p := range h.GetMirrors() {
		path := fmt.Sprintf("%s.mirrors[%d]", at, i)
		m.destination(path+".destination", p.GetDestination())
		m.percentage(path+".percentage.value", p.GetPercentage())
	}
}

func (m meaning) destination(at string, d *networkingapi.Destination) {
	switch host := d.GetHost(); {
	case host == "":
		m.fail(at+".host", "a destination needs a host")
	case strings.Contains(host, "*"):
		m.fail(at+".host", "%q: a destination cannot be a wildcard", host)
	default:
		if err := hostError(host); err != "" {
			m.fail(at+".host", "%q: %s", host, err)
		}
	}
	if d.GetPort() != nil {
		m.port(at+".port.number", d.GetPort().GetNumber())
	}
	if subset := d.GetSubset(); subset != "" && len(validation.IsDNS1123Label(strings.ToLower(subset))) > 0 {
		m.fail(at+".subset", "%q is not the name of a subset: letters, digits and '-'", subset)
	}
}

func (m meaning) percentage(at string, p *networkingapi.Percent) {
	if v := p.GetValue(); p != nil && v != 0 && (v < 0.0001 || v > 100) {
		m.fail(at, "%v is neither 0 nor between 0.0001 and 100 per cent", v)
	}
}

func (m meaning) redirect(at string, r *networkingapi.HTTPRedirect) {
	if r == nil {
		return
	}
	if code := r.GetRedirectCode(); code != 0 && !slices.Contains([]uint32{301, 302, 303, 307, 308}, code) {
		m.fail(at+".redirectCode", "%d is not one of 301, 302, 303, 307, 308", code)
	}
	if s := r.GetScheme(); s != "" && s != "http" && s != "https" {
		m.fail(at+".scheme", "%q is not http or https", s)
	}
	if p, ok := r.GetRedirectPort().(*networkingapi.HTTPRedirect_Port); ok {
		m.port(at+".port", p.Port)
	}
	if r.GetUri() == "" && r.GetAuthority() == "" && r.GetScheme() == "" && r.GetRedirectPort() == nil {
		m.fail(at, "a redirect needs a uri, an authority, a scheme or a port: without, it leads to where it comes from")
	}
}

func (m meaning) directResponse(at string, r *networkingapi.HTTPDirectResponse) {
	if r == nil {
		return
	}
	if r.GetStatus() < 200 || r.GetStatus() > 599 {
		m.fail(at+".status", "%d is not between 200 and 599", r.GetStatus())
	}
	if size := len(r.GetBody().GetString_()) + len(r.GetBody().GetBytes()); size > 1<<20 {
		m.fail(at+".body", "%d bytes are more than 1 MiB", size)
	}
}

func (m meaning) rewrite(at string, r *networkingapi.HTTPRewrite) {
	switch x := r.GetUriRegexRewrite(); {
	case r == nil:
	case x != nil && r.GetUri() != "":
		m.fail(at+".uriRegexRewrite", "cannot be set together with uri")
	case x != nil && (x.GetMatch() == "" || x.GetRewrite() == ""):
		m.fail(at+".uriRegexRewrite", "needs both match and rewrite")
	case x != nil:
		m.pattern(at+".uriRegexRewrite.match", x.GetMatch())
	case r.GetUri() == "" && r.GetAuthority() == "":
		m.fail(at, "a rewrite needs a uri, an authority or uriRegexRewrite")
	}
}

func (m meaning) atLeastMillisecond(at string, d *durationpb.Duration) {
	if d != nil && d.AsDuration() < time.Millisecond {
		m.fail(at, "%v is shorter than 1ms", d.AsDuration())
	}
}

func (m meaning) retries(at string, r *networkingapi.HTTPRetry) {
	if r == nil {
		return
	}
	if r.GetAttempts() < 0 {
		m.fail(at+".attempts", "%d is negative", r.GetAttempts())
	}
	if r.GetAttempts() == 0 && (r.GetRetryOn() != "" || r.GetPerTryTimeout() != nil) {
		m.warn(at+".attempts", "is 0, so nothing is tried again and the rest of retries has no effect")
	}
	m.atLeastMillisecond(at+".perTryTimeout", r.GetPerTryTimeout())
	m.atLeastMillisecond(at+".backoff", r.GetBackoff())
	for word := range strings.SplitSeq(r.GetRetryOn(), ",") {
		word = strings.TrimSpace(word)
		if word == "" || slices.Contains(retryWords, word) {
			continue
		}
		if code, err := strconv.Atoi(word); err == nil && code >= 100 && code <= 599 {
			continue
		}
		m.fail(at+".retryOn", "%q is neither a status code nor one of %s%s", word, strings.Join(retryWords, ", "), suggest.DidYouMean(word, retryWords))
	}
}

func (m meaning) fault(at string, f *networkingapi.HTTPFaultInjection) {
	if f == nil {
		return
	}
	if f.GetDelay() == nil && f.GetAbort() == nil {
		m.fail(at, "a fault needs a delay or an abort")
	}
	if d := f.GetDelay(); d != nil {
		m.percentage(at+".delay.percentage.value", d.GetPercentage())
		fixed, ok := d.GetHttpDelayType().(*networkingapi.HTTPFaultInjection_Delay_FixedDelay)
		if !ok {
			m.fail(at+".delay", "a delay needs fixedDelay")
		} else {
			m.atLeastMillisecond(at+".delay.fixedDelay", fixed.FixedDelay)
		}
	}
	if a := f.GetAbort(); a != nil {
		m.percentage(at+".abort.percentage.value", a.GetPercentage())
		switch kind := a.GetErrorType().(type) {
		case *networkingapi.HTTPFaultInjection_Abort_HttpStatus:
			if kind.HttpStatus < 200 || kind.HttpStatus > 599 {
				m.fail(at+".abort.httpStatus", "%d is not between 200 and 599", kind.HttpStatus)
			}
		case *networkingapi.HTTPFaultInjection_Abort_GrpcStatus:
			m.grpcStatus(at+".abort.grpcStatus", kind.GrpcStatus)
		default:
			m.fail(at+".abort", "an abort needs httpStatus or grpcStatus")
		}
	}
}

func (m meaning) grpcStatus(at, name string) {
	var c codes.Code
	if n, err := strconv.ParseUint(name, 10, 32); err == nil && n <= uint64(codes.Unauthenticated) {
		return
	}
	if err := c.UnmarshalJSON([]byte(strconv.Quote(strings.ToUpper(name)))); err != nil {
		m.fail(at, "%q is not a status of gRPC: write it like UNAVAILABLE", name)
	}
}

func (m meaning) corsPolicy(at string, c *networkingapi.CorsPolicy) {
	if c == nil {
		return
	}
	for i, o := range c.GetAllowOrigins() {
		m.stringMatch(fmt.Sprintf("%s.allowOrigins[%d]", at, i), o)
	}
	for i, method := range c.GetAllowMethods() {
		if !slices.Contains(httpMethods, method) {
			m.fail(fmt.Sprintf("%s.allowMethods[%d]", at, i), "%q is not one of %s%s", method, strings.Join(httpMethods, ", "), suggest.DidYouMean(method, httpMethods))
		}
	}
	for _, list := range []struct {
		name  string
		names []string
	}{{"allowHeaders", c.GetAllowHeaders()}, {"exposeHeaders", c.GetExposeHeaders()}} {
		for i, name := range list.names {
			if !httpguts.ValidHeaderFieldName(name) {
				m.fail(fmt.Sprintf("%s.%s[%d]", at, list.name, i), "%q is not a header name", name)
			}
		}
	}
	m.atLeastMillisecond(at+".maxAge", c.GetMaxAge())
	if c.GetMaxAge().GetNanos() != 0 {
		m.fail(at+".maxAge", "%v is not whole seconds", c.GetMaxAge().AsDuration())
	}
}

func (m meaning) headerOperations(at string, h *networkingapi.Headers) {
	for _, side := range []struct {
		name string
		ops  *networkingapi.Headers_HeaderOperations
	}{{"request", h.GetRequest()}, {"response", h.GetResponse()}} {
		for _, list := range []struct {
			name   string
			values map[string]string
		}{{"set", side.ops.GetSet()}, {"add", side.ops.GetAdd()}} {
			for _, name := range slices.Sorted(maps.Keys(list.values)) {
				path := fmt.Sprintf("%s.%s.%s[%s]", at, side.name, list.name, name)
				switch {
				case name == ":authority" && side.name == "request":
				case !httpguts.ValidHeaderFieldName(name):
					m.fail(path, "%q is not a header name", name)
				case !httpguts.ValidHeaderFieldValue(list.values[name]):
					m.fail(path, "%q is not a header value", list.values[name])
				}
			}
		}
		for i, name := range side.ops.GetRemove() {
			if !httpguts.ValidHeaderFieldName(name) {
				m.fail(fmt.Sprintf("%s.%s.remove[%d]", at, side.name, i), "%q is not a header name", name)
			}
		}
	}
}
