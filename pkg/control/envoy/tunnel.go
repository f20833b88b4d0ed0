package envoy

import (
	"maps"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The names of the listeners and clusters that carry HBONE, as istiod's.
const (
	connectTerminate = "connect_terminate"
	connectOriginate = "connect_originate"
	mainInternal     = "main_internal"
	encap            = "encap"

	originalDst    = "envoy.filters.listener.original_dst"
	originalDstKey = "local"
	hbonePort      = 15008
	// noIdentity names no cluster: a connection whose endpoint does not say which
	// identity it may have goes nowhere.
	noIdentity = "no-identity"
)

// tunnels are the listeners and clusters between the tunnels and main_internal.
func (g *generator) tunnels() {
	g.connectTerminate()
	g.cluster(g.internalCluster(mainInternal, mainInternal, nil))
	if g.o.IstioExtensions {
		g.cluster(g.internalCluster(encap, connectOriginate, nil))
		g.cluster(g.originateCluster(connectOriginate, append(g.inMesh(), sanPrefix("spiffe://"+g.m.TrustDomain+"/ns/"+g.w.Key.Namespace+"/sa/"))))
		g.out.Clusters[connectOriginate].LbConfig.(*clusterv3.Cluster_OriginalDstLbConfig_).OriginalDstLbConfig.MetadataKey = &metadatav3.MetadataKey{
			Key: originalDst, Path: []*metadatav3.MetadataKey_PathSegment{{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: "waypoint"}}}}
		g.originateListener(connectOriginate, nil)
		g.otherNetworks()
		return
	}
	for _, name := range slices.Sorted(maps.Keys(g.identities)) {
		var peers []*tlsv3.SubjectAltNameMatcher
		for _, id := range g.identities[name] {
			peers = append(peers, sanExact(id))
		}
		g.cluster(g.originateCluster(name, peers))
	}
	g.originateListener(noIdentity, []*listenerv3.Filter{g.networkFilter("identity", &netstatev3.Config{
		OnNewConnection: []*filterStateValue{state("envoy.tcp_proxy.cluster", "%DYNAMIC_METADATA("+metadataNamespace+":"+metadataOriginate+")%", "", false)},
	})})
}

// originateListener opens the tunnel to the address that an endpoint's metadata
// or the filter state says.
func (g *generator) originateListener(cluster string, before []*listenerv3.Filter) {
	proxy := &tcpproxyv3.TcpProxy{
		StatPrefix: connectOriginate, ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: cluster},
		TunnelingConfig: &tcpproxyv3.TcpProxy_TunnelingConfig{Hostname: "%DOWNSTREAM_LOCAL_ADDRESS%"},
	}
	g.listener(&listenerv3.Listener{
		Name: connectOriginate, UseOriginalDst: wrapperspb.Bool(false),
		ListenerSpecifier: &listenerv3.Listener_InternalListener{InternalListener: &listenerv3.Listener_InternalListenerConfig{}},
		ListenerFilters:   []*listenerv3.ListenerFilter{g.originalDst()},
		FilterChains:      []*listenerv3.FilterChain{{Filters: append(before, g.networkFilter(filterTCPProxy, proxy))}},
	})
}

func (g *generator) originalDst() *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{Name: originalDst, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: g.pack(&originaldstv3.OriginalDst{})}}
}

// originateCluster is HBONE to the destination's port 15008.
func (g *generator) originateCluster(name string, peers []*tlsv3.SubjectAltNameMatcher) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name: name, AltStatName: g.statName(name), CircuitBreakers: unlimited(),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		ConnectTimeout:       seconds(10), CleanupInterval: seconds(60),
		LbConfig:        &clusterv3.Cluster_OriginalDstLbConfig_{OriginalDstLbConfig: &clusterv3.Cluster_OriginalDstLbConfig{UpstreamPortOverride: u32(hbonePort)}},
		TransportSocket: g.socket("tls", &tlsv3.UpstreamTlsContext{CommonTlsContext: meshTLS(peers)}),
	}
	g.protocolOptions(c, tunnelOptions(0))
	return c
}

// internalCluster leads to an internal listener. The metadata goes with it.
func (g *generator) internalCluster(name, listener string, metadata *corev3.Metadata) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name: name, AltStatName: g.statName(name), CircuitBreakers: unlimited(),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{Metadata: metadata, HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: internalAddress(listener, "")}}}},
		}}},
		TransportSocket: g.internalSocket(nil, metadata != nil),
	}
	if metadata == nil {
		c.TransportSocket = g.internalSocketOf(socketInternal, g.rawBuffer(), nil)
	}
	g.protocolOptions(c, sameProtocolOptions(seconds(300)))
	return c
}

// statName is what Istio's own statistics are found by.
func (g *generator) statName(name string) string {
	if g.o.IstioExtensions {
		return name + ";"
	}
	return ""
}
