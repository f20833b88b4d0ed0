package source

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/suggest"
)

var filterTypes = []gatewayv1.HTTPRouteFilterType{
	gatewayv1.HTTPRouteFilterRequestHeaderModifier, gatewayv1.HTTPRouteFilterResponseHeaderModifier, gatewayv1.HTTPRouteFilterRequestMirror,
	gatewayv1.HTTPRouteFilterRequestRedirect, gatewayv1.HTTPRouteFilterURLRewrite, gatewayv1.HTTPRouteFilterCORS,
	gatewayv1.HTTPRouteFilterExternalAuth, gatewayv1.HTTPRouteFilterExtensionRef,
}

// routeFilters checks the filters of a rule or of a backend.
func (m meaning) routeFilters(at string, filters []gatewayv1.HTTPRouteFilter, matches []gatewayv1.HTTPRouteMatch, backends bool) {
	if len(filters) > maxFilters {
		m.fail(at+".filters", "there can be %d filters", maxFilters)
	}
	seen := map[gatewayv1.HTTPRouteFilterType]bool{}
	for i, f := range filters {
		path := fmt.Sprintf("%s.filters[%d]", at, i)
		oneOf(m, path+".type", &f.Type, filterTypes...)
		m.filterBody(path, &f)
		switch {
		case seen[f.Type] && f.Type != gatewayv1.HTTPRouteFilterRequestMirror && f.Type != gatewayv1.HTTPRouteFilterExtensionRef:
			m.fail(path+".type", "a filter of type %s stands before: put both into one", f.Type)
		case f.Type == gatewayv1.HTTPRouteFilterRequestRedirect && seen[gatewayv1.HTTPRouteFilterURLRewrite],
			f.Type == gatewayv1.HTTPRouteFilterURLRewrite && seen[gatewayv1.HTTPRouteFilterRequestRedirect]:
			m.fail(path+".type", "RequestRedirect and URLRewrite exclude each other")
		case f.Type == gatewayv1.HTTPRouteFilterRequestRedirect && backends:
			m.fail(path+".type", "a redirect sends nothing to backends: remove backendRefs or the filter")
		}
		seen[f.Type] = true
		m.headerFilter(path+".requestHeaderModifier", f.RequestHeaderModifier)
		m.headerFilter(path+".responseHeaderModifier", f.ResponseHeaderModifier)
		m.redirectFilter(path+".requestRedirect", f.RequestRedirect, matches)
		if f.URLRewrite != nil {
			m.pathModifier(path+".urlRewrite.path", f.URLRewrite.Path, matches)
		}
		m.mirrorFilter(path+".requestMirror", f.RequestMirror)
		m.corsFilter(path+".cors", f.CORS)
	}
}

// filterBody checks that a filter has the one field that its type names.
func (m meaning) filterBody(at string, f *gatewayv1.HTTPRouteFilter) {
	for _, b := range []struct {
		kind gatewayv1.HTTPRouteFilterType
		name string
		set  bool
	}{
		{gatewayv1.HTTPRouteFilterRequestHeaderModifier, "requestHeaderModifier", f.RequestHeaderModifier != nil},
		{gatewayv1.HTTPRouteFilterResponseHeaderModifier, "responseHeaderModifier", f.ResponseHeaderModifier != nil},
		{gatewayv1.HTTPRouteFilterRequestMirror, "requestMirror", f.RequestMirror != nil},
		{gatewayv1.HTTPRouteFilterRequestRedirect, "requestRedirect", f.RequestRedirect != nil},
		{gatewayv1.HTTPRouteFilterURLRewrite, "urlRewrite", f.URLRewrite != nil},
		{gatewayv1.HTTPRouteFilterCORS, "cors", f.CORS != nil},
		{gatewayv1.HTTPRouteFilterExternalAuth, "externalAuth", f.ExternalAuth != nil},
		{gatewayv1.HTTPRouteFilterExtensionRef, "extensionRef", f.ExtensionRef != nil},
	} {
		switch {
		case b.set && f.Type != b.kind:
			m.fail(at+"."+b.name, "goes with type %s, not %s", b.kind, f.Type)
		case !b.set && f.Type == b.kind:
			m.fail(at+"."+b.name, "is needed with type %s", b.kind)
		}
	}
}

func (m meaning) headerFilter(at string, h *gatewayv1.HTTPHeaderFilter) {
	if h == nil {
		return
	}
	for _, list := range []struct {
		name    string
		headers []gatewayv1.HTTPHeader
	}{{"set", h.Set}, {"add", h.Add}} {
		seen := map[string]bool{}
		for i, x := range list.headers {
			path := fmt.Sprintf("%s.%s[%d]", at, list.name, i)
			m.headerName(path+".name", string(x.Name))
			if !httpguts.ValidHeaderFieldValue(x.Value) {
				m.fail(path+".value", "%q is not a header value", x.Value)
			}
			if name := strings.ToLower(string(x.Name)); seen[name] {
				m.fail(path+".name", "%q stands already in this list", x.Name)
			} else {
				seen[name] = true
			}
		}
	}
	for i, name := range h.Remove {
		m.headerName(fmt.Sprintf("%s.remove[%d]", at, i), name)
	}
}

func (m meaning) redirectFilter(at string, r *gatewayv1.HTTPRequestRedirectFilter, matches []gatewayv1.HTTPRouteMatch) {
	if r == nil {
		return
	}
	if r.Scheme != nil && *r.Scheme != "http" && *r.Scheme != "https" {
		m.fail(at+".scheme", "%q is not http or https", *r.Scheme)
	}
	if r.Port != nil {
		m.port(at+".port", uint32(max(*r.Port, 0)))
	}
	if r.StatusCode != nil && !slices.Contains([]int{301, 302, 303, 307, 308}, *r.StatusCode) {
		m.fail(at+".statusCode", "%d is not one of 301, 302, 303, 307, 308", *r.StatusCode)
	}
	m.pathModifier(at+".path", r.Path, matches)
}

func (m meaning) pathModifier(at string, p *gatewayv1.HTTPPathModifier, matches []gatewayv1.HTTPRouteMatch) {
	if p == nil {
		return
	}
	oneOf(m, at+".type", &p.Type, gatewayv1.FullPathHTTPPathModifier, gatewayv1.PrefixMatchHTTPPathModifier)
	full := p.Type == gatewayv1.FullPathHTTPPathModifier
	switch {
	case full && p.ReplaceFullPath == nil:
		m.fail(at+".replaceFullPath", "is needed with type ReplaceFullPath")
	case full && p.ReplacePrefixMatch != nil:
		m.fail(at+".replacePrefixMatch", "goes with type ReplacePrefixMatch, not ReplaceFullPath")
	case full:
		return
	case p.ReplacePrefixMatch == nil:
		m.fail(at+".replacePrefixMatch", "is needed with type ReplacePrefixMatch")
	case p.ReplaceFullPath != nil:
		m.fail(at+".replaceFullPath", "goes with type ReplaceFullPath, not ReplacePrefixMatch")
	}
	if len(matches) == 1 && (matches[0].Path == nil || matches[0].Path.Type == nil || *matches[0].Path.Type == gatewayv1.PathMatchPathPrefix) {
		return
	}
	m.fail(at+".replacePrefixMatch", "needs a rule with exactly one match, by a path of type PathPrefix: otherwise it is not said which prefix is replaced")
}

func (m meaning) mirrorFilter(at string, f *gatewayv1.HTTPRequestMirrorFilter) {
	if f == nil {
		return
	}
	m.backendObject(at+".backendRef", &f.BackendRef)
	if f.Percent != nil && (*f.Percent < 0 || *f.Percent > 100) {
		m.fail(at+".percent", "%d is not between 0 and 100", *f.Percent)
	}
	if f.Percent != nil && f.Fraction != nil {
		m.fail(at+".fraction", "cannot be set together with percent")
	}
	if f.Fraction != nil {
		denominator := int32(100)
		if f.Fraction.Denominator != nil {
			denominator = *f.Fraction.Denominator
		}
		if denominator < 1 || f.Fraction.Numerator < 0 || f.Fraction.Numerator > denominator {
			m.fail(at+".fraction", "%d of %d is not a share", f.Fraction.Numerator, denominator)
		}
	}
}

func (m meaning) corsFilter(at string, c *gatewayv1.HTTPCORSFilter) {
	if c == nil {
		return
	}
	for i, o := range c.AllowOrigins {
		if o == "*" && len(c.AllowOrigins) > 1 {
			m.fail(fmt.Sprintf("%s.allowOrigins[%d]", at, i), "* stands for every origin, so it must stand alone")
		} else if o != "*" && !strings.Contains(string(o), "://") {
			m.fail(fmt.Sprintf("%s.allowOrigins[%d]", at, i), `%q is not an origin: write it like "https://example.com"`, o)
		}
	}
	for i, method := range c.AllowMethods {
		if !slices.Contains(httpMethods, string(method)) {
			m.fail(fmt.Sprintf("%s.allowMethods[%d]", at, i), "%q is not one of %s%s", method, strings.Join(httpMethods, ", "), suggest.DidYouMean(string(method), httpMethods))
		} else if method == "*" && len(c.AllowMethods) > 1 {
			m.fail(fmt.Sprintf("%s.allowMethods[%d]", at, i), "* stands for every method, so it must stand alone")
		}
	}
	if c.MaxAge < 0 {
		m.fail(at+".maxAge", "%d is negative", c.MaxAge)
	}
}
