package policies

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	uritemplatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// call is a request, or a connection where headers are nil.
type call struct {
	identity       string // a SPIFFE id, or ""
	direct, remote netip.Addr
	to             netip.AddrPort
	sni            string
	headers        map[string]string
	waited         int // milliseconds, for its first bytes
}

// evaluator decides as Envoy's RBAC filter documents it, without any speed.
type evaluator struct{ t *testing.T }

// allowed passes a call through filters in order.
func (e evaluator) allowed(filters []*rbacv3.RBAC, c *call) bool {
	for _, f := range filters {
		if f == nil {
			continue
		}
		matched := false
		for _, p := range f.Policies {
			matched = matched || e.policy(p, c)
		}
		if matched == (f.Action == rbacv3.RBAC_DENY) {
			return false
		}
	}
	return true
}

func (e evaluator) policy(p *rbacv3.Policy, c *call) bool {
	permitted, known := false, false
	for _, x := range p.Permissions {
		permitted = permitted || e.permission(x, c)
	}
	for _, x := range p.Principals {
		known = known || e.principal(x, c)
	}
	return permitted && known
}

func (e evaluator) permission(p *rbacv3.Permission, c *call) bool {
	switch r := p.Rule.(type) {
	case *rbacv3.Permission_Any:
		return r.Any
	case *rbacv3.Permission_AndRules:
		for _, x := range r.AndRules.Rules {
			if !e.permission(x, c) {
				return false
			}
		}
		return true
	case *rbacv3.Permission_OrRules:
		for _, x := range r.OrRules.Rules {
			if e.permission(x, c) {
				return true
			}
		}
		return false
	case *rbacv3.Permission_NotRule:
		return !e.permission(r.NotRule, c)
	case *rbacv3.Permission_DestinationPort:
		return uint32(c.to.Port()) == r.DestinationPort
	case *rbacv3.Permission_DestinationIp:
		return e.inRange(r.DestinationIp, c.to.Addr())
	case *rbacv3.Permission_RequestedServerName:
		return e.text(r.RequestedServerName, c.sni)
	case *rbacv3.Permission_Header:
		return e.header(r.Header, c)
	case *rbacv3.Permission_UrlPath:
		path, _, _ := strings.Cut(e.path(c), "?")
		return e.text(r.UrlPath.GetPath(), path)
	case *rbacv3.Permission_UriTemplate:
		config := &uritemplatev3.UriTemplateMatchConfig{}
		if err := r.UriTemplate.TypedConfig.UnmarshalTo(config); err != nil {
			e.t.Fatal(err)
		}
		path, _, _ := strings.Cut(e.path(c), "?")
		return segments(strings.Split(config.PathTemplate, "/"), strings.Split(path, "/"))
	}
	e.t.Fatalf("the permission %T is not known to the evaluator", p.Rule)
	return false
}

// segments matches a URI template: * is one segment, ** any number.
func segments(template, path []string) bool {
	switch {
	case len(template) == 0:
		return len(path) == 0
	case template[0] == "**":
		for i := 0; i <= len(path); i++ {
			if segments(template[1:], path[i:]) {
				return true
			}
		}
		return false
	case len(path) == 0:
		return false
	case template[0] == "*":
		return path[0] != "" && segments(template[1:], path[1:])
	}
	return template[0] == path[0] && segments(template[1:], path[1:])
}

func (e evaluator) principal(p *rbacv3.Principal, c *call) bool {
	switch r := p.Identifier.(type) {
	case *rbacv3.Principal_Any:
		return r.Any
	case *rbacv3.Principal_AndIds:
		for _, x := range r.AndIds.Ids {
			if !e.principal(x, c) {
				return false
			}
		}
		return true
	case *rbacv3.Principal_OrIds:
		for _, x := range r.OrIds.Ids {
			if e.principal(x, c) {
				return true
			}
		}
		return false
	case *rbacv3.Principal_NotId:
		return !e.principal(r.NotId, c)
	case *rbacv3.Principal_DirectRemoteIp:
		return e.inRange(r.DirectRemoteIp, c.direct)
	case *rbacv3.Principal_RemoteIp:
		return e.inRange(r.RemoteIp, c.remote)
	case *rbacv3.Principal_Header:
		return e.header(r.Header, c)
	case *rbacv3.Principal_FilterState:
		switch r.FilterState.Key {
		case "fairlead.dev/waited":
			return e.text(r.FilterState.GetStringMatch(), strconv.Itoa(c.waited))
		case "io.istio.peer_principal":
		default:
			e.t.Fatalf("filter state %q is not set by a waypoint", r.FilterState.Key)
		}
		return c.identity != "" && e.text(r.FilterState.GetStringMatch(), c.identity)
	}
	e.t.Fatalf("the principal %T is not known to the evaluator", p.Identifier)
	return false
}

func (e evaluator) path(c *call) string {
	if c.headers == nil {
		e.t.Fatal("a connection is asked for its path")
	}
	return c.headers[":path"]
}

func (e evaluator) header(h *routev3.HeaderMatcher, c *call) bool {
	if c.headers == nil {
		e.t.Fatalf("a connection is asked for its header %s", h.Name)
	}
	value, present := c.headers[h.Name]
	if h.GetPresentMatch() {
		return present
	}
	return present && e.text(h.GetStringMatch(), value)
}

func (e evaluator) inRange(r *corev3.CidrRange, a netip.Addr) bool {
	p, err := netip.ParsePrefix(r.AddressPrefix + "/" + r.PrefixLen.String()[len("value:"):])
	if err != nil {
		e.t.Fatal(err)
	}
	return p.Contains(a)
}

func (e evaluator) text(m *matcherv3.StringMatcher, s string) bool {
	fold := func(v string) string {
		if m.IgnoreCase {
			return strings.ToLower(v)
		}
		return v
	}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return fold(s) == fold(p.Exact)
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(fold(s), fold(p.Prefix))
	case *matcherv3.StringMatcher_Suffix:
		return strings.HasSuffix(fold(s), fold(p.Suffix))
	case *matcherv3.StringMatcher_SafeRegex:
		return regexp.MustCompile("^(?:" + p.SafeRegex.Regex + ")$").MatchString(s)
	}
	e.t.Fatalf("the string match %T is not known to the evaluator", m.GetMatchPattern())
	return false
}
