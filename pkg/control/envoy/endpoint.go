package envoy

import (
	"cmp"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// host is an endpoint with what it became.
type host struct {
	of  *model.Endpoint
	out *endpointv3.LbEndpoint
}

// assignment are the endpoints of a port that have all labels, by locality.
func (g *generator) assignment(name string, s *model.Service, port *model.Port, labels map[string]string, policy *networkingapi.TrafficPolicy) *endpointv3.ClusterLoadAssignment {
	var hosts []host
	byName := s.Resolution == networkingapi.ServiceEntry_DNS || s.Resolution == networkingapi.ServiceEntry_DNS_ROUND_ROBIN
	for _, e := range g.m.EndpointsOf(s) {
		target := e.Ports[port.Number]
		if target == 0 || !hasAll(e.Labels, labels) || !e.Address.IsValid() && !byName {
			continue
		}
		if s.Resolution == networkingapi.ServiceEntry_DNS_ROUND_ROBIN && len(hosts) > 0 {
			break // a name of that kind is one
		}
		hosts = append(hosts, host{e, g.endpoint(s, e, target)})
	}
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	for _, l := range g.localities(hosts, s, policy) {
		out.Endpoints = append(out.Endpoints, l.out())
	}
	return out
}

func hasAll(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func (g *generator) endpoint(s *model.Service, e *model.Endpoint, port uint32) *endpointv3.LbEndpoint {
	out := &endpointv3.LbEndpoint{LoadBalancingWeight: u32(max(e.Weight, 1)), HealthStatus: corev3.HealthStatus_HEALTHY}
	if !e.Ready {
		out.HealthStatus = corev3.HealthStatus_UNHEALTHY
	}
	var to *corev3.Address
	where := ""
	switch {
	case !e.Address.IsValid():
		to = socketAddress(e.Hostname, port)
	case e.Tunnel:
		where = netip.AddrPortFrom(e.Address, uint16(port)).String()
		to = internalAddress(connectOriginate, where)
	default:
		to = socketAddress(e.Address.String(), port)
	}
	out.HostIdentifier = &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: to}}
	out.Metadata = g.endpointMetadata(s, e, where)
	return out
}

// localityGroup are the endpoints of a locality, or a part of them.
type localityGroup struct {
	Locality
	hosts    []host
	weight   uint32 // 0: the sum of the endpoints'
	priority uint32
}

func (l *localityGroup) out() *endpointv3.LocalityLbEndpoints {
	o := &endpointv3.LocalityLbEndpoints{
		Locality: &corev3.Locality{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}, Priority: l.priority,
	}
	var sum uint32
	for _, h := range l.hosts {
		o.LbEndpoints = append(o.LbEndpoints, h.out)
		sum += h.out.LoadBalancingWeight.GetValue()
	}
	if l.weight > 0 {
		sum = l.weight
	}
	o.LoadBalancingWeight = u32(sum)
	return o
}

// localities sorts endpoints by locality, and gives these the weights and
// priorities that the policy wants for this waypoint.
func (g *generator) localities(hosts []host, s *model.Service, policy *networkingapi.TrafficPolicy) []*localityGroup {
	byPlace := map[Locality]*localityGroup{}
	var groups []*localityGroup
	for _, h := range hosts {
		place := Locality{h.of.Region, h.of.Zone, h.of.SubZone}
		if byPlace[place] == nil {
			byPlace[place] = &localityGroup{Locality: place}
			groups = append(groups, byPlace[place])
		}
		byPlace[place].hosts = append(byPlace[place].hosts, h)
	}
	slices.SortFunc(groups, func(a, b *localityGroup) int { return a.compare(b.Locality) })
	return g.spread(groups, s, policy)
}

func (l Locality) compare(o Locality) int {
	return cmp.Or(cmp.Compare(l.Region, o.Region), cmp.Compare(l.Zone, o.Zone), cmp.Compare(l.SubZone, o.SubZone))
}
