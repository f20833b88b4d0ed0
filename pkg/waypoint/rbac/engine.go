// Package rbac decides by role-based access control who may do what: Envoy's RBAC
// filters of HTTP and of connections. What is not understood is an error: the filter
// chain that holds it refuses.
package rbac

import (
	"errors"
	"fmt"
	"slices"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/strict"
)

// predicate tells whether a part of a policy holds. Of a connection that is no HTTP
// the info has no request.
type predicate func(i *streaminfo.Info) bool

type policy struct {
	name                    string
	permissions, principals []predicate
}

// Engine is a compiled set of policies.
type Engine struct {
	action rbacconfigv3.RBAC_Action
	// none: no rules at all, which allows everything.
	none     bool
	policies []policy
}

// CompileHTTP compiles the HTTP filter.
func CompileHTTP(f *httpv3.RBAC) (*Engine, error) {
	if f.GetMatcher() != nil {
		return nil, errors.New("matcher is not supported")
	}
	if err := strict.Check(f); err != nil {
		return nil, err
	}
	return compile(f.GetRules())
}

// CompileNetwork compiles the network filter.
func CompileNetwork(f *networkv3.RBAC) (*Engine, error) {
	if f.GetMatcher() != nil {
		return nil, errors.New("matcher is not supported")
	}
	if err := strict.Check(f); err != nil {
		return nil, err
	}
	return compile(f.GetRules())
}

// compile does not look at shadow rules, which decide nothing.
func compile(r *rbacconfigv3.RBAC) (*Engine, error) {
	if r == nil {
		return &Engine{none: true}, nil
	}
	e := &Engine{action: r.GetAction()}
	if _, known := rbacconfigv3.RBAC_Action_name[int32(e.action)]; !known {
		return nil, fmt.Errorf("rules.action: %d is not known", e.action)
	}
	names := make([]string, 0, len(r.GetPolicies()))
	for name := range r.GetPolicies() {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p := r.GetPolicies()[name]
		if p.GetCondition() != nil || p.GetCheckedCondition() != nil {
			return nil, fmt.Errorf("rules.policies[%s]: condition is not supported", name)
		}
		out := policy{name: name}
		for i, m := range p.GetPermissions() {
			c, err := permission(m)
			if err != nil {
				return nil, fmt.Errorf("rules.policies[%s].permissions[%d]: %w", name, i, err)
			}
			out.permissions = append(out.permissions, c)
		}
		for i, m := range p.GetPrincipals() {
			c, err := principal(m)
			if err != nil {
				return nil, fmt.Errorf("rules.policies[%s].principals[%d]: %w", name, i, err)
			}
			out.principals = append(out.principals, c)
		}
		e.policies = append(e.policies, out)
	}
	return e, nil
}

// Request decides on a request; policy is the one that matched, or "".
func (e *Engine) Request(i *streaminfo.Info) (allowed bool, policy string) {
	if e.none {
		return true, ""
	}
	matched, name := e.match(i)
	switch e.action {
	case rbacconfigv3.RBAC_ALLOW:
		return matched, name
	case rbacconfigv3.RBAC_DENY:
		return !matched, name
	}
	return true, name // LOG
}

// Connection decides on a connection without looking into it.
func (e *Engine) Connection(c *streaminfo.Connection) (allowed bool, policy string) {
	return e.Request(&streaminfo.Info{Connection: c})
}

func (e *Engine) match(i *streaminfo.Info) (bool, string) {
	for k := range e.policies {
		p := &e.policies[k]
		if anyHolds(p.permissions, i) && anyHolds(p.principals, i) {
			return true, p.name
		}
	}
	return false, ""
}

func anyHolds(list []predicate, i *streaminfo.Info) bool {
	for _, p := range list {
		if p(i) {
			return true
		}
	}
	return false
}

func allHold(list []predicate, i *streaminfo.Info) bool {
	for _, p := range list {
		if !p(i) {
			return false
		}
	}
	return true
}
