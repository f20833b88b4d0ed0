package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The listeners and clusters by which istiod's waypoints reach other networks, a
// tunnel in a tunnel. A client of Istio's expects them.
const (
	innerOriginate = "inner_connect_originate"
	outerOriginate = "outer_connect_originate"
	stateTarget    = "istio.double_hbone.hbone_target_address"
)

func (g *generator) otherNetworks() {
	transitive := func(v *filterStateValue) *filterStateValue {
		v.SharedWithUpstream = statev3.FilterStateValue_TRANSITIVE
		return v
	}
	propagate := g.networkFilter("propagate_endpoint_metadata", &netstatev3.Config{OnNewConnection: []*filterStateValue{
		transitive(state(stateLocalIP, "%DYNAMIC_METADATA("+originalDst+":"+originalDstKey+")%", "", true)),
		transitive(state(stateTarget, "%DYNAMIC_METADATA(istio:double_hbone:hbone_target_address)%", factoryIstioString, true)),
	}})
	g.doubleListener(innerOriginate, nil, []*listenerv3.Filter{propagate}, &corev3.HeaderValue{Key: "x-forwarded-network", Value: g.m.Network})
	g.doubleListener(outerOriginate, []*listenerv3.ListenerFilter{g.originalDst()}, nil, &corev3.HeaderValue{Key: "x-istio-source", Value: "waypoint"})

	inner := &clusterv3.Cluster{
		Name: innerOriginate, AltStatName: g.statName(innerOriginate), CircuitBreakers: unlimited(),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: innerOriginate, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: internalAddress(outerOriginate, "")}}}}}}},
		TransportSocket: g.internalSocketOf("internal_upstream_with_tls", g.socket("tls", &tlsv3.UpstreamTlsContext{CommonTlsContext: meshTLS(g.inMesh())}), nil),
	}
	g.protocolOptions(inner, tunnelOptions(1))
	g.cluster(inner)
	outer := g.originateCluster(outerOriginate, g.inMesh())
	g.protocolOptions(outer, tunnelOptions(1))
	g.cluster(outer)
}

func (g *generator) doubleListener(name string, accept []*listenerv3.ListenerFilter, before []*listenerv3.Filter, header *corev3.HeaderValue) {
	proxy := &tcpproxyv3.TcpProxy{
		StatPrefix: name, ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: name},
		TunnelingConfig: &tcpproxyv3.TcpProxy_TunnelingConfig{
			Hostname:     "%FILTER_STATE(" + stateTarget + ":PLAIN)%",
			HeadersToAdd: []*corev3.HeaderValueOption{{Header: header, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD}},
		},
	}
	g.listener(&listenerv3.Listener{
		Name: name, UseOriginalDst: wrapperspb.Bool(false), ListenerFilters: accept,
		ListenerSpecifier: &listenerv3.Listener_InternalListener{InternalListener: &listenerv3.Listener_InternalListenerConfig{}},
		FilterChains:      []*listenerv3.FilterChain{{Filters: append(before, g.networkFilter(filterTCPProxy, proxy))}},
	})
}
