package standin

import (
	"net/netip"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/push"
)

func pack(m proto.Message) *anypb.Any {
	packed, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return packed
}

func address(a netip.AddrPort) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(a.Port())}}}}
}

func ads() *core.ConfigSource {
	return &core.ConfigSource{ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}}, ResourceApiVersion: core.ApiVersion_V3,
		InitialFetchTimeout: durationpb.New(0)}
}

// sdsGRPC is how istiod names the secrets' server.
func sdsGRPC() *core.ConfigSource {
	return &core.ConfigSource{ResourceApiVersion: core.ApiVersion_V3, InitialFetchTimeout: durationpb.New(0),
		ConfigSourceSpecifier: &core.ConfigSource_ApiConfigSource{ApiConfigSource: &core.ApiConfigSource{
			ApiType: core.ApiConfigSource_GRPC, TransportApiVersion: core.ApiVersion_V3, SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*core.GrpcService{{TargetSpecifier: &core.GrpcService_EnvoyGrpc_{EnvoyGrpc: &core.GrpcService_EnvoyGrpc{ClusterName: "sds-grpc"}}}},
		}}}
}

func manager(filter string) *listener.Filter {
	return &listener.Filter{Name: filter, ConfigType: &listener.Filter_TypedConfig{TypedConfig: pack(&hcm.HttpConnectionManager{
		StatPrefix: "x", RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{ConfigSource: ads(), RouteConfigName: "routes"}},
		HttpFilters: []*hcm.HttpFilter{{Name: "envoy.filters.http.router", ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: pack(&router.Router{})}}},
	})}}
}

func brokenListener() proto.Message {
	return &listener.Listener{Name: "broken", Address: address(netip.MustParseAddrPort("127.0.0.1:0")), FilterChains: []*listener.FilterChain{{
		Filters: []*listener.Filter{{Name: "no.such.filter", ConfigType: &listener.Filter_TypedConfig{TypedConfig: pack(&wrapperspb.StringValue{Value: "x"})}}}}}}
}

// listenerOf has routes of a name; nobody connects to it.
func listenerOf(routes string) proto.Message {
	filter := manager("hcm")
	var m hcm.HttpConnectionManager
	if err := filter.GetTypedConfig().UnmarshalTo(&m); err != nil {
		panic(err)
	}
	m.GetRds().RouteConfigName = routes
	filter.ConfigType = &listener.Filter_TypedConfig{TypedConfig: pack(&m)}
	return &listener.Listener{Name: routes, Address: address(netip.MustParseAddrPort("127.0.0.1:0")),
		FilterChains: []*listener.FilterChain{{Filters: []*listener.Filter{filter}}}}
}

// badRoutes have a regular expression that does not compile.
func badRoutes(name string) proto.Message {
	return &route.RouteConfiguration{Name: name, VirtualHosts: []*route.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*route.Route{{
		Match:  &route.RouteMatch{PathSpecifier: &route.RouteMatch_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: "[a"}}},
		Action: &route.Route_DirectResponse{DirectResponse: &route.DirectResponseAction{Status: 200}},
	}}}}}
}

// generate is the waypoint's configuration: its clusters by EDS, one route for
// both listeners.
func (c *cluster) generate(*model.Waypoint, push.Consumer) (push.Generated, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := push.Resources{push.ClusterType: {}, push.EndpointType: {}, push.ListenerType: {}, push.RouteType: {}}
	for _, name := range c.clusters {
		out[push.ClusterType][name] = &clusterv3.Cluster{Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
			EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: name}}
		out[push.EndpointType][name] = &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{{LbEndpoints: []*endpoint.LbEndpoint{{
			HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: address(c.backends[name])}}}}}}}
	}
	for name, l := range c.extra {
		out[push.ListenerType][name] = l
	}
	for _, name := range c.badRoutes {
		out[push.RouteType][name] = badRoutes(name)
	}
	out[push.ListenerType]["plain"] = &listener.Listener{Name: "plain", Address: address(c.plain),
		FilterChains: []*listener.FilterChain{{Filters: []*listener.Filter{manager("hcm")}}}}
	out[push.ListenerType]["secure"] = &listener.Listener{Name: "secure", Address: address(c.secure), FilterChains: []*listener.FilterChain{{
		Filters: []*listener.Filter{manager("hcm")},
		TransportSocket: &core.TransportSocket{Name: "tls", ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: pack(&tlsv3.DownstreamTlsContext{
			RequireClientCertificate: wrapperspb.Bool(true),
			CommonTlsContext: &tlsv3.CommonTlsContext{
				AlpnProtocols:                  []string{"h2"},
				TlsParams:                      &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
				TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: "default", SdsConfig: sdsGRPC()}},
				ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
					ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: "ROOTCA", SdsConfig: sdsGRPC()}},
			},
		})}},
	}}}
	out[push.RouteType]["routes"] = &route.RouteConfiguration{Name: "routes", VirtualHosts: []*route.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*route.Route{{
		Match:  &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/"}},
		Action: &route.Route_Route{Route: &route.RouteAction{ClusterSpecifier: &route.RouteAction_Cluster{Cluster: c.route}}},
	}}}}}
	return push.Generated{All: out}, nil
}
