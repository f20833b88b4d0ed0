package route

import (
	"errors"
	"fmt"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
)

type pathKind uint8

const (
	pathPrefix pathKind = iota
	pathExact
	pathSegments
	pathRegexp
	pathConnect
)

// match is a RouteMatch.
type match struct {
	kind pathKind
	// fold ignores the case of path, which then is in lower case.
	fold bool
	path string
	re   *matcher.Regexp
	// more is nil where the path decides alone.
	more *conditions
}

// conditions are what a route asks for besides the path.
type conditions struct {
	fraction *fraction
	grpc     bool
	headers  []*matcher.Header
	query    []queryParameter
	cookies  []cookie
	tls      *tlsContext
	metadata []*matcher.Metadata
	state    []*matcher.FilterState
}

type queryParameter struct {
	name string
	// value is nil where presence decides.
	value  *matcher.String
	absent bool
}

type cookie struct {
	name   string
	value  *matcher.String
	invert bool
}

type tlsContext struct{ presented, validated *bool }

// fraction is a FractionalPercent.
type fraction struct{ numerator, denominator uint64 }

func newFraction(p *typev3.FractionalPercent) *fraction {
	f := &fraction{numerator: uint64(p.GetNumerator()), denominator: 100}
	switch p.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		f.denominator = 10_000
	case typev3.FractionalPercent_MILLION:
		f.denominator = 1_000_000
	}
	return f
}

// hit reports whether a random number falls into the fraction.
func (f *fraction) hit(random uint64) bool { return random%f.denominator < f.numerator }

func newMatch(m *routev3.RouteMatch) (out match, err error) {
	out.fold = m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue()
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		out.kind, out.path = pathPrefix, p.Prefix
	case *routev3.RouteMatch_Path:
		out.kind, out.path = pathExact, p.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		out.kind, out.path = pathSegments, p.PathSeparatedPrefix
		if !strings.HasPrefix(out.path, "/") || strings.HasSuffix(out.path, "/") || strings.ContainsAny(out.path, "?#") {
			return out, fmt.Errorf("path_separated_prefix %q: it begins with a slash and does not end with one", out.path)
		}
	case *routev3.RouteMatch_SafeRegex:
		out.kind, out.fold = pathRegexp, false
		if out.re, err = matcher.NewRegexp(p.SafeRegex); err != nil {
			return out, fmt.Errorf("safe_regex: %w", err)
		}
	case *routev3.RouteMatch_PathMatchPolicy:
		out.kind, out.fold = pathRegexp, false
		if out.re, err = NewTemplate(p.PathMatchPolicy); err != nil {
			return out, fmt.Errorf("path_match_policy: %w", err)
		}
	case *routev3.RouteMatch_ConnectMatcher_:
		out.kind, out.fold = pathConnect, false
	case nil:
		return out, errors.New("it names no path: set prefix, path, safe_regex, path_separated_prefix or connect_matcher")
	default:
		return out, fmt.Errorf("paths of kind %T are not supported", p)
	}
	if out.fold {
		out.path = strings.ToLower(out.path)
	}
	out.more, err = newConditions(m)
	return out, err
}

func newConditions(m *routev3.RouteMatch) (*conditions, error) {
	c := &conditions{grpc: m.GetGrpc() != nil}
	used := c.grpc
	if f := m.GetRuntimeFraction(); f != nil {
		c.fraction, used = newFraction(f.GetDefaultValue()), true
	}
	var err error
	if c.headers, err = matcher.NewHeaders(m.GetHeaders()); err != nil {
		return nil, err
	}
	for i, q := range m.GetQueryParameters() {
		p := queryParameter{name: q.GetName()}
		switch s := q.GetQueryParameterMatchSpecifier().(type) {
		case *routev3.QueryParameterMatcher_StringMatch:
			if p.value, err = matcher.NewString(s.StringMatch); err != nil {
				return nil, fmt.Errorf("query_parameters[%d].string_match: %w", i, err)
			}
		case *routev3.QueryParameterMatcher_PresentMatch:
			p.absent = !s.PresentMatch
		}
		c.query = append(c.query, p)
	}
	for i, k := range m.GetCookies() {
		v, err := matcher.NewString(k.GetStringMatch())
		if err != nil {
			return nil, fmt.Errorf("cookies[%d].string_match: %w", i, err)
		}
		c.cookies = append(c.cookies, cookie{k.GetName(), v, k.GetInvertMatch()})
	}
	if t := m.GetTlsContext(); t != nil {
		c.tls, used = &tlsContext{}, true
		if p := t.GetPresented(); p != nil {
			c.tls.presented = &p.Value
		}
		if v := t.GetValidated(); v != nil {
			c.tls.validated = &v.Value
		}
	}
	for i, d := range m.GetDynamicMetadata() {
		one, err := matcher.NewMetadata(d)
		if err != nil {
			return nil, fmt.Errorf("dynamic_metadata[%d]: %w", i, err)
		}
		c.metadata = append(c.metadata, one)
	}
	for i, f := range m.GetFilterState() {
		one, err := matcher.NewFilterState(f)
		if err != nil {
			return nil, fmt.Errorf("filter_state[%d]: %w", i, err)
		}
		c.state = append(c.state, one)
	}
	if !used && len(c.headers)+len(c.query)+len(c.cookies)+len(c.metadata)+len(c.state) == 0 {
		return nil, nil
	}
	return c, nil
}

// stem is the text that every path begins with which m can match.
func (m *match) stem() string {
	switch m.kind {
	case pathRegexp:
		return m.re.Prefix
	case pathConnect:
		return ""
	}
	return m.path
}

// holds decides on a request whose path, without its query, begins with m's stem.
func (m *match) holds(path string, in *Input) bool {
	switch m.kind {
	case pathConnect:
		if in.Request.Method != "CONNECT" {
			return false
		}
	case pathRegexp:
		if in.Request.Path == "" || !m.re.Match(path) {
			return false
		}
	case pathSegments:
		if len(path) > len(m.path) && path[len(m.path)] != '/' {
			return false
		}
	case pathPrefix, pathExact:
		// A request without a path (CONNECT) has none that could match.
		if in.Request.Path == "" {
			return false
		}
	}
	return m.more == nil || m.more.hold(in)
}

func (c *conditions) hold(in *Input) bool {
	r := in.Request
	if c.fraction != nil && !c.fraction.hit(in.Random) || c.grpc && !r.GRPC() {
		return false
	}
	for _, h := range c.headers {
		if !h.Request(r) {
			return false
		}
	}
	for i := range c.query {
		if !c.query[i].holds(r.Path) {
			return false
		}
	}
	for i := range c.cookies {
		v, ok := r.Cookie(c.cookies[i].name)
		if (ok && c.cookies[i].value.Match(v)) == c.cookies[i].invert {
			return false
		}
	}
	return c.holdsConnection(in)
}

func (c *conditions) holdsConnection(in *Input) bool {
	if c.tls != nil && !c.tls.holds(in) {
		return false
	}
	for _, m := range c.metadata {
		if in.Info == nil || !m.Match(in.Info.Dynamic) {
			return false
		}
	}
	for _, m := range c.state {
		if in.Info == nil || in.Info.Connection == nil || !m.Match(in.Info.FilterState) {
			return false
		}
	}
	return true
}

func (q *queryParameter) holds(path string) bool {
	v, ok := message.QueryValue(path, q.name)
	if q.value == nil {
		return ok != q.absent
	}
	return ok && q.value.Match(v)
}

func (t *tlsContext) holds(in *Input) bool {
	presented, validated := false, false
	if in.Info != nil && in.Info.Connection != nil && in.Info.TLS != nil {
		presented = len(in.Info.TLS.PeerCertificates) > 0
		validated = len(in.Info.TLS.VerifiedChains) > 0 || presented && in.Info.PeerURISAN != ""
	}
	return (t.presented == nil || *t.presented == presented) && (t.validated == nil || *t.validated == validated)
}
