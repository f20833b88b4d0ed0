package filter

import (
	"strings"

	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/rbac"
)

// accessControl refuses requests by policy.
type accessControl struct {
	name   string
	engine *rbac.Engine
}

func newRBAC(name string, config *anypb.Any) (Filter, error) {
	var c httpv3.RBAC
	if err := config.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	e, err := rbac.CompileHTTP(&c)
	if err != nil {
		return nil, err
	}
	return &accessControl{name, e}, nil
}

// routeRBAC is a route's own policy; one without rules takes the filter away.
func routeRBAC(config *anypb.Any) (any, error) {
	var c httpv3.RBACPerRoute
	if err := config.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if c.GetRbac() == nil {
		return (*rbac.Engine)(nil), nil
	}
	return rbac.CompileHTTP(c.GetRbac())
}

// Request implements [Filter].
func (f *accessControl) Request(x *Context) *Reply {
	e := f.engine
	if own, ok := x.Config(f.name).(*rbac.Engine); ok {
		if own == nil {
			return nil
		}
		e = own
	}
	allowed, policy := e.Request(x.Info)
	if allowed {
		return nil
	}
	if policy == "" {
		policy = "none"
	}
	return &Reply{Status: 403, Body: "RBAC: access denied", Details: "rbac_access_denied_matched_policy[" + strings.ReplaceAll(policy, " ", "_") + "]"}
}
