package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// service makes the clusters of a service's port: one for the service and one for
// each subset.
func (g *generator) service(b Backend) {
	if b.Service == nil || g.built[b] {
		return
	}
	g.built[b] = true
	port := b.Service.Port(b.Port)
	if port == nil || !g.carries(b.Service, port) {
		return
	}
	rule := g.rules.For(b.Service)
	g.subset(b, port, "", nil)
	for _, s := range rule.Subsets() {
		g.subset(b, port, s.Name, s.Labels)
	}
}

// subset makes one cluster and, where they are served apart, its endpoints.
func (g *generator) subset(b Backend, port *model.Port, subset string, labels map[string]string) {
	s, rule := b.Service, g.rules.For(b.Service)
	policy := rule.Policy(b.Port, subset)
	name := ClusterName(b.Kind, s, b.Port, subset)
	how := string(b.Kind)
	if subset != "" {
		how += "/" + subset
	}
	var object *networkingv1.DestinationRule
	if rule != nil {
		object = rule.Objects[0]
	}
	c := &clusterv3.Cluster{Name: name, AltStatName: g.statName(name), Metadata: g.clusterMetadata(s, how, object)}
	inner, options := g.transport(b.Kind, policy), httpOptions(b.Kind, port.Protocol, policy)
	c.TransportSocket = g.internalSocket(inner, true)
	g.protocolOptions(c, withServerName(b.Kind, policy, options))
	g.discover(c, s, port, labels, policy)
}

// discover finishes a cluster: where its endpoints come from, how one is chosen,
// what it bears.
func (g *generator) discover(c *clusterv3.Cluster, s *model.Service, port *model.Port, labels map[string]string, policy *networkingapi.TrafficPolicy) {
	g.limits(c, policy)
	if s.Resolution != networkingapi.ServiceEntry_DYNAMIC_DNS {
		c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{}}
	}
	g.balance(c, policy)
	outlier(c, policy.GetOutlierDetection())
	switch s.Resolution {
	case networkingapi.ServiceEntry_DYNAMIC_DNS:
		c.LbPolicy, c.LbConfig, c.CommonLbConfig = clusterv3.Cluster_CLUSTER_PROVIDED, nil, nil
		c.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
			Name: "envoy.clusters.dynamic_forward_proxy", TypedConfig: g.pack(&dfpv3.ClusterConfig{
				ClusterImplementationSpecifier: &dfpv3.ClusterConfig_DnsCacheConfig{DnsCacheConfig: g.dnsCache(s)}})}}
	case networkingapi.ServiceEntry_NONE:
		g.original(c)
	case networkingapi.ServiceEntry_DNS, networkingapi.ServiceEntry_DNS_ROUND_ROBIN:
		if c.LbPolicy == clusterv3.Cluster_CLUSTER_PROVIDED {
			g.original(c)
			break
		}
		g.byName(c, s, port, labels, policy)
	default:
		if c.LbPolicy == clusterv3.Cluster_CLUSTER_PROVIDED {
			g.original(c)
			break
		}
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{ServiceName: c.Name, EdsConfig: ads()}
		assignment := g.assignment(c.Name, s, port, labels, policy)
		g.out.Endpoints[c.Name] = assignment
	}
	g.cluster(c)
}

// original sends connections to the address that was called.
func (g *generator) original(c *clusterv3.Cluster) {
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}
	c.LbPolicy, c.LbConfig = clusterv3.Cluster_CLUSTER_PROVIDED, nil
}

// byName looks the endpoints' names up. What cannot be found does not keep the
// waypoint from starting.
func (g *generator) byName(c *clusterv3.Cluster, s *model.Service, port *model.Port, labels map[string]string, policy *networkingapi.TrafficPolicy) {
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
	if s.Resolution == networkingapi.ServiceEntry_DNS_ROUND_ROBIN {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_LOGICAL_DNS}
	}
	c.LoadAssignment = g.assignment(c.Name, s, port, labels, policy)
	c.DnsLookupFamily = g.lookupFamily()
	c.DnsRefreshRate = seconds(60)
	if r := g.m.Objects.Mesh.GetDnsRefreshRate(); r != nil {
		c.DnsRefreshRate = r
	}
	c.DnsJitter = &durationpb.Duration{Nanos: 100e6}
	c.RespectDnsTtl = true
	c.TypedDnsResolverConfig = &corev3.TypedExtensionConfig{Name: "envoy.network.dns_resolver.cares", TypedConfig: g.pack(&caresv3.CaresDnsResolverConfig{UdpMaxQueries: u32(100)})}
	if !g.o.IstioExtensions {
		c.WaitForWarmOnInit = wrapperspb.Bool(false)
	}
}

func (g *generator) lookupFamily() clusterv3.Cluster_DnsLookupFamily {
	switch v4, v6 := g.families(); {
	case v4 && v6:
		return clusterv3.Cluster_ALL
	case v6:
		return clusterv3.Cluster_V6_ONLY
	}
	return clusterv3.Cluster_V4_ONLY
}

// plainCluster leads to workloads' own addresses outside the tunnel, and gives
// its name.
func (g *generator) plainCluster() string {
	const name = "direct-plain"
	c := &clusterv3.Cluster{Name: name, CircuitBreakers: unlimited(), ConnectTimeout: seconds(10), CleanupInterval: seconds(60)}
	g.original(c)
	g.protocolOptions(c, sameProtocolOptions(seconds(300)))
	g.cluster(c)
	return name
}
