package route

import (
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// RewriteRequest makes a request what goes upstream to the chosen cluster: header
// fields, authority, path. With original, x-envoy-original-path and
// x-envoy-original-host say what was there before a rewrite; it is off where the
// router's suppress_envoy_headers is on. Info.OriginalPath is set with the path.
func (r *Route) RewriteRequest(in *Input, c Choice, original bool) {
	if e := c.entry; e != nil {
		e.request.requestFields(in)
		if e.hostLiteral != "" {
			in.Request.Authority = e.hostLiteral
		}
	}
	order := r.inOrder(Choice{})
	for _, s := range order[1:] {
		s.request.requestFields(in)
	}
	f := r.Forward
	if f == nil {
		return
	}
	if host := f.hostRewrite(in.Request); host != "" {
		f.SetAuthority(in.Request, host, original)
	}
	if path, ok := r.rewrittenPath(in.Request.Path); ok {
		setPath(in, path, original)
	}
}

func setPath(in *Input, path string, original bool) {
	if in.Info != nil && in.Info.OriginalPath == "" {
		in.Info.OriginalPath = in.Request.Path
	}
	if original {
		in.Request.Fields.Set("x-envoy-original-path", in.Request.Path)
	}
	in.Request.Path = path
}

func (f *Forward) hostRewrite(r *message.Request) string {
	switch {
	case f.hostLiteral != "":
		return f.hostLiteral
	case f.hostHeader != "":
		v, _ := r.Value(f.hostHeader)
		return v
	case f.hostRegex != nil:
		return f.hostRegex.Replace(message.WithoutQuery(r.Path))
	}
	return ""
}

// SetAuthority rewrites the authority, and keeps the old one where the route asks
// for that. The router calls it for AutoHostRewrite.
func (f *Forward) SetAuthority(r *message.Request, host string, original bool) {
	if f.AppendForwardedHost && r.Authority != "" {
		appendForwardedHost(r)
	}
	if original {
		r.Fields.Set("x-envoy-original-host", r.Authority)
	}
	r.Authority = host
}

// appendForwardedHost appends the authority, unless it was the last one appended.
func appendForwardedHost(r *message.Request) {
	const name = "x-forwarded-host"
	old, ok := r.Fields.Joined(name)
	if !ok || old == "" {
		r.Fields.Set(name, r.Authority)
		return
	}
	if last := old[strings.LastIndexByte(old, ',')+1:]; last != r.Authority {
		r.Fields.Set(name, old+","+r.Authority)
	}
}

// rewrittenPath is the path with its query after the route's rewrite, and whether
// the route has one.
func (r *Route) rewrittenPath(path string) (string, bool) {
	f := r.Forward
	just := message.WithoutQuery(path)
	switch {
	case f.prefixRewrite != "":
		return f.prefixRewrite + path[r.match.matched(path):], true
	case f.regexRewrite != nil:
		return f.regexRewrite.Replace(just) + path[len(just):], true
	case f.templateRewrite != nil:
		if to, ok := f.templateRewrite.rewrite(just); ok {
			return to + path[len(just):], true
		}
		return path, true
	}
	return "", false
}

// matched is how many bytes of a path a prefix rewrite replaces.
func (m *match) matched(path string) int {
	switch m.kind {
	case pathRegexp, pathConnect:
		return len(message.WithoutQuery(path))
	}
	return min(len(m.path), len(path))
}
