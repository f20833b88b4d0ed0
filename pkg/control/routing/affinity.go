package routing

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"golang.org/x/net/http/httpguts"
)

// AffinityAnnotation keeps a user of a VirtualService on one version.
const AffinityAnnotation = "fairlead.dev/session-affinity"

// affinity is by what a user is known. One of cookie, header and identity is set.
type affinity struct {
	cookie, header string
	identity       bool
	// generate: who has no cookie is given one, for that long; zero: a session.
	generate bool
	ttl      time.Duration
	// persistent: endpoints are chosen by it as well.
	persistent bool
}

// parseAffinity reads the annotation's value.
func parseAffinity(text string) (*affinity, error) {
	const syntax = "want cookie=<name>, cookie=<name>;ttl=<duration>, header=<name> or identity"
	first, option, optional := strings.Cut(strings.TrimSpace(text), ";")
	key, name, named := strings.Cut(strings.TrimSpace(first), "=")
	if named && !httpguts.ValidHeaderFieldName(name) {
		return nil, fmt.Errorf("%q is not a name: %s", name, syntax)
	}
	switch a := (&affinity{}); {
	case key == "identity" && !named && !optional:
		a.identity = true
		return a, nil
	case key == "header" && named && !optional:
		a.header = strings.ToLower(name)
		return a, nil
	case key == "cookie" && named:
		a.cookie = name
		if !optional {
			return a, nil
		}
		value, ok := strings.CutPrefix(strings.TrimSpace(option), "ttl=")
		ttl, err := time.ParseDuration(value)
		if !ok || err != nil || ttl < 0 {
			return nil, fmt.Errorf("%q is not ttl=<duration>: %s", strings.TrimSpace(option), syntax)
		}
		a.generate, a.ttl = true, ttl
		return a, nil
	}
	return nil, fmt.Errorf("%q: %s", text, syntax)
}

// policy hashes what a user is known by. It is terminal: where the value is there,
// nothing else counts, or a user would move with his address.
func (a *affinity) policy() *routev3.RouteAction_HashPolicy {
	p := &routev3.RouteAction_HashPolicy{Terminal: true}
	switch {
	case a.generate:
		p.PolicySpecifier = headerHash("cookie", `^(?:.*;)?\s*`+regexp.QuoteMeta(a.cookie)+`=`+markedID+`.*$`)
	case a.cookie != "":
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: &routev3.RouteAction_HashPolicy_Cookie{Name: a.cookie}}
	case a.header != "":
		p.PolicySpecifier = headerHash(a.header, "")
	default:
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_FilterState_{FilterState: &routev3.RouteAction_HashPolicy_FilterState{Key: PrincipalKey}}
	}
	return p
}

// headerHash hashes a header, or the two groups of a pattern in it.
func headerHash(name, pattern string) *routev3.RouteAction_HashPolicy_Header_ {
	out := &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: name}}
	if pattern != "" {
		out.Header.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{Pattern: regex(pattern), Substitution: `\1\2`}
	}
	return out
}

// A cluster is chosen before the hash policy makes a cookie, so its own cookies
// would come too late: the first request would be spread at random and the second
// by the cookie. A newcomer is therefore hashed by his request's id, and that id
// is the cookie that he is given.
//
// Between the two Envoy marks the ids of requests that it traces, in the fifteenth
// character, which is therefore left out of both hashes.
var requestIDHash = &routev3.RouteAction_HashPolicy{Terminal: true, PolicySpecifier: headerHash("x-request-id", "^"+markedID+"$")}

// markedID matches a request's id in two groups, without the mark. Its characters
// are those of a cookie's value; that they are of one byte keeps the program within
// the 100 instructions that Envoy allows unless its bootstrap says else.
const markedID = "([!-:<-~]{14})?[!-:<-~]?([!-:<-~]*)"

func (a *affinity) setCookie() *corev3.HeaderValueOption {
	value := strings.ReplaceAll(a.cookie, "%", "%%") + "=%REQ(X-REQUEST-ID)%; Path=/; HttpOnly"
	if a.ttl > 0 {
		value += fmt.Sprintf("; Max-Age=%d", max(1, int64(a.ttl/time.Second)))
	}
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: "set-cookie", Value: value}}
}

// known is the match of those who have the cookie.
func (a *affinity) known(m *routev3.RouteMatch) []*routev3.RouteMatch {
	cookie := &routev3.HeaderMatcher{Name: "cookie", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{
		StringMatch: regexMatcher(`(.*;)?\s*` + regexp.QuoteMeta(a.cookie) + `=[!-:<-~].*`)}}
	out := copyMatch(m)
	out.Headers = append(out.Headers, cookie)
	return []*routev3.RouteMatch{out}
}

// copyMatch is a copy that shares what it points to.
func copyMatch(m *routev3.RouteMatch) *routev3.RouteMatch {
	return &routev3.RouteMatch{
		PathSpecifier: m.PathSpecifier, CaseSensitive: m.CaseSensitive, Grpc: m.Grpc,
		Headers:         append([]*routev3.HeaderMatcher(nil), m.Headers...),
		QueryParameters: append([]*routev3.QueryParameterMatcher(nil), m.QueryParameters...),
		FilterState:     append([]*matcherv3.FilterStateMatcher(nil), m.FilterState...),
	}
}
