package envoy

import (
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	meshapi "istio.io/api/mesh/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/fairlead-mesh/fairlead/pkg/control/destination"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// carries tells whether connections to a port can be taken anywhere. Only the host in
// a request, or in the hello of TLS, says which of a wildcard's names is meant.
func (g *generator) carries(s *model.Service, p *model.Port) bool {
	return s.Resolution != networkingapi.ServiceEntry_DYNAMIC_DNS || p.Protocol.IsHTTP() || namesServer(p)
}

// namesServer tells whether a port's connections begin with a TLS hello.
func namesServer(p *model.Port) bool { return p.Protocol == model.TLS || p.Protocol == model.HTTPS }

// servicePort makes the chains of a service's port, what they need, and the
// choice between them.
func (g *generator) servicePort(s *model.Service, p *model.Port) ([]*listenerv3.FilterChain, *onMatch) {
	var chains []*listenerv3.FilterChain
	var to *onMatch
	for _, kind := range Kinds(p.Protocol) {
		if kind == TCP {
			chains, to = g.streams(s, p)
			continue
		}
		name := ClusterName(HTTP, s.Hostname, p.Number, "")
		chains = append(chains, &listenerv3.FilterChain{Name: name, Filters: []*listenerv3.Filter{g.manager(s, p, g.routes(s, p))}})
		if to == nil {
			to = g.chain(name)
		} else {
			to = g.sniffed(name, to)
		}
	}
	return chains, to
}

// manager is the HTTP connection manager of a port; without one, of workloads'
// own addresses.
func (g *generator) manager(s *model.Service, p *model.Port, routes string) *listenerv3.Filter {
	var number uint32
	if p != nil {
		number = p.Number
	}
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: fmt.Sprintf("inbound_0.0.0.0_%d;", number), ServerName: serverName, UseRemoteAddress: wrapperspb.Bool(!g.o.IstioExtensions),
		StreamIdleTimeout: seconds(0), NormalizePath: wrapperspb.Bool(true), PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_KEEP_UNCHANGED,
		Proxy_100Continue: true,
		RequestIdExtension: &hcmv3.RequestIDExtension{TypedConfig: g.once("request id", func() proto.Message {
			return &uuidv3.UuidRequestIdConfig{UseRequestIdForTraceSampling: wrapperspb.Bool(true)}
		})},
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: routes, ConfigSource: ads()}},
		HttpFilters:    g.httpFilters(s, p),
		AccessLog:      g.accessLogs(s, p, HTTP),
	}
	g.normalisation(m)
	if p != nil && (p.Protocol == model.HTTP2 || p.Protocol == model.GRPC) {
		m.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{}
	}
	if g.o.IstioExtensions {
		m.Tracing = g.tracing()
		return g.networkFilter(filterHCM, m)
	}
	// The caller's address is appended to x-forwarded-for. The address before it,
	// x-forwarded-proto and x-request-id are taken from a gateway as they come.
	m.XffNumTrustedHops = 1
	m.PreserveExternalRequestId = true
	return g.networkFilter(filterHCM, m)
}

// normalisation is the mesh's pathNormalization, by default BASE.
func (g *generator) normalisation(m *hcmv3.HttpConnectionManager) {
	switch g.m.Objects.Mesh.GetPathNormalization().GetNormalization() {
	case meshapi.MeshConfig_ProxyPathNormalization_NONE:
		m.NormalizePath = wrapperspb.Bool(false)
	case meshapi.MeshConfig_ProxyPathNormalization_MERGE_SLASHES:
		m.MergeSlashes = true
	case meshapi.MeshConfig_ProxyPathNormalization_DECODE_AND_MERGE_SLASHES:
		m.MergeSlashes = true
		m.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD
	}
}

// streams makes the chains of a port for connections: one, or one for each route
// by server name.
func (g *generator) streams(s *model.Service, p *model.Port) ([]*listenerv3.FilterChain, *onMatch) {
	name := ClusterName(TCP, s.Hostname, p.Number, "")
	routes := Streams{Routes: []Stream{{}}}
	if g.o.Parts.Streams != nil {
		var err error
		routes, err = g.o.Parts.Streams(s, p)
		g.fail(err)
	}
	if s.Resolution == networkingapi.ServiceEntry_DYNAMIC_DNS {
		routes.Routes = ownNames(s, routes.Routes)
	}
	g.service(Backend{Service: s, Port: p.Number, Kind: TCP})
	for _, b := range routes.Backends {
		g.service(b)
	}
	var chains []*listenerv3.FilterChain
	var some []chainOf
	var otherwise *onMatch
	for i, r := range routes.Routes {
		chain := name
		if r.restricted() {
			chain = chainPart(name, i)
			some = append(some, chainOf{&r, chain})
		} else {
			otherwise = g.chain(chain)
		}
		chains = append(chains, &listenerv3.FilterChain{Name: chain, Filters: g.proxy(s, p, name, r)})
		if otherwise != nil {
			break // it matches everything
		}
	}
	if otherwise == nil && !slices.ContainsFunc(routes.Routes, func(r Stream) bool { return len(r.ServerNames) > 0 }) {
		// Nothing else may come through: a chain that leads to no endpoint says so.
		chains = append(chains, &listenerv3.FilterChain{Name: name, Filters: g.proxy(s, p, name, Stream{Clusters: []*tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{{Name: blackHole, Weight: 1}}})})
		otherwise = g.chain(name)
	}
	if len(some) == 0 {
		return chains, otherwise
	}
	return chains, g.byCondition(some, otherwise)
}

// blackHole names no cluster.
const blackHole = "BlackHoleCluster"

// proxy are the network filters of a route for connections.
func (g *generator) proxy(s *model.Service, p *model.Port, name string, r Stream) []*listenerv3.Filter {
	var filters []*listenerv3.Filter
	if g.o.IstioExtensions {
		filters = append(filters, g.networkFilter("istio.metadata_exchange", g.exchange()))
	}
	if g.o.Parts.NetworkFilters != nil {
		more, err := g.o.Parts.NetworkFilters(s, p)
		g.fail(err)
		filters = append(filters, more...)
	}
	if g.o.IstioExtensions {
		filters = append(filters, g.networkFilter("istio.stats", g.stats()))
	}
	if s != nil && s.Resolution == networkingapi.ServiceEntry_DYNAMIC_DNS {
		filters = append(filters, g.networkFilter("envoy.filters.network.sni_dynamic_forward_proxy", g.byServerName(s, p)))
	}
	proxy := &tcpproxyv3.TcpProxy{StatPrefix: name, IdleTimeout: r.IdleTimeout, AccessLog: g.accessLogs(s, p, TCP)}
	switch len(r.Clusters) {
	case 0:
		proxy.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: name}
	case 1:
		proxy.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: r.Clusters[0].Name}
	default:
		proxy.ClusterSpecifier = &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: &tcpproxyv3.TcpProxy_WeightedCluster{Clusters: r.Clusters}}
	}
	if s != nil {
		policy := g.rules.For(s).Policy(p.Number, "")
		tcp := policy.GetConnectionPool().GetTcp()
		if proxy.IdleTimeout == nil {
			proxy.IdleTimeout = tcp.GetIdleTimeout()
		}
		proxy.MaxDownstreamConnectionDuration = tcp.GetMaxConnectionDuration()
		if destination.TCPHashed(policy) {
			proxy.HashPolicy = []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
		}
	}
	return append(filters, g.networkFilter(filterTCPProxy, proxy))
}

// directChain is a chain for workloads' own addresses.
func (g *generator) directChain(kind Kind, name, cluster string) *listenerv3.FilterChain {
	// The address called goes on to the next internal listener.
	again := g.networkFilter("connect_authority", &netstatev3.Config{OnNewConnection: []*filterStateValue{
		state(stateLocalIP, "%FILTER_STATE("+stateLocalIP+":PLAIN)%", "", true)}})
	if kind == TCP {
		return &listenerv3.FilterChain{Name: name, Filters: append([]*listenerv3.Filter{again},
			g.proxy(nil, nil, cluster, Stream{})...)}
	}
	g.route(defaultRoutes(cluster, cluster, 0, ""))
	return &listenerv3.FilterChain{Name: name, Filters: []*listenerv3.Filter{again, g.manager(nil, nil, cluster)}}
}
