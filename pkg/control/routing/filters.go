package routing

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// filters translates the filters of one rule of a route.
type filters struct {
	route   *gatewayRoute
	rule    *gatewayRule
	matches []gatewayv1.HTTPRouteMatch
}

// add translates a filter of the rule.
func (f *filters) add(path string, in gatewayv1.HTTPRouteFilter) {
	out := &f.rule.rule
	switch {
	case in.RequestHeaderModifier != nil:
		out.headers = out.headers.with(f.headers(path+".requestHeaderModifier", in.RequestHeaderModifier, true))
	case in.ResponseHeaderModifier != nil:
		out.headers = out.headers.with(f.headers(path+".responseHeaderModifier", in.ResponseHeaderModifier, false))
	case in.RequestRedirect != nil:
		out.redirect = f.redirect(path+".requestRedirect", in.RequestRedirect)
		out.action = nil
	case in.URLRewrite != nil:
		f.rewrite(path+".urlRewrite", in.URLRewrite)
	case in.RequestMirror != nil:
		f.mirror(path+".requestMirror", in.RequestMirror)
	case in.CORS != nil:
		out.filters = map[string]*anypb.Any{corsFilter: packed(f.cors(path+".cors", in.CORS))}
	default:
		f.route.refuse("%s.type: a filter of type %s is not served", path, in.Type)
		f.rule.unserved++
	}
}

// headers are changes whose values mean what they say: Envoy would read commands
// in them.
func (f *filters) headers(path string, in *gatewayv1.HTTPHeaderFilter, request bool) (out headers) {
	var add []*corev3.HeaderValueOption
	one := func(at string, h gatewayv1.HTTPHeader, make func(name, value string) *corev3.HeaderValueOption) {
		value := strings.ReplaceAll(h.Value, "%", "%%")
		if request && isAuthority(string(h.Name)) {
			out.host = h.Value
			return
		}
		if err := headerError(string(h.Name), value); err != nil {
			f.route.refuse("%s: %v", at, err)
			return
		}
		add = append(add, make(string(h.Name), value))
	}
	for i, h := range in.Set {
		one(fmt.Sprintf("%s.set[%d]", path, i), h, setHeader)
	}
	for i, h := range in.Add {
		one(fmt.Sprintf("%s.add[%d]", path, i), h, addHeader)
	}
	for i, name := range in.Remove {
		if strings.HasPrefix(name, ":") || isAuthority(name) {
			f.route.refuse("%s.remove[%d]: %q cannot be removed", path, i, name)
		}
	}
	if request {
		out.requestAdd, out.requestRemove = add, in.Remove
	} else {
		out.responseAdd, out.responseRemove = add, in.Remove
	}
	return out
}

func (f *filters) redirect(path string, in *gatewayv1.HTTPRequestRedirectFilter) *redirect {
	a := &routev3.RedirectAction{ResponseCode: routev3.RedirectAction_FOUND}
	if in.StatusCode != nil {
		code, known := redirectCodes[uint32(max(*in.StatusCode, 0))]
		if !known || *in.StatusCode == 0 {
			f.route.refuse("%s.statusCode: %d is not one of 301, 302, 303, 307, 308", path, *in.StatusCode)
		}
		a.ResponseCode = code
	}
	scheme := "http"
	if in.Scheme != nil {
		scheme = *in.Scheme
		a.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: scheme}
	}
	if in.Hostname != nil {
		a.HostRedirect = string(*in.Hostname)
	}
	out := &redirect{action: a}
	switch {
	case in.Port != nil:
		a.PortRedirect = uint32(*in.Port)
		if ownPort(scheme, a.PortRedirect) && a.HostRedirect != "" {
			a.PortRedirect = 0 // it goes without saying, and must not be said
		}
	case in.Scheme == nil:
		out.servicePort = true
	case a.HostRedirect == "":
		// The scheme's own port. The host that was called may have another with it.
		a.PortRedirect = map[string]uint32{"https": 443, "http": 80}[scheme]
	}
	switch full, prefix, isPrefix := modifier(in.Path); {
	case in.Path == nil:
	case !isPrefix:
		a.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: full}
	default:
		literal, pattern := f.prefix(path, prefix)
		a.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: literal}
		if pattern != nil {
			a.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: pattern}
		}
	}
	return out
}

func modifier(in *gatewayv1.HTTPPathModifier) (full, prefix string, isPrefix bool) {
	if in == nil {
		return "", "", false
	}
	if in.ReplaceFullPath != nil {
		full = *in.ReplaceFullPath
	}
	if in.ReplacePrefixMatch != nil {
		prefix = *in.ReplacePrefixMatch
	}
	return full, prefix, in.Type == gatewayv1.PrefixMatchHTTPPathModifier
}

// prefix is how a matched prefix is replaced, whole path segments at a time.
// Envoy replaces characters, so a prefix or a replacement that ends in a slash
// needs care: either a literal replacement or a pattern.
func (f *filters) prefix(path, with string) (literal string, pattern *matcherv3.RegexMatchAndSubstitute) {
	matched := "/"
	if len(f.matches) == 1 && f.matches[0].Path != nil && f.matches[0].Path.Value != nil {
		if t := f.matches[0].Path.Type; t != nil && *t != gatewayv1.PathMatchPathPrefix {
			f.route.refuse("%s.path: ReplacePrefixMatch needs a match of type PathPrefix", path)
		}
		matched = *f.matches[0].Path.Value
	} else if len(f.matches) > 1 {
		f.route.refuse("%s.path: ReplacePrefixMatch needs a rule with one match", path)
	}
	matched, with = strings.TrimRight(matched, "/"), strings.TrimRight(with, "/")
	switch {
	case with == "" && matched == "":
		return "/", nil
	case with == "":
		return "", &matcherv3.RegexMatchAndSubstitute{Pattern: regex("^" + regexp.QuoteMeta(matched) + "/*"), Substitution: "/"}
	case matched == "":
		return with + "/", nil
	}
	return with, nil
}

func (f *filters) rewrite(path string, in *gatewayv1.HTTPURLRewriteFilter) {
	if f.rule.action == nil {
		f.route.refuse("%s: cannot be used together with a redirect", path)
		return
	}
	if in.Hostname != nil {
		f.rule.headers.host = string(*in.Hostname)
	}
	switch full, prefix, isPrefix := modifier(in.Path); {
	case in.Path == nil:
	case !isPrefix:
		f.rule.action.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{Pattern: regex(".*"), Substitution: strings.ReplaceAll(full, `\`, `\\`)}
	default:
		f.rule.action.PrefixRewrite, f.rule.action.RegexRewrite = f.prefix(path, prefix)
	}
}

func (f *filters) mirror(path string, in *gatewayv1.HTTPRequestMirrorFilter) {
	share := allRequests
	switch {
	case in.Percent != nil:
		share = fraction(uint32(max(*in.Percent, 0)) * 10_000)
	case in.Fraction != nil:
		denominator := int32(100)
		if in.Fraction.Denominator != nil && *in.Fraction.Denominator > 0 {
			denominator = *in.Fraction.Denominator
		}
		share = fraction(uint32(min(int64(max(in.Fraction.Numerator, 0))*1_000_000/int64(denominator), 1_000_000)))
	}
	if share.GetDefaultValue().GetNumerator() > 0 {
		f.rule.copies = append(f.rule.copies, mirrorRef{path: path + ".backendRef", ref: in.BackendRef, share: share})
	}
}

// corsMaxAge is the Gateway API's default, in seconds.
const corsMaxAge = 5

func (f *filters) cors(path string, in *gatewayv1.HTTPCORSFilter) *corsv3.CorsPolicy {
	out := &corsv3.CorsPolicy{FilterEnabled: allRequests, ForwardNotMatchingPreflights: no, MaxAge: strconv.Itoa(corsMaxAge)}
	if in.MaxAge > 0 {
		out.MaxAge = strconv.Itoa(int(in.MaxAge))
	}
	credentials := in.AllowCredentials != nil && *in.AllowCredentials
	if credentials {
		out.AllowCredentials = yes
	}
	for i, o := range in.AllowOrigins {
		switch origin := string(o); {
		case origin == "*":
			out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, regexMatcher(".*"))
		case strings.Contains(origin, "*"):
			if strings.Count(origin, "*") > 1 {
				f.route.refuse("%s.allowOrigins[%d]: %q has more than one *", path, i, origin)
			}
			out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, regexMatcher("^"+strings.ReplaceAll(regexp.QuoteMeta(origin), `\*`, ".*")+"$"))
		default:
			out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, exactMatcher(origin))
		}
	}
	var methods, allow, expose []string
	for _, m := range in.AllowMethods {
		// To a browser that sends credentials a * is the method of that name.
		if m == "*" && credentials {
			methods = append(methods, http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace, http.MethodPatch)
			continue
		}
		methods = append(methods, string(m))
	}
	for _, h := range in.AllowHeaders {
		allow = append(allow, string(h))
	}
	for _, h := range in.ExposeHeaders {
		expose = append(expose, string(h))
	}
	out.AllowMethods, out.AllowHeaders, out.ExposeHeaders = strings.Join(methods, ","), strings.Join(allow, ","), strings.Join(expose, ",")
	return out
}
