package routing

import (
	"fmt"
	"net/http"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	networkingapi "istio.io/api/networking/v1alpha3"
)

// action translates what a rule of a VirtualService does.
func (p *preparer) action(path string, r *rule, namespace string, h *networkingapi.HTTPRoute) {
	r.headers = p.headers(path+".headers", h.GetHeaders())
	p.filters(path, r, h)
	switch {
	case h.GetRedirect() != nil:
		r.redirect = p.redirect(path+".redirect", h.GetRedirect())
	case h.GetDirectResponse() != nil:
		r.direct = p.directResponse(path+".directResponse", h.GetDirectResponse())
	case len(h.GetRoute()) > 0:
		p.forward(path, r, namespace, h)
	default:
		p.fail(path, "a rule needs route, redirect, directResponse or delegate")
	}
}

func (p *preparer) forward(path string, r *rule, namespace string, h *networkingapi.HTTPRoute) {
	a := plainAction(p.b.retry(h.GetRetries()))
	if h.GetTimeout() != nil {
		a.Timeout = h.GetTimeout()
		a.MaxGrpcTimeout = h.GetTimeout() //nolint:staticcheck // as plainAction
	}
	switch rewrite := h.GetRewrite(); {
	case rewrite.GetUriRegexRewrite() != nil:
		a.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{
			Pattern: regex(rewrite.GetUriRegexRewrite().GetMatch()), Substitution: rewrite.GetUriRegexRewrite().GetRewrite(),
		}
	case rewrite.GetUri() != "":
		a.PrefixRewrite = rewrite.GetUri()
	}
	if authority := h.GetRewrite().GetAuthority(); authority != "" && r.headers.host == "" {
		r.headers.host = authority
	}
	r.action = a
	for i, d := range h.GetRoute() {
		at := fmt.Sprintf("%s.route[%d]", path, i)
		out := p.destination(namespace, d.GetDestination())
		out.weight, out.headers = uint32(max(d.GetWeight(), 0)), p.headers(at+".headers", d.GetHeaders())
		if len(h.GetRoute()) == 1 {
			out.weight = 1
		}
		r.destinations = append(r.destinations, out)
	}
	p.mirrors(path, r, namespace, h)
}

func (p *preparer) destination(namespace string, d *networkingapi.Destination) destination {
	host := p.b.fqdn(d.GetHost(), namespace)
	return destination{host: host, service: p.b.service(host, p.virtual.object.Namespace), port: d.GetPort().GetNumber(), subset: d.GetSubset()}
}

func (p *preparer) mirrors(path string, r *rule, namespace string, h *networkingapi.HTTPRoute) {
	all := h.GetMirrors()
	if h.GetMirror() != nil {
		percentage := h.GetMirrorPercentage()
		if old := h.GetMirrorPercent(); percentage == nil && old != nil { //nolint:staticcheck // deprecated, and still served
			percentage = &networkingapi.Percent{Value: float64(old.GetValue())}
		}
		all = append([]*networkingapi.HTTPMirrorPolicy{{Destination: h.GetMirror(), Percentage: percentage}}, all...)
	}
	for _, m := range all {
		share := allRequests
		if m.GetPercentage() != nil {
			n := percentage(m.GetPercentage())
			if n == 0 {
				continue
			}
			share = fraction(n)
		}
		r.mirrors = append(r.mirrors, mirror{destination: p.destination(namespace, m.GetDestination()), share: share})
	}
}

// percentage is in millionths.
func percentage(p *networkingapi.Percent) uint32 {
	return uint32(max(0, min(p.GetValue(), 100))*10_000 + 0.5)
}

var redirectCodes = map[uint32]routev3.RedirectAction_RedirectResponseCode{
	0:                            routev3.RedirectAction_MOVED_PERMANENTLY,
	http.StatusMovedPermanently:  routev3.RedirectAction_MOVED_PERMANENTLY,
	http.StatusFound:             routev3.RedirectAction_FOUND,
	http.StatusSeeOther:          routev3.RedirectAction_SEE_OTHER,
	http.StatusTemporaryRedirect: routev3.RedirectAction_TEMPORARY_REDIRECT,
	http.StatusPermanentRedirect: routev3.RedirectAction_PERMANENT_REDIRECT,
}

func (p *preparer) redirect(path string, in *networkingapi.HTTPRedirect) *redirect {
	code, known := redirectCodes[in.GetRedirectCode()]
	if !known {
		p.fail(path+".redirectCode", "%d is not one of 301, 302, 303, 307, 308", in.GetRedirectCode())
	}
	a := &routev3.RedirectAction{HostRedirect: in.GetAuthority(), ResponseCode: code,
		PathRewriteSpecifier: &routev3.RedirectAction_PathRedirect{PathRedirect: in.GetUri()}}
	out := &redirect{action: a}
	if in.GetScheme() != "" {
		a.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: in.GetScheme()}
	}
	switch port := in.GetRedirectPort().(type) {
	case *networkingapi.HTTPRedirect_Port:
		a.PortRedirect = port.Port
	case *networkingapi.HTTPRedirect_DerivePort:
		out.servicePort = port.DerivePort == networkingapi.HTTPRedirect_FROM_REQUEST_PORT
	}
	if ownPort(in.GetScheme(), a.PortRedirect) {
		a.PortRedirect = 0
	}
	return out
}

// ownPort tells whether a port is the scheme's, which goes without saying.
func ownPort(scheme string, port uint32) bool {
	if strings.EqualFold(scheme, "https") {
		return port == 443
	}
	return port == 80
}

// at is the redirect of requests to a service port.
func (r *redirect) at(port uint32) *routev3.RedirectAction {
	if !r.servicePort || ownPort(r.action.GetSchemeRedirect(), port) {
		return r.action
	}
	out := proto.Clone(r.action).(*routev3.RedirectAction)
	out.PortRedirect = port
	return out
}

func (p *preparer) directResponse(path string, in *networkingapi.HTTPDirectResponse) *routev3.DirectResponseAction {
	out := &routev3.DirectResponseAction{Status: in.GetStatus()}
	size := 0
	switch body := in.GetBody().GetSpecifier().(type) {
	case *networkingapi.HTTPBody_String_:
		size = len(body.String_)
		out.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: body.String_}}
	case *networkingapi.HTTPBody_Bytes:
		size = len(body.Bytes)
		out.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: body.Bytes}}
	}
	if size > maxDirectResponseBody {
		p.fail(path+".body", "%d bytes are more than the %d that are allowed", size, maxDirectResponseBody)
	}
	if out.Status < 200 || out.Status > 599 {
		p.fail(path+".status", "%d is not between 200 and 599", out.Status)
	}
	return out
}

// filters are what a rule says to the fault and CORS filters.
func (p *preparer) filters(path string, r *rule, h *networkingapi.HTTPRoute) {
	set := func(name string, m interface {
		proto.Message
		ValidateAll() error
	}) {
		if err := m.ValidateAll(); err != nil {
			p.fail(path, "Envoy would refuse it: %v", err)
		}
		any, err := anypb.New(m)
		if err != nil {
			p.fail(path, "%v", err)
			return
		}
		if r.filters == nil {
			r.filters = map[string]*anypb.Any{}
		}
		r.filters[name] = any
	}
	if f := h.GetFault(); f != nil {
		set(faultFilter, fault(f))
	}
	if c := h.GetCorsPolicy(); c != nil {
		set(corsFilter, cors(c))
	}
}
