package rbac

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	securityapi "github.com/fairlead-mesh/fairlead/api/security"
	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// Layer4 are the policies that the nodes are sent. Our own waypoint subscribes
// to them and decides by the endpoint that it chose; another proxy in its place
// does not know them, and gets them as RBAC filters.
//
// A rule that names the waypoint's own identity holds for all that comes through
// it: that is what such a rule asks for, at the node, where the waypoint is the
// caller. There the decision comes before the endpoint is chosen, so a connection to a
// service must be allowed at every endpoint that it might get. For workloads'
// own addresses the decision is exact. Policies in dry run are left to the nodes.
type Layer4 struct {
	// Constant after NewLayer4.
	global    []*securityapi.Authorization
	namespace map[string][]*securityapi.Authorization
	workload  map[string][]*securityapi.Authorization // by uid
}

// NewLayer4 takes what package translate made for the nodes.
func NewLayer4(policies []*securityapi.Authorization, addresses []*workloadapi.Address) *Layer4 {
	l := &Layer4{namespace: map[string][]*securityapi.Authorization{}, workload: map[string][]*securityapi.Authorization{}}
	selecting := map[string]*securityapi.Authorization{}
	for _, p := range policies {
		switch {
		case p.DryRun:
		case p.Scope == securityapi.Scope_GLOBAL:
			l.global = append(l.global, p)
		case p.Scope == securityapi.Scope_NAMESPACE:
			l.namespace[p.Namespace] = append(l.namespace[p.Namespace], p)
		default:
			selecting[p.Namespace+"/"+p.Name] = p
		}
	}
	for _, a := range addresses {
		for _, key := range a.GetWorkload().GetAuthorizationPolicies() {
			if p := selecting[key]; p != nil {
				uid := a.GetWorkload().GetUid()
				l.workload[uid] = append(l.workload[uid], p)
			}
		}
	}
	return l
}

// at are the policies of an endpoint.
func (l *Layer4) at(e *model.Endpoint) []*securityapi.Authorization {
	return slices.Concat(l.global, l.namespace[e.Namespace], l.workload[e.Name])
}

// destination is where a connection may end.
type destination struct {
	address netip.Addr // or invalid
	port    uint32     // or zero where any may be asked for
}

// layer4Policy is one policy and where it holds.
type layer4Policy struct {
	*securityapi.Authorization
	at   []destination
	self own
}

// own is a waypoint's own identity.
type own struct {
	principal string // without spiffe://
	account   *securityapi.ServiceAccountMatch
}

func ownOf(w *model.Waypoint, trustDomain string) own {
	return own{
		principal: trustDomain + "/ns/" + w.Key.Namespace + "/sa/" + w.ServiceAccount,
		account:   &securityapi.ServiceAccountMatch{Namespace: w.Key.Namespace, ServiceAccount: w.ServiceAccount},
	}
}

// place adds the DENY policies to deny, and gives the filters that allow.
// Routes may lead to the endpoints of other services.
func (l *Layer4) place(m *model.Model, w *model.Waypoint, s *model.Service, port *model.Port, leads []Lead, deny *filterSpec) []*filterSpec {
	self := ownOf(w, m.TrustDomain)
	if s == nil {
		return l.placeWorkloads(self, w, deny)
	}
	own := Lead{Service: s}
	if port != nil {
		own.Port = port.Number
	}
	denies := map[*securityapi.Authorization]*layer4Policy{}
	// allows are, by their names, the sets of ALLOW policies that endpoints have.
	allows := map[string]map[*securityapi.Authorization]*layer4Policy{}
	for e, to := range ends(m, own, leads) {
		at := destinations(e)
		for i := range at {
			at[i].port = to
		}
		var set []*securityapi.Authorization
		var names []string
		for _, p := range l.at(e) {
			if p.Action == securityapi.Action_DENY {
				hold(denies, self, p, at)
				continue
			}
			set, names = append(set, p), append(names, p.Namespace+"/"+p.Name)
		}
		if len(set) == 0 {
			continue
		}
		slices.Sort(names)
		key := strings.Join(names, " ")
		if allows[key] == nil {
			allows[key] = map[*securityapi.Authorization]*layer4Policy{}
		}
		for _, p := range set {
			hold(allows[key], self, p, at)
		}
	}
	for _, p := range denies {
		p.put(deny, (*layer4Policy).throughService)
	}
	var out []*filterSpec
	for _, key := range slices.Sorted(maps.Keys(allows)) {
		f := &filterSpec{}
		f.put(rbacv3.RBAC_ALLOW, false, "", nil)
		for _, p := range allows[key] {
			p.put(f, (*layer4Policy).throughService)
		}
		out = append(out, f)
	}
	return out
}

// ends are the endpoints that a service's traffic can end at, each with its port, or
// zero for any. Of those that are outside the mesh no workload answers.
func ends(m *model.Model, own Lead, leads []Lead) iter.Seq2[*model.Endpoint, uint32] {
	return func(yield func(*model.Endpoint, uint32) bool) {
		seen := map[Lead]bool{}
		for _, one := range append([]Lead{own}, leads...) {
			if seen[one] || one.Service.MeshExternal {
				continue
			}
			seen[one] = true
			for _, e := range m.EndpointsOf(one.Service) {
				if !yield(e, e.Ports[one.Port]) {
					return
				}
			}
		}
	}
}

// placeWorkloads is place for workloads' own addresses: each policy is bound to
// the addresses where it holds, and those without ALLOW policies are allowed.
func (l *Layer4) placeWorkloads(self own, w *model.Waypoint, deny *filterSpec) []*filterSpec {
	policies := map[*securityapi.Authorization]*layer4Policy{}
	var open []destination
	allow := &filterSpec{}
	for _, e := range w.Workloads {
		allowed := false
		at := destinations(e)
		for _, p := range l.at(e) {
			hold(policies, self, p, at)
			allowed = allowed || p.Action == securityapi.Action_ALLOW
		}
		if allowed {
			allow.put(rbacv3.RBAC_ALLOW, false, "", nil)
		} else {
			open = append(open, at...)
		}
	}
	for _, p := range policies {
		to := allow
		if p.Action == securityapi.Action_DENY {
			to = deny
		}
		p.put(to, (*layer4Policy).throughAddress)
	}
	if allow.empty() {
		return nil
	}
	if len(open) > 0 {
		allow.put(rbacv3.RBAC_ALLOW, false, "workloads-without-allow-policies", &rbacv3.Policy{
			Permissions: []*rbacv3.Permission{allRules([]*rbacv3.Permission{toAddresses(open)})}, Principals: []*rbacv3.Principal{allIDs(nil)},
		})
	}
	return []*filterSpec{allow}
}

// destinations are an endpoint's addresses; it has one even if that has a name only.
func destinations(e *model.Endpoint) []destination {
	out := []destination{{address: e.Address}}
	for _, a := range e.MoreAddresses {
		out = append(out, destination{address: a})
	}
	return out
}

func hold(all map[*securityapi.Authorization]*layer4Policy, self own, p *securityapi.Authorization, at []destination) {
	if all[p] == nil {
		all[p] = &layer4Policy{Authorization: p, self: self}
	}
	all[p].at = append(all[p].at, at...)
}

func (p *layer4Policy) put(f *filterSpec, to func(*layer4Policy, []*securityapi.Rules) ([]*rbacv3.Permission, bool)) {
	action := rbacv3.RBAC_ALLOW
	if p.Action == securityapi.Action_DENY {
		action = rbacv3.RBAC_DENY
	}
	for i, g := range p.Groups {
		sources, destinations, ok := split(g, action == rbacv3.RBAC_DENY)
		if !ok {
			continue
		}
		permissions, ok := to(p, destinations)
		if !ok {
			continue
		}
		var ids []*rbacv3.Principal
		for _, c := range sources {
			ids = append(ids, anyID(each(c.Matches, p.self.sourceID)))
		}
		f.put(action, false, fmt.Sprintf("ns[%s]-policy[%s]-rule[%d]", p.Namespace, p.Name, i), &rbacv3.Policy{
			Permissions: []*rbacv3.Permission{allRules(permissions)}, Principals: []*rbacv3.Principal{allIDs(ids)},
		})
	}
}

// throughService decides what rules say of the destination where it is not
// chosen yet: a DENY holds if it does at one of them, an ALLOW if at all.
func (p *layer4Policy) throughService(clauses []*securityapi.Rules) ([]*rbacv3.Permission, bool) {
	holds := func(d destination) bool {
		return !slices.ContainsFunc(clauses, func(c *securityapi.Rules) bool {
			return !slices.ContainsFunc(c.Matches, d.matches)
		})
	}
	if p.Action == securityapi.Action_DENY {
		return nil, slices.ContainsFunc(p.at, holds)
	}
	return nil, !slices.ContainsFunc(p.at, func(d destination) bool { return !holds(d) })
}

// throughAddress leaves to the proxy what rules say of the destination.
func (p *layer4Policy) throughAddress(clauses []*securityapi.Rules) ([]*rbacv3.Permission, bool) {
	out := []*rbacv3.Permission{toAddresses(p.at)}
	for _, c := range clauses {
		out = append(out, anyRule(each(c.Matches, destinationRule)))
	}
	return out, true
}
