package policies

import (
	"math/rand/v2"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	securityapi "istio.io/api/security/v1beta1"
	typeapi "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/rbac"
)

// meaning is what the API's reference says of policies, read value by value. It
// shares nothing with the translation.
type meaning struct {
	call *call
	late bool // a request may follow, since the first bytes did not come in time
}

func (m meaning) allowed(policies []*securityv1.AuthorizationPolicy) bool {
	allows, allowed := false, false
	for _, p := range policies {
		deny := p.Spec.Action == securityapi.AuthorizationPolicy_DENY || p.Spec.Action == securityapi.AuthorizationPolicy_CUSTOM
		if p.Spec.Action == securityapi.AuthorizationPolicy_AUDIT {
			continue
		}
		allows = allows || !deny
		for _, r := range p.Spec.Rules {
			if !m.rule(r, deny, p.Namespace) {
				continue
			}
			if deny {
				return false
			}
			allowed = true
		}
	}
	return !allows || allowed
}

func (m meaning) rule(r *securityapi.Rule, deny bool, namespace string) bool {
	from, to, when := len(r.From) == 0, len(r.To) == 0, true
	for _, f := range r.From {
		from = from || m.source(f.Source, deny, namespace)
	}
	for _, o := range r.To {
		to = to || m.operation(o.Operation, deny)
	}
	for _, w := range r.When {
		when = when && m.condition(w, deny, namespace)
	}
	return from && to && when
}

// either holds where one of values does and none of not.
func either(values, not []string, holds func(string) bool) bool {
	positive := len(values) == 0
	for _, v := range values {
		positive = positive || holds(v)
	}
	for _, v := range not {
		positive = positive && !holds(v)
	}
	return positive
}

// ofRequest is either for a property of requests.
func (m meaning) ofRequest(values, not []string, deny bool, holds func(string) bool) bool {
	if len(values)+len(not) == 0 {
		return true
	}
	if m.call.headers == nil {
		return deny && m.late
	}
	return either(values, not, holds)
}

func wildcard(v, s string) bool {
	switch {
	case v == "*":
		return s != ""
	case strings.HasPrefix(v, "*"):
		return strings.HasSuffix(s, v[1:])
	case strings.HasSuffix(v, "*"):
		return strings.HasPrefix(s, strings.TrimSuffix(v, "*"))
	}
	return s == v
}

func (m meaning) identity() (domain, namespace, account string) {
	parts := strings.Split(strings.TrimPrefix(m.call.identity, "spiffe://"), "/")
	if len(parts) != 5 {
		return "", "", ""
	}
	return parts[0], parts[2], parts[4]
}

func (m meaning) principal(v string) bool {
	return m.call.identity != "" && wildcard(v, strings.TrimPrefix(m.call.identity, "spiffe://"))
}

func (m meaning) namespace(v string) bool {
	_, namespace, _ := m.identity()
	return m.call.identity != "" && wildcard(v, namespace)
}

func (m meaning) account(own string) func(string) bool {
	return func(v string) bool {
		_, namespace, account := m.identity()
		if !strings.Contains(v, "/") {
			v = own + "/" + v
		}
		return m.call.identity != "" && v == namespace+"/"+account
	}
}

func (m meaning) domain(v string) bool {
	domain, _, _ := m.identity()
	return m.call.identity != "" && wildcard(v, domain)
}

func within(a netip.Addr) func(string) bool {
	return func(v string) bool {
		if p, err := netip.ParsePrefix(v); err == nil {
			return p.Contains(a)
		}
		return netip.MustParseAddr(v) == a
	}
}

func (m meaning) port(v string) bool {
	_, port, _ := strings.Cut(m.call.to.String(), "]:")
	if port == "" {
		_, port, _ = strings.Cut(m.call.to.String(), ":")
	}
	return port == v
}

func (m meaning) source(s *securityapi.Source, deny bool, own string) bool {
	token := deny || len(s.RequestPrincipals)+len(s.NotRequestPrincipals) == 0
	return token && either(s.Principals, s.NotPrincipals, m.principal) && either(s.Namespaces, s.NotNamespaces, m.namespace) &&
		either(s.ServiceAccounts, s.NotServiceAccounts, m.account(own)) && either(s.TrustDomains, s.NotTrustDomains, m.domain) &&
		either(s.IpBlocks, s.NotIpBlocks, within(m.call.direct)) && either(s.RemoteIpBlocks, s.NotRemoteIpBlocks, within(m.call.remote))
}

func (m meaning) operation(o *securityapi.Operation, deny bool) bool {
	host := func(v string) bool {
		return wildcard(strings.ToLower(v), strings.ToLower(m.call.headers[":authority"]))
	}
	path := func(v string) bool {
		p := strings.Split(m.call.headers[":path"], "?")[0]
		if !strings.Contains(v, "{") {
			return wildcard(v, p)
		}
		expression := strings.NewReplacer(`\{\*\*\}`, ".*", `\{\*\}`, "[^/]+").Replace(regexp.QuoteMeta(v))
		return regexp.MustCompile("^" + expression + "$").MatchString(p)
	}
	return m.ofRequest(o.Hosts, o.NotHosts, deny, host) && m.ofRequest(o.Paths, o.NotPaths, deny, path) &&
		m.ofRequest(o.Methods, o.NotMethods, deny, func(v string) bool { return wildcard(v, m.call.headers[":method"]) }) &&
		either(o.Ports, o.NotPorts, m.port)
}

func (m meaning) condition(w *securityapi.Condition, deny bool, own string) bool {
	switch w.Key {
	case "source.ip":
		return either(w.Values, w.NotValues, within(m.call.direct))
	case "remote.ip":
		return either(w.Values, w.NotValues, within(m.call.remote))
	case "source.namespace":
		return either(w.Values, w.NotValues, m.namespace)
	case "source.principal":
		return either(w.Values, w.NotValues, m.principal)
	case "source.serviceAccount":
		return either(w.Values, w.NotValues, m.account(own))
	case "source.trustDomain":
		return either(w.Values, w.NotValues, m.domain)
	case "destination.ip":
		return either(w.Values, w.NotValues, within(m.call.to.Addr()))
	case "destination.port":
		return either(w.Values, w.NotValues, m.port)
	case "connection.sni":
		return either(w.Values, w.NotValues, func(v string) bool { return wildcard(v, m.call.sni) })
	case "request.headers[x-token]":
		value, present := m.call.headers["x-token"]
		return m.ofRequest(w.Values, w.NotValues, deny, func(v string) bool { return present && wildcard(v, value) })
	}
	return deny // request.auth: no token is checked
}

// dice makes random policies and calls out of few values, so that they meet.
type dice struct{ *rand.Rand }

func (d dice) some(values ...string) (out []string) {
	if d.IntN(3) > 0 {
		return nil
	}
	for range 1 + d.IntN(2) {
		out = append(out, values[d.IntN(len(values))])
	}
	return out
}

var (
	principals = []string{"*", "td/ns/a/sa/x", "td/ns/a/*", "*/sa/y", "other/ns/b/sa/y"}
	namespaces = []string{"*", "a", "b", "b*", "*c"}
	accounts   = []string{"x", "b/y", "a/x"}
	domains    = []string{"*", "td", "t*", "*r"}
	blocks     = []string{"10.0.0.1", "10.0.0.0/30", "10.0.1.0/24", "fd00::/64"}
	numbers    = []string{"80", "9080"}
	attributes = []struct {
		key    string
		values []string
	}{
		{"source.ip", blocks}, {"remote.ip", blocks}, {"source.namespace", namespaces}, {"source.principal", principals},
		{"source.serviceAccount", accounts}, {"source.trustDomain", domains}, {"destination.ip", blocks}, {"destination.port", numbers},
		{"connection.sni", []string{"a.sni", "*.sni", "*"}}, {"request.headers[x-token]", []string{"t", "t*", "*x", "*"}},
		{"request.auth.claims[sub]", []string{"me"}},
	}
)

func (d dice) policy() *securityv1.AuthorizationPolicy {
	p := &securityv1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p" + string(rune('a'+d.IntN(26)))}}
	p.Spec.TargetRefs = []*typeapi.PolicyTargetReference{{Kind: "Service", Name: "s"}}
	p.Spec.Action = []securityapi.AuthorizationPolicy_Action{securityapi.AuthorizationPolicy_ALLOW, securityapi.AuthorizationPolicy_ALLOW,
		securityapi.AuthorizationPolicy_DENY, securityapi.AuthorizationPolicy_DENY, securityapi.AuthorizationPolicy_CUSTOM, securityapi.AuthorizationPolicy_AUDIT}[d.IntN(6)]
	for range d.IntN(3) {
		r := &securityapi.Rule{}
		for range d.IntN(3) {
			r.From = append(r.From, &securityapi.Rule_From{Source: &securityapi.Source{
				Principals: d.some(principals...), NotPrincipals: d.some(principals...), Namespaces: d.some(namespaces...), NotNamespaces: d.some(namespaces...),
				ServiceAccounts: d.some(accounts...), NotServiceAccounts: d.some(accounts...), TrustDomains: d.some(domains...), NotTrustDomains: d.some(domains...),
				IpBlocks: d.some(blocks...), NotIpBlocks: d.some(blocks...), RemoteIpBlocks: d.some(blocks...), NotRemoteIpBlocks: d.some(blocks...),
			}})
			if d.IntN(8) == 0 {
				r.From[len(r.From)-1].Source.RequestPrincipals = []string{"iss/sub"}
			}
		}
		for range d.IntN(3) {
			hosts, paths, methods := []string{"h.example.com", "*.Example.com", "h*", "*"}, []string{"/a", "/a/*", "*/z", "/t/{*}/u", "/d/{**}", "*"}, []string{"GET", "POST", "*"}
			r.To = append(r.To, &securityapi.Rule_To{Operation: &securityapi.Operation{
				Hosts: d.some(hosts...), NotHosts: d.some(hosts...), Paths: d.some(paths...), NotPaths: d.some(paths...),
				Methods: d.some(methods...), NotMethods: d.some(methods...), Ports: d.some(numbers...), NotPorts: d.some(numbers...),
			}})
		}
		for range d.IntN(3) {
			a := attributes[d.IntN(len(attributes))]
			w := &securityapi.Condition{Key: a.key, Values: d.some(a.values...), NotValues: d.some(a.values...)}
			if len(w.Values)+len(w.NotValues) > 0 {
				r.When = append(r.When, w)
			}
		}
		p.Spec.Rules = append(p.Spec.Rules, r)
	}
	return p
}

func (d dice) call(requests bool) *call {
	pick := func(values ...string) string { return values[d.IntN(len(values))] }
	c := &call{
		identity: pick("", "spiffe://td/ns/a/sa/x", "spiffe://td/ns/a/sa/y", "spiffe://other/ns/b/sa/y", "spiffe://td/ns/bc/sa/x"),
		direct:   netip.MustParseAddr(pick("10.0.0.1", "10.0.0.2", "10.0.1.9", "fd00::1")), remote: netip.MustParseAddr(pick("10.0.0.1", "10.0.1.9", "192.0.2.1")),
		to:  netip.MustParseAddrPort(pick("10.0.0.1:80", "10.0.1.1:9080", "[fd00::2]:80")),
		sni: pick("", "a.sni", "b.sni", "c"), waited: []int{0, 7, 99, 1000, 2499, 2500, 4999, 5001, 10000}[d.IntN(9)],
	}
	if requests {
		c.headers = map[string]string{
			":method": pick("GET", "POST", "PUT"), ":authority": pick("h.example.com", "x.EXAMPLE.com", "other"),
			":path": pick("/a", "/a/b", "/a?q", "/c/z", "/t/1/u", "/t/1/2/u", "/d/x/y", "/t//u"),
		}
		if token := pick("", "t", "tx", "-x"); token != "" {
			c.headers["x-token"] = token
		}
	}
	return c
}

// TestFiltersMeanWhatThePoliciesSay holds the translation against the meaning on
// random policies and calls.
func TestFiltersMeanWhatThePoliciesSay(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	d := dice{rand.New(rand.NewPCG(seed, 1))}
	m, w, s := random(t)
	verdicts := map[bool]int{}
	for range 4000 {
		var policies []*securityv1.AuthorizationPolicy
		for range 1 + d.IntN(3) {
			p := d.policy()
			if len(p.Spec.Rules) > 0 || p.Spec.Action == securityapi.AuthorizationPolicy_ALLOW {
				p.Name += string(rune('0' + len(policies)))
				policies = append(policies, p)
			}
		}
		m.Objects.AuthorizationPolicies = policies
		p := rbac.New(m, nil)
		for _, protocol := range []model.Protocol{model.HTTP, model.TCP, model.Unsupported} {
			port := &model.Port{Number: 80, Protocol: protocol}
			f := networkFilters
			if protocol == model.HTTP {
				f = httpFilters
			}
			chain := f(t, p, w, s, port)
			for range 6 {
				c := d.call(protocol == model.HTTP)
				want := meaning{call: c, late: protocol == model.Unsupported && c.waited >= 2500}.allowed(policies)
				verdicts[want]++
				if got := chain.allowed(c); got != want {
					for _, p := range policies {
						t.Log(protojson.Format(&p.Spec))
					}
					t.Fatalf("port %s: %+v: filters allow %v, the policies mean %v", protocol, c, got, want)
				}
			}
		}
	}
	if verdicts[true] < 1000 || verdicts[false] < 1000 {
		t.Errorf("the calls are one-sided: %v", verdicts)
	}
}

// random is a model with one service behind one waypoint.
func random(t *testing.T) (*model.Model, *model.Waypoint, *model.Service) {
	t.Helper()
	m, _ := world(t, `
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {istio.io/use-waypoint: w}}
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: a}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: w, namespace: a}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{value: 10.96.0.9}]}
`)
	if len(m.Waypoints) != 1 || len(m.Waypoints[0].Services) != 1 {
		t.Fatalf("want one service behind one waypoint, got %+v", m.Waypoints)
	}
	return m, m.Waypoints[0], m.Waypoints[0].Services[0]
}

func addrPort(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 40000) }
