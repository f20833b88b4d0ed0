package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	httpstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	filterHCM    = "envoy.filters.network.http_connection_manager"
	filterRouter = "envoy.filters.http.router"
	serverName   = "istio-envoy"

	stateLocalIP       = originalDst + ".local_ip"
	stateRemoteIP      = originalDst + ".remote_ip"
	statePeerPrincipal = "io.istio.peer_principal"

	factoryIstioString = "istio.hashable_string"
	factoryString      = "envoy.hashable_string"
)

type filterStateValue = statev3.FilterStateValue

// state sets a key of the filter state. Factory is "" for keys that Envoy knows
// how to make. Shared ones are seen by the next internal listener.
func state(key, format, factory string, shared bool) *filterStateValue {
	v := &filterStateValue{
		Key: &statev3.FilterStateValue_ObjectKey{ObjectKey: key}, FactoryKey: factory,
		Value: &statev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: format}}}}},
	}
	if shared {
		v.SharedWithUpstream = statev3.FilterStateValue_ONCE
	}
	return v
}

func (g *generator) factory() string {
	if g.o.IstioExtensions {
		return factoryIstioString
	}
	return factoryString
}

// connectTerminate takes the tunnels in: who calls and what is called become
// filter state of the connection inside.
func (g *generator) connectTerminate() {
	filters := g.sourceMetadata()
	filters = append(filters,
		g.httpFilter("connect_authority", &httpstatev3.Config{OnRequestHeaders: []*filterStateValue{
			state(stateLocalIP, "%REQ(:AUTHORITY)%", "", true),
			state("io.istio.connect_authority", "%REQ(:AUTHORITY)%", g.factory(), true),
			state(stateRemoteIP, "%DOWNSTREAM_REMOTE_ADDRESS%", "", true),
			state(statePeerPrincipal, "%DOWNSTREAM_PEER_URI_SAN%", g.factory(), true),
			state("io.istio.local_principal", "%DOWNSTREAM_LOCAL_URI_SAN%", g.factory(), true),
		}}),
		g.httpFilter(filterRouter, &routerv3.Router{}))
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix: connectTerminate, ServerName: serverName, UseRemoteAddress: wrapperspb.Bool(false), StreamIdleTimeout: seconds(0),
		ForwardClientCertDetails: hcmv3.HttpConnectionManager_APPEND_FORWARD,
		SetCurrentClientCertDetails: &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{
			Subject: wrapperspb.Bool(true), Dns: true, Uri: true},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			AllowConnect: true, MaxConcurrentStreams: u32(100),
			ConnectionKeepalive: &corev3.KeepaliveSettings{Interval: seconds(10), Timeout: seconds(20)},
		},
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "CONNECT"}},
		HttpFilters:    filters,
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name: "default",
			VirtualHosts: []*routev3.VirtualHost{{Name: "default", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: mainInternal},
					UpgradeConfigs:   []*routev3.RouteAction_UpgradeConfig{{UpgradeType: "CONNECT", ConnectConfig: &routev3.RouteAction_UpgradeConfig_ConnectConfig{}}},
				}},
			}}}},
		}},
	}
	g.listener(&listenerv3.Listener{
		Name: connectTerminate, Address: socketAddress(g.anyAddress(), hbonePort),
		ConnectionBalanceConfig: &listenerv3.Listener_ConnectionBalanceConfig{
			BalanceType: &listenerv3.Listener_ConnectionBalanceConfig_ExactBalance_{ExactBalance: &listenerv3.Listener_ConnectionBalanceConfig_ExactBalance{}}},
		FilterChains: []*listenerv3.FilterChain{{
			Name: "default", Filters: []*listenerv3.Filter{g.networkFilter(filterHCM, manager)},
			TransportSocket: g.socket("tls", &tlsv3.DownstreamTlsContext{CommonTlsContext: meshTLS(g.inMesh()), RequireClientCertificate: wrapperspb.Bool(true)}),
		}},
	})
}

// anyAddress is all addresses of the families that the cluster has.
func (g *generator) anyAddress() string {
	if v4, v6 := g.families(); v6 && !v4 {
		return "::"
	}
	return "0.0.0.0"
}

// families are the address families of the cluster's services.
func (g *generator) families() (v4, v6 bool) {
	for _, s := range g.m.Services {
		for _, a := range s.Addresses {
			if s.Kube != nil {
				v4, v6 = v4 || a.Addr().Is4(), v6 || a.Addr().Is6()
			}
		}
	}
	return v4, v6
}
