package destination

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// Policy is what holds for a port of a service and a subset of it, "" for the
// whole service. It may be empty and is never nil.
//
// A field of a subset's policy replaces the rule's field as a whole. So do the
// settings of a port, which moreover inherit nothing: a field that they leave out
// has its default.
func (r *Rule) Policy(port uint32, subset string) *networkingapi.TrafficPolicy {
	out := &networkingapi.TrafficPolicy{}
	if r == nil {
		return out
	}
	overlay(out, r.policy, port)
	if s := r.Subset(subset); s != nil {
		overlay(out, s.TrafficPolicy, port)
	}
	return out
}

// Governs tells whether the rule says anything of the service, or of a subset,
// beyond which endpoints are in it.
func (r *Rule) Governs(subset string) bool {
	return r != nil && (r.policy != nil || r.Subset(subset).GetTrafficPolicy() != nil)
}

func overlay(out, p *networkingapi.TrafficPolicy, port uint32) {
	if p == nil {
		return
	}
	if p.ConnectionPool != nil {
		out.ConnectionPool = p.ConnectionPool
	}
	if p.LoadBalancer != nil {
		out.LoadBalancer = p.LoadBalancer
	}
	if p.OutlierDetection != nil {
		out.OutlierDetection = p.OutlierDetection
	}
	if p.Tls != nil {
		out.Tls = p.Tls
	}
	if p.ProxyProtocol != nil {
		out.ProxyProtocol = p.ProxyProtocol
	}
	if p.RetryBudget != nil {
		out.RetryBudget = p.RetryBudget
	}
	for _, own := range p.PortLevelSettings {
		if own.GetPort().GetNumber() == port {
			out.ConnectionPool, out.LoadBalancer, out.OutlierDetection, out.Tls = own.ConnectionPool, own.LoadBalancer, own.OutlierDetection, own.Tls
			return
		}
	}
}

// HasSubset tells whether a service's rule defines a subset.
func (r *Rules) HasSubset(s *model.Service, subset string) bool {
	return r.For(s).Subset(subset) != nil
}

// HashPolicies are what requests to a port of a service and a subset of it are
// hashed by.
func (r *Rules) HashPolicies(s *model.Service, port uint32, subset string) []*routev3.RouteAction_HashPolicy {
	return HashPolicies(r.For(s).Policy(port, subset))
}
