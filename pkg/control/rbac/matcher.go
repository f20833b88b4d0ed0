package rbac

import (
	"net/netip"
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	uritemplatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// peerPrincipal is the filter state that holds the caller's SPIFFE id.
const peerPrincipal = "io.istio.peer_principal"

// text matches an exact value, prefix*, *suffix, or * for any value.
func text(v string, ignoreCase bool) *matcherv3.StringMatcher {
	switch {
	case v == "*":
		return regex(".+")
	case strings.HasPrefix(v, "*"):
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: v[1:]}, IgnoreCase: ignoreCase}
	case strings.HasSuffix(v, "*"):
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: v[:len(v)-1]}, IgnoreCase: ignoreCase}
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: v}, IgnoreCase: ignoreCase}
}

func regex(expression string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expression}}}
}

// identity matches the caller's SPIFFE id. A caller without one matches nothing.
func identity(m *matcherv3.StringMatcher) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_FilterState{FilterState: &matcherv3.FilterStateMatcher{
		Key: peerPrincipal, Matcher: &matcherv3.FilterStateMatcher_StringMatch{StringMatch: m},
	}}}
}

func principalID(v string) *rbacv3.Principal {
	if strings.HasPrefix(v, "*") { // also * alone, for which there must be an identity
		return identity(text(v, false))
	}
	return identity(text("spiffe://"+v, false))
}

// namespaceID and accountID are Istio's expressions, with the values quoted.
func namespaceID(v string) *rbacv3.Principal {
	return identity(regex(".*/ns/" + wild(v) + "/.*"))
}

// wild quotes a value in which * stands for any text.
func wild(v string) string { return strings.ReplaceAll(regexp.QuoteMeta(v), `\*`, ".*") }

func (c *converter) accountID(v string) *rbacv3.Principal {
	namespace, name, ok := strings.Cut(v, "/")
	if !ok {
		namespace, name = c.namespace, v
	}
	return accountOf(namespace, name)
}

func accountOf(namespace, name string) *rbacv3.Principal {
	return identity(regex("spiffe://.+/ns/" + regexp.QuoteMeta(namespace) + "/(.+/|)sa/" + regexp.QuoteMeta(name) + "(/.+)?"))
}

func trustDomainID(v string) *rbacv3.Principal {
	switch {
	case v == "*":
		return identity(text("spiffe://*", false))
	case strings.HasPrefix(v, "*"):
		return identity(regex("spiffe://[^/]*" + regexp.QuoteMeta(v[1:]) + "/.*"))
	case strings.HasSuffix(v, "*"):
		return identity(text("spiffe://"+v, false))
	}
	return identity(text("spiffe://"+v+"/*", false))
}

// block is an address range. Package source has refused what cannot be read.
func block(v string) *corev3.CidrRange {
	p, err := source.ParseBlock(v)
	if err != nil {
		p = netip.PrefixFrom(netip.IPv6Unspecified(), 128)
	}
	return cidr(p)
}

func cidr(p netip.Prefix) *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))}
}

// directIP is the address that called; remoteIP the one that it may call for.
func directIP(v string) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_DirectRemoteIp{DirectRemoteIp: block(v)}}
}

func remoteIP(v string) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_RemoteIp{RemoteIp: block(v)}}
}

func headerID(name, v string) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: header(name, v, false)}}
}

func header(name, v string, ignoreCase bool) *routev3.HeaderMatcher {
	if v == "*" {
		return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
	}
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: text(v, ignoreCase)}}
}

func hostRule(v string) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: header(":authority", v, true)}}
}

func methodRule(v string) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: header(":method", v, false)}}
}

// pathRule reads {*} as one segment and {**} as any number, and otherwise as text.
func pathRule(v string) *rbacv3.Permission {
	if strings.Contains(v, "{*}") || strings.Contains(v, "{**}") {
		template := strings.NewReplacer("{**}", "**", "{*}", "*").Replace(v)
		if config, err := pack(&uritemplatev3.UriTemplateMatchConfig{PathTemplate: template}); err == nil {
			return &rbacv3.Permission{Rule: &rbacv3.Permission_UriTemplate{UriTemplate: &corev3.TypedExtensionConfig{Name: "uri-template", TypedConfig: config}}}
		}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: text(v, false)}}}}
}

func portRule(v string) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationPort{DestinationPort: portNumber(v)}}
}

func destinationIP(v string) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationIp{DestinationIp: block(v)}}
}

func serverName(v string) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_RequestedServerName{RequestedServerName: text(v, false)}}
}

// metadataRule matches what another filter said: a value, or [value] in a list.
func metadataRule(filter, path, v string) *rbacv3.Permission {
	value := func(v string) *matcherv3.ValueMatcher {
		return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: text(v, false)}}
	}
	m := value(v)
	if strings.HasPrefix(v, "[") && strings.HasSuffix(v, "]") {
		m = &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{
			MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: value(strings.Trim(v, "[]"))},
		}}}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Metadata{Metadata: &matcherv3.MetadataMatcher{ //nolint:staticcheck // as istiod sends it
		Filter: filter, Value: m,
		Path: []*matcherv3.MetadataMatcher_PathSegment{{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: path}}},
	}}}
}

func anyRule(rules []*rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: rules}}}
}

func notRule(rule *rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: rule}}
}

func anyID(ids []*rbacv3.Principal) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: &rbacv3.Principal_Set{Ids: ids}}}
}

func notID(id *rbacv3.Principal) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: id}}
}

// allRules and allIDs hold where all of them do; with none, always.
func allRules(rules []*rbacv3.Permission) *rbacv3.Permission {
	if len(rules) == 0 {
		rules = []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: rules}}}
}

func allIDs(ids []*rbacv3.Principal) *rbacv3.Principal {
	if len(ids) == 0 {
		ids = []*rbacv3.Principal{anyone()}
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: ids}}}
}
