package source

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	securityapi "istio.io/api/security/v1beta1"
	typeapi "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/fairlead-mesh/fairlead/pkg/suggest"
)

func (m meaning) authorizationPolicy(p *securityv1.AuthorizationPolicy) {
	spec := &p.Spec
	m.target(spec.GetSelector(), spec.GetTargetRef(), spec.GetTargetRefs())
	switch spec.Action {
	case securityapi.AuthorizationPolicy_CUSTOM:
		if spec.GetProvider().GetName() == "" {
			m.fail("spec.provider", "action CUSTOM needs a provider with a name")
		}
		if len(spec.Rules) == 0 {
			m.fail("spec.rules", "action CUSTOM without rules never applies: add an empty rule {} to apply it always")
		}
	case securityapi.AuthorizationPolicy_DENY:
		if len(spec.Rules) == 0 {
			m.fail("spec.rules", "action DENY without rules never applies: add an empty rule {} to deny always")
		}
	}
	if spec.GetProvider() != nil && spec.Action != securityapi.AuthorizationPolicy_CUSTOM {
		m.fail("spec.provider", "a provider goes with action CUSTOM only, not %s", spec.Action)
	}
	for i, r := range spec.Rules {
		m.rule(fmt.Sprintf("spec.rules[%d]", i), r)
	}
}

func (m meaning) target(selector *typeapi.WorkloadSelector, ref *typeapi.PolicyTargetReference, refs []*typeapi.PolicyTargetReference) {
	at := "spec.targetRefs"
	if ref != nil {
		at = "spec.targetRef"
		if len(refs) > 0 {
			m.fail(at, "only one of targetRef and targetRefs can be set")
		}
		refs = []*typeapi.PolicyTargetReference{ref}
	}
	if selector != nil && len(refs) > 0 {
		m.fail(at, "only one of selector and targetRefs can be set")
	}
	for i, r := range refs {
		path := at
		if ref == nil {
			path = fmt.Sprintf("%s[%d]", at, i)
		}
		target := groupKind{r.GetGroup(), r.GetKind()}
		allowed := []groupKind{{"", "Service"}, {groupNetworking, "ServiceEntry"}, {groupGateway, "Gateway"}, {groupGateway, "GatewayClass"}}
		if !slices.Contains(allowed, target) {
			m.fail(path, "a policy can target a Service, ServiceEntry, Gateway or GatewayClass, not %q of group %q", target.kind, target.group)
		}
		if r.GetName() == "" {
			m.fail(path+".name", "a target needs a name")
		}
		if r.GetNamespace() != "" {
			m.fail(path+".namespace", "a policy targets its own namespace only: leave this out")
		}
	}
	for key := range selector.GetMatchLabels() {
		if key == "" || strings.Contains(key, "*") {
			m.fail("spec.selector.matchLabels", "label %q: names are exact and not empty", key)
		}
	}
	for key, value := range selector.GetMatchLabels() {
		if strings.Contains(value, "*") {
			m.fail("spec.selector.matchLabels."+key, "%q: values are exact, * means nothing here", value)
		}
	}
}

func (m meaning) rule(at string, r *securityapi.Rule) {
	for i, f := range r.GetFrom() {
		path := fmt.Sprintf("%s.from[%d].source", at, i)
		s := f.GetSource()
		if s == nil || emptySource(s) {
			m.fail(path, "a source must not be empty: leave `from` out to match every source")
			continue
		}
		m.source(path, s)
	}
	for i, t := range r.GetTo() {
		path := fmt.Sprintf("%s.to[%d].operation", at, i)
		op := t.GetOperation()
		if op == nil || len(op.Hosts)+len(op.NotHosts)+len(op.Ports)+len(op.NotPorts)+len(op.Methods)+len(op.NotMethods)+len(op.Paths)+len(op.NotPaths) == 0 {
			m.fail(path, "an operation must not be empty: leave `to` out to match every operation")
			continue
		}
		m.operation(path, op)
	}
	for i, w := range r.GetWhen() {
		m.condition(fmt.Sprintf("%s.when[%d]", at, i), w)
	}
}

func emptySource(s *securityapi.Source) bool {
	return len(s.Principals)+len(s.NotPrincipals)+len(s.RequestPrincipals)+len(s.NotRequestPrincipals)+len(s.Namespaces)+len(s.NotNamespaces)+
		len(s.ServiceAccounts)+len(s.NotServiceAccounts)+len(s.IpBlocks)+len(s.NotIpBlocks)+len(s.RemoteIpBlocks)+len(s.NotRemoteIpBlocks)+
		len(s.TrustDomains)+len(s.NotTrustDomains) == 0
}

func (m meaning) source(at string, s *securityapi.Source) {
	for name, values := range map[string][]string{
		"principals": s.Principals, "notPrincipals": s.NotPrincipals, "requestPrincipals": s.RequestPrincipals, "notRequestPrincipals": s.NotRequestPrincipals,
		"namespaces": s.Namespaces, "notNamespaces": s.NotNamespaces, "trustDomains": s.TrustDomains, "notTrustDomains": s.NotTrustDomains,
	} {
		m.texts(at+"."+name, values)
	}
	m.principals(at+".principals", s.Principals)
	m.principals(at+".notPrincipals", s.NotPrincipals)
	m.serviceAccounts(at+".serviceAccounts", s.ServiceAccounts)
	m.serviceAccounts(at+".notServiceAccounts", s.NotServiceAccounts)
	m.ipBlocks(at+".ipBlocks", s.IpBlocks)
	m.ipBlocks(at+".notIpBlocks", s.NotIpBlocks)
	m.ipBlocks(at+".remoteIpBlocks", s.RemoteIpBlocks)
	m.ipBlocks(at+".notRemoteIpBlocks", s.NotRemoteIpBlocks)
	if len(s.ServiceAccounts) > 0 && (len(s.Principals) > 0 || len(s.Namespaces) > 0) {
		m.fail(at+".serviceAccounts", "cannot be set together with principals or namespaces")
	}
}

func (m meaning) operation(at string, op *securityapi.Operation) {
	for name, values := range map[string][]string{
		"hosts": op.Hosts, "notHosts": op.NotHosts, "methods": op.Methods, "notMethods": op.NotMethods, "paths": op.Paths, "notPaths": op.NotPaths,
	} {
		m.texts(at+"."+name, values)
	}
	m.ports(at+".ports", op.Ports)
	m.ports(at+".notPorts", op.NotPorts)
	m.pathTemplates(at+".paths", op.Paths)
	m.pathTemplates(at+".notPaths", op.NotPaths)
}

// literalSegment is what a segment of a path template may hold, as Envoy has it.
var literalSegment = regexp.MustCompile(`^[a-zA-Z0-9\-._~%!$&'()+,;:@=]*$`)

// pathTemplates allow {*} and {**} as whole segments, {**} once and after any
// {*}, and then no other *.
func (m meaning) pathTemplates(at string, paths []string) {
	for i, path := range paths {
		if !strings.Contains(path, "{*}") && !strings.Contains(path, "{**}") {
			continue
		}
		field, rest := fmt.Sprintf("%s[%d]", at, i), false
		if !strings.HasPrefix(path, "/") {
			m.fail(field, "%q: a path with {*} or {**} begins with /", path)
		}
		for segment := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
			switch operator := segment == "{*}" || segment == "{**}"; {
			case operator && rest:
				m.fail(field, "%q: nothing but text may follow {**}", path)
			case operator:
				rest = segment == "{**}"
			case strings.ContainsAny(segment, "*{}"):
				m.fail(field, "%q: in a path with {*} or {**} the segment %q cannot hold * or braces", path, segment)
			case segment == "" || !literalSegment.MatchString(segment):
				m.fail(field, "%q: in a path with {*} or {**} the segment %q must be text of a URL", path, segment)
			}
		}
	}
}

func (m meaning) texts(at string, values []string) {
	for i, v := range values {
		if v == "" {
			m.fail(fmt.Sprintf("%s[%d]", at, i), "an empty value is not allowed")
		}
	}
}

func (m meaning) principals(at string, values []string) {
	for i, v := range values {
		if strings.HasPrefix(v, "spiffe://") {
			m.fail(fmt.Sprintf("%s[%d]", at, i), "%q: principals are written without spiffe://, or they never match", v)
		}
	}
}

func (m meaning) serviceAccounts(at string, values []string) {
	for i, v := range values {
		path := fmt.Sprintf("%s[%d]", at, i)
		namespace, name, two := strings.Cut(v, "/")
		if v == "" || strings.Contains(v, "*") || two && (namespace == "" || name == "" || strings.Contains(name, "/")) {
			m.fail(path, "%q: want <service account> or <namespace>/<service account>, without *", v)
		}
	}
}

func (m meaning) ipBlocks(at string, values []string) {
	for i, v := range values {
		if _, err := ParseBlock(v); err != nil {
			m.fail(fmt.Sprintf("%s[%d]", at, i), "%v", err)
		}
	}
}

func (m meaning) ports(at string, values []string) {
	for i, v := range values {
		if p, err := strconv.ParseUint(v, 10, 16); err != nil || p == 0 {
			m.fail(fmt.Sprintf("%s[%d]", at, i), "%q is not a port between 1 and 65535", v)
		}
	}
}

// ParseBlock reads an address or a range; an address is the range of itself.
// IPv4 addresses written as IPv6 become IPv4.
func ParseBlock(s string) (netip.Prefix, error) {
	wrong := fmt.Errorf("%q is not an IP address or a range such as 10.0.0.0/8", s)
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return netip.Prefix{}, wrong
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, wrong
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// attributes are the keys of conditions; those that end in [ take a name.
var attributes = []string{
	"source.ip", "source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain", "remote.ip", "destination.ip", "destination.port", "connection.sni",
	"request.auth.principal", "request.auth.audiences", "request.auth.presenter", "request.headers[", "request.auth.claims[", "experimental.envoy.filters.",
}

var metadataKey = regexp.MustCompile(`^experimental\.envoy\.filters\.[^\[\]]+\[[^\[\]]+\]$`)

func (m meaning) condition(at string, w *securityapi.Condition) {
	known := slices.ContainsFunc(attributes, func(a string) bool {
		if strings.HasSuffix(a, "[") {
			return strings.HasPrefix(w.Key, a) && strings.HasSuffix(w.Key, "]") && len(w.Key) > len(a)+1
		}
		return w.Key == a || strings.HasSuffix(a, ".") && strings.HasPrefix(w.Key, a)
	})
	if !known {
		m.fail(at+".key", "unknown attribute %q%s", w.Key, suggest.DidYouMean(w.Key, attributes))
	}
	if name, ok := strings.CutPrefix(w.Key, "request.headers["); ok && !httpguts.ValidHeaderFieldName(strings.TrimSuffix(name, "]")) {
		m.fail(at+".key", "%q is not the name of a header", strings.TrimSuffix(name, "]"))
	}
	if strings.HasPrefix(w.Key, "experimental.") && !metadataKey.MatchString(w.Key) {
		m.fail(at+".key", "%q: want experimental.envoy.filters.<filter>[<key>]", w.Key)
	}
	if len(w.Values)+len(w.NotValues) == 0 {
		m.fail(at, "needs values or notValues")
	}
	for name, values := range map[string][]string{"values": w.Values, "notValues": w.NotValues} {
		path := at + "." + name
		switch w.Key {
		case "source.ip", "remote.ip", "destination.ip":
			m.ipBlocks(path, values)
		case "destination.port":
			m.ports(path, values)
		case "source.principal":
			m.texts(path, values)
			m.principals(path, values)
		case "source.serviceAccount":
			m.serviceAccounts(path, values)
		default:
			m.texts(path, values)
		}
	}
}

func (m meaning) peerAuthentication(p *securityv1.PeerAuthentication) {
	m.target(p.Spec.GetSelector(), nil, nil)
	if len(p.Spec.PortLevelMtls) > 0 && len(p.Spec.GetSelector().GetMatchLabels()) == 0 {
		m.fail("spec.portLevelMtls", "portLevelMtls requires selector: ports are set for workloads, not for a namespace or the mesh")
	}
	for port := range p.Spec.PortLevelMtls {
		m.port(fmt.Sprintf("spec.portLevelMtls[%d]", port), port)
	}
}
