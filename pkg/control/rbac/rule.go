package rbac

import (
	"strconv"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	securityapi "istio.io/api/security/v1beta1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// chain is where rules are to be decided.
type chain struct {
	// tcp: there are connections only, no requests.
	tcp bool
	// widened: requests may be among the connections, so that a rule that denies
	// requests denies them, whatever it says of requests.
	widened bool
}

// need is what an attribute takes to be decided.
type need int

const (
	connection need = iota // decided of any connection
	request                // a property of requests
	token                  // a property of a JWT, which nothing checks
)

// converter turns the rules of one policy into RBAC policies.
type converter struct {
	m         *model.Model
	namespace string
	deny      bool
	chain     chain
}

// terms are conditions that must all hold.
type terms[T any] struct {
	c *converter
	// any joins alternatives, and not negates.
	any func([]T) T
	not func(T) T
	all []T
	// never: they cannot hold here.
	never bool
}

// add adds an attribute: one of values, and none of notValues.
func (t *terms[T]) add(what need, values, notValues []string, match func(string) T) {
	if len(values)+len(notValues) == 0 {
		return
	}
	switch {
	case what == token && !t.c.deny,
		what == request && t.c.chain.tcp && (!t.c.deny || !t.c.chain.widened):
		t.never = true
		return
	case what == token, what == request && t.c.chain.tcp:
		return // not known: left out, so that more is denied
	}
	if len(values) > 0 {
		t.all = append(t.all, t.any(each(values, match)))
	}
	if len(notValues) > 0 {
		t.all = append(t.all, t.not(t.any(each(notValues, match))))
	}
}

func each[V, T any](values []V, match func(V) T) []T {
	out := make([]T, 0, len(values))
	for _, v := range values {
		out = append(out, match(v))
	}
	return out
}

func (c *converter) permissions() *terms[*rbacv3.Permission] {
	return &terms[*rbacv3.Permission]{c: c, any: anyRule, not: notRule}
}

func (c *converter) principals() *terms[*rbacv3.Principal] {
	return &terms[*rbacv3.Principal]{c: c, any: anyID, not: notID}
}

// valid is the conversion of a rule as Envoy takes it.
func (c *converter) valid(r *securityapi.Rule) *rbacv3.Policy {
	out := c.rule(r)
	switch {
	case out == nil || out.ValidateAll() == nil:
		return out
	case c.deny:
		// A value that no check has thought of: one such rule would have the proxy
		// refuse every service. It is denied, or not allowed.
		return always()
	}
	return nil
}

// rule converts one rule; nil is one that cannot match here.
func (c *converter) rule(r *securityapi.Rule) *rbacv3.Policy {
	permission, principal := c.permissions(), c.principals()
	for _, w := range r.GetWhen() {
		c.condition(w, permission, principal)
	}
	if permission.never || principal.never {
		return nil
	}
	out := &rbacv3.Policy{}
	for _, f := range r.GetFrom() {
		if s := c.source(f.GetSource()); !s.never {
			out.Principals = append(out.Principals, allIDs(append(s.all, principal.all...)))
		}
	}
	for _, t := range r.GetTo() {
		if o := c.operation(t.GetOperation()); !o.never {
			out.Permissions = append(out.Permissions, allRules(append(o.all, permission.all...)))
		}
	}
	if len(r.GetFrom()) == 0 {
		out.Principals = []*rbacv3.Principal{allIDs(principal.all)}
	}
	if len(r.GetTo()) == 0 {
		out.Permissions = []*rbacv3.Permission{allRules(permission.all)}
	}
	if len(out.Principals) == 0 || len(out.Permissions) == 0 {
		return nil
	}
	return out
}

func (c *converter) source(s *securityapi.Source) *terms[*rbacv3.Principal] {
	t := c.principals()
	t.add(connection, c.aliases(s.GetPrincipals()), c.aliases(s.GetNotPrincipals()), principalID)
	t.add(token, s.GetRequestPrincipals(), s.GetNotRequestPrincipals(), principalID)
	t.add(connection, s.GetServiceAccounts(), s.GetNotServiceAccounts(), c.accountID)
	t.add(connection, s.GetTrustDomains(), s.GetNotTrustDomains(), trustDomainID)
	t.add(connection, s.GetNamespaces(), s.GetNotNamespaces(), namespaceID)
	t.add(connection, s.GetRemoteIpBlocks(), s.GetNotRemoteIpBlocks(), remoteIP)
	t.add(connection, s.GetIpBlocks(), s.GetNotIpBlocks(), directIP)
	return t
}

func (c *converter) operation(o *securityapi.Operation) *terms[*rbacv3.Permission] {
	t := c.permissions()
	t.add(request, o.GetHosts(), o.GetNotHosts(), hostRule)
	t.add(request, o.GetMethods(), o.GetNotMethods(), methodRule)
	t.add(request, o.GetPaths(), o.GetNotPaths(), pathRule)
	t.add(connection, o.GetPorts(), o.GetNotPorts(), portRule)
	return t
}

func (c *converter) condition(w *securityapi.Condition, permission *terms[*rbacv3.Permission], principal *terms[*rbacv3.Principal]) {
	key, values, not := w.GetKey(), w.GetValues(), w.GetNotValues()
	switch {
	case key == "source.ip":
		principal.add(connection, values, not, directIP)
	case key == "remote.ip":
		principal.add(connection, values, not, remoteIP)
	case key == "source.namespace":
		principal.add(connection, values, not, namespaceID)
	case key == "source.principal":
		principal.add(connection, c.aliases(values), c.aliases(not), principalID)
	case key == "source.serviceAccount":
		principal.add(connection, values, not, c.accountID)
	case key == "source.trustDomain":
		principal.add(connection, values, not, trustDomainID)
	case key == "destination.ip":
		permission.add(connection, values, not, destinationIP)
	case key == "destination.port":
		permission.add(connection, values, not, portRule)
	case key == "connection.sni":
		permission.add(connection, values, not, serverName)
	case strings.HasPrefix(key, "request.headers["):
		name := strings.TrimSuffix(strings.TrimPrefix(key, "request.headers["), "]")
		principal.add(request, values, not, func(v string) *rbacv3.Principal { return headerID(name, v) })
	case strings.HasPrefix(key, "experimental.envoy.filters."):
		filter, path, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(key, "experimental."), "]"), "[")
		permission.add(connection, values, not, func(v string) *rbacv3.Permission { return metadataRule(filter, path, v) })
	default: // request.auth, and whatever source lets through one day
		principal.add(token, values, not, principalID)
	}
}

// aliases gives a principal of the mesh's trust domain in each of its names.
func (c *converter) aliases(values []string) []string {
	if len(c.m.TrustDomainAliases) == 0 {
		return values
	}
	names := append([]string{c.m.TrustDomain}, c.m.TrustDomainAliases...)
	var out []string
	for _, v := range values {
		domain, rest, ok := strings.Cut(v, "/")
		known := false
		for _, n := range names {
			known = known || ok && n == domain
		}
		if !known {
			out = append(out, v)
			continue
		}
		for _, n := range names {
			out = append(out, n+"/"+rest)
		}
	}
	return out
}

func portNumber(v string) uint32 {
	p, err := strconv.ParseUint(v, 10, 16)
	if err != nil {
		return 0 // no connection has it; source has refused what is no port
	}
	return uint32(p)
}
