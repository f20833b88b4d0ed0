package route

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
)

// Redirect is a RedirectAction.
type Redirect struct {
	// Status is 301, 302, 303, 307 or 308.
	Status int

	scheme, host string
	// port is with its colon, or "".
	port       string
	path       string
	prefix     string
	regex      *matcher.Rewrite
	stripQuery bool
	// toTLS is the redirect of require_tls, which changes the scheme alone.
	toTLS bool
}

func newRedirect(a *routev3.RedirectAction) (*Redirect, error) {
	r := &Redirect{host: a.GetHostRedirect(), stripQuery: a.GetStripQuery()}
	switch a.GetResponseCode() {
	case routev3.RedirectAction_MOVED_PERMANENTLY:
		r.Status = 301
	case routev3.RedirectAction_FOUND:
		r.Status = 302
	case routev3.RedirectAction_SEE_OTHER:
		r.Status = 303
	case routev3.RedirectAction_TEMPORARY_REDIRECT:
		r.Status = 307
	case routev3.RedirectAction_PERMANENT_REDIRECT:
		r.Status = 308
	default:
		return nil, fmt.Errorf("response_code %v is not known", a.GetResponseCode())
	}
	if p := a.GetPortRedirect(); p != 0 {
		if p > 65535 {
			return nil, fmt.Errorf("port_redirect %d is not a port", p)
		}
		r.port = ":" + strconv.FormatUint(uint64(p), 10)
	}
	switch s := a.GetSchemeRewriteSpecifier().(type) {
	case *routev3.RedirectAction_HttpsRedirect:
		if s.HttpsRedirect {
			r.scheme = "https"
		}
	case *routev3.RedirectAction_SchemeRedirect:
		r.scheme = s.SchemeRedirect
	}
	switch s := a.GetPathRewriteSpecifier().(type) {
	case *routev3.RedirectAction_PathRedirect:
		r.path = s.PathRedirect
	case *routev3.RedirectAction_PrefixRewrite:
		r.prefix = s.PrefixRewrite
	case *routev3.RedirectAction_RegexRewrite:
		var err error
		if r.regex, err = matcher.NewRewrite(s.RegexRewrite); err != nil {
			return nil, fmt.Errorf("regex_rewrite: %w", err)
		}
	case *routev3.RedirectAction_PathRewrite:
		return nil, errors.New("path_rewrite is not supported: use path_redirect, prefix_rewrite or regex_rewrite")
	}
	return r, nil
}

// Location is the location field of the route's own answer: of a redirect, and of a
// direct response with a status of 201 or 3xx, which points at the request itself.
// It is "" for none.
func (r *Route) Location(in *Input) string {
	switch {
	case in.Request.Path == "":
		return ""
	case r.Redirect != nil:
		return r.Redirect.location(in, &r.match)
	case r.Direct != nil && (r.Direct.Status == 201 || r.Direct.Status/100 == 3):
		return (&Redirect{}).location(in, &r.match)
	}
	return ""
}

func (r *Redirect) location(in *Input, m *match) string {
	req := in.Request
	if r.toTLS {
		return "https://" + req.Authority + req.Path
	}
	scheme := r.scheme
	if scheme == "" {
		if scheme = in.Scheme; scheme == "" {
			scheme = req.Scheme
		}
	}
	host := r.host
	if host == "" {
		host = requestHost(req.Authority, in.scheme(), scheme, r.port)
	}
	path, keepQuery := r.newPath(req.Path, m)
	if r.stripQuery && !keepQuery {
		path, _, _ = strings.Cut(path, "?")
	}
	slash := ""
	if !strings.HasPrefix(path, "/") {
		slash = "/"
	}
	return scheme + "://" + host + r.port + slash + path
}

// newPath is the path with a query, and whether that query is the redirect's own.
func (r *Redirect) newPath(path string, m *match) (to string, own bool) {
	if r.path != "" {
		if strings.Contains(r.path, "?") {
			return r.path, true
		}
		if at := strings.IndexByte(path, '?'); at >= 0 {
			return r.path + path[at:], false
		}
		return r.path, false
	}
	switch {
	case r.prefix != "":
		return r.prefix + path[m.matched(path):], false
	case r.regex != nil:
		just := message.WithoutQuery(path)
		if to := r.regex.Replace(just); to != "" {
			return to + path[len(just):], false
		}
	}
	return path, false
}

// requestHost is the request's authority, without a port that would be wrong: there
// is a new one, or it is the default one of another scheme.
func requestHost(authority, was, scheme, port string) string {
	at := strings.LastIndexByte(authority, ':')
	if strings.HasPrefix(authority, "[") {
		if at = strings.LastIndex(authority, "]:"); at >= 0 {
			at++
		}
	}
	if at < 0 {
		return authority
	}
	old := authority[at:]
	if port != "" || scheme != was && (was == "https" && old == ":443" || was == "http" && old == ":80") {
		return authority[:at]
	}
	return authority
}
