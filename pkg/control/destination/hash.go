package destination

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networkingapi "istio.io/api/networking/v1alpha3"
)

// HashPolicies are the part of loadBalancer.consistentHash that stands in
// routes: what a request is hashed by. It is nil without consistentHash.
func HashPolicies(p *networkingapi.TrafficPolicy) []*routev3.RouteAction_HashPolicy {
	hash := p.GetLoadBalancer().GetConsistentHash()
	switch key := hash.GetHashKey().(type) {
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		return one(&routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
			Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: key.HttpHeaderName}}})
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		cookie := &routev3.RouteAction_HashPolicy_Cookie{Name: key.HttpCookie.GetName(), Path: key.HttpCookie.GetPath(), Ttl: key.HttpCookie.GetTtl()}
		for _, a := range key.HttpCookie.GetAttributes() {
			cookie.Attributes = append(cookie.Attributes, &routev3.RouteAction_HashPolicy_CookieAttribute{Name: a.GetName(), Value: a.GetValue()})
		}
		return one(&routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Cookie_{Cookie: cookie}})
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
		if !key.UseSourceIp {
			return nil
		}
		return one(&routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_ConnectionProperties_{
			ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true}}})
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		return one(&routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_QueryParameter_{
			QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: key.HttpQueryParameterName}}})
	}
	return nil
}

// TCPHashed tells whether connections are hashed by the caller's address.
func TCPHashed(p *networkingapi.TrafficPolicy) bool {
	return p.GetLoadBalancer().GetConsistentHash().GetUseSourceIp()
}

func one(p *routev3.RouteAction_HashPolicy) []*routev3.RouteAction_HashPolicy {
	return []*routev3.RouteAction_HashPolicy{p}
}
