package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commondnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// portKey is a service's port, read in one way.
type portKey struct {
	service *model.Service
	port    uint32
	kind    Kind
}

// service notes that a port's clusters are needed.
func (g *generator) service(b Backend) {
	if b.Service == nil {
		return
	}
	key := portKey{b.Service, b.Port, b.Kind}
	if g.wanted[key] == nil {
		g.wanted[key] = map[string]bool{}
	}
	if b.Hashed {
		g.wanted[key][b.Subset] = true
	}
}

// services makes the clusters that are needed: one for a port and one for each
// subset of its service.
func (g *generator) services() {
	for key, hashed := range g.wanted {
		port := key.service.Port(key.port)
		if port == nil || !g.carries(key.service, port) {
			continue
		}
		rule := g.rules.For(key.service)
		g.subset(key, port, "", nil, hashed[""])
		for _, s := range rule.Subsets() {
			g.subset(key, port, s.Name, s.Labels, hashed[s.Name])
		}
	}
}

// subset makes one cluster and, where they are served apart, its endpoints.
func (g *generator) subset(key portKey, port *model.Port, subset string, labels map[string]string, hashed bool) {
	s, rule := key.service, g.rules.For(key.service)
	policy := rule.Policy(key.port, subset)
	if hashed && policy.GetLoadBalancer().GetConsistentHash() == nil {
		policy.LoadBalancer = &networkingapi.LoadBalancerSettings{
			LocalityLbSetting: policy.GetLoadBalancer().GetLocalityLbSetting(),
			LbPolicy:          &networkingapi.LoadBalancerSettings_ConsistentHash{ConsistentHash: &networkingapi.LoadBalancerSettings_ConsistentHashLB{}},
		}
	}
	name := ClusterName(key.kind, s.Hostname, key.port, subset)
	how := string(key.kind)
	if subset != "" {
		how += "/" + subset
	}
	var object *networkingv1.DestinationRule
	if rule.Governs(subset) {
		object = rule.Objects[0]
	}
	c := &clusterv3.Cluster{Name: name, AltStatName: g.statName(name), Metadata: g.clusterMetadata(s, how, object)}
	inner, options := g.transport(key.kind, port.Protocol, policy), g.httpOptions(key.kind, port.Protocol, policy)
	c.TransportSocket = g.internalSocket(inner, true)
	g.protocolOptions(c, withServerName(key.kind, policy, options))
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
	c.LoadAssignment = g.assignment(c.Name, s, port, labels, policy)
	single := s.Resolution == networkingapi.ServiceEntry_DNS_ROUND_ROBIN
	refresh, jitter := seconds(60), &durationpb.Duration{Nanos: 100e6}
	if r := g.m.Objects.Mesh.GetDnsRefreshRate(); r != nil {
		refresh = r
	}
	resolver := &corev3.TypedExtensionConfig{Name: "envoy.network.dns_resolver.cares", TypedConfig: g.pack(&caresv3.CaresDnsResolverConfig{UdpMaxQueries: u32(100)})}
	if !g.o.IstioExtensions {
		c.WaitForWarmOnInit = wrapperspb.Bool(false)
		c.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{Name: "envoy.clusters.dns", TypedConfig: g.pack(&dnsv3.DnsCluster{
			DnsRefreshRate: refresh, DnsJitter: jitter, RespectDnsTtl: true, AllAddressesInSingleEndpoint: single, TypedDnsResolverConfig: resolver,
			DnsLookupFamily: commondnsv3.DnsLookupFamily(g.lookupFamily() + 1), // the same words, after UNSPECIFIED
		})}}
		return
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
	if single {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_LOGICAL_DNS}
	}
	//nolint:staticcheck // istiod's form
	c.DnsRefreshRate, c.DnsJitter, c.RespectDnsTtl, c.DnsLookupFamily, c.TypedDnsResolverConfig = refresh, jitter, true, g.lookupFamily(), resolver
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
