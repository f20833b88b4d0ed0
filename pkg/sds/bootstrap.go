package sds

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	internal "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/internal_listener/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	http "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// The static clusters: discovery and secrets, both on the [Server]'s socket, and
// Envoy's own admin page.
const (
	discoveryCluster = "xds-grpc"
	secretsCluster   = "sds-grpc"
	adminCluster     = "admin"
)

// minBackoff and maxBackoff bound how long a control plane that comes back is not
// noticed.
const minBackoff, maxBackoff = 100 * time.Millisecond, 10 * time.Second

// maxRegexProgram bounds compiled regular expressions, in RE2's instructions. Envoy's
// default, 100, is less than what a list of a few words takes, and one expression over
// it makes Envoy refuse all routes of a response. It is the bound that istiod sets.
const maxRegexProgram = 32768

// Bootstrap is what an Envoy starts with that stands in a waypoint's place.
type Bootstrap struct {
	// NodeID, Cluster and Metadata are how it tells the control plane who it is.
	NodeID, Cluster string
	Metadata        map[string]any
	// Socket is the [Server]'s.
	Socket string
	// Admin is the address of Envoy's admin page; loopback.
	Admin netip.AddrPort
	// Readiness and Metrics are where GET /healthz/ready, and /metrics and
	// /stats/prometheus, are answered; the zero value opens none.
	Readiness, Metrics netip.AddrPort
}

// JSON is the file that Envoy takes with --config-path.
func (b Bootstrap) JSON() ([]byte, error) {
	if b.NodeID == "" || b.Socket == "" || !b.Admin.IsValid() {
		return nil, errors.New("sds: a bootstrap needs NodeID, Socket and Admin")
	}
	if !b.Admin.Addr().IsLoopback() {
		return nil, fmt.Errorf("sds: Envoy's admin page at %s could be reached from outside: it must be on loopback", b.Admin)
	}
	metadata, err := structpb.NewStruct(b.Metadata)
	if err != nil {
		return nil, fmt.Errorf("sds: node metadata: %w", err)
	}
	p := &packer{}
	ads := &core.ConfigSource{
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}}, ResourceApiVersion: core.ApiVersion_V3,
		InitialFetchTimeout: durationpb.New(0), // waits as long as it takes
	}
	overGRPC := []*core.GrpcService{{TargetSpecifier: &core.GrpcService_EnvoyGrpc_{EnvoyGrpc: &core.GrpcService_EnvoyGrpc{
		ClusterName: discoveryCluster, RetryPolicy: &core.RetryPolicy{RetryBackOff: &core.BackoffStrategy{
			BaseInterval: durationpb.New(minBackoff), MaxInterval: durationpb.New(maxBackoff),
		}},
	}}}}
	limits, err := structpb.NewStruct(map[string]any{"re2.max_program_size.error_level": maxRegexProgram})
	if err != nil {
		return nil, err
	}
	out := &bootstrapv3.Bootstrap{
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{
			{Name: "limits", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: limits}},
		}},
		Node:  &core.Node{Id: b.NodeID, Cluster: b.Cluster, Metadata: metadata},
		Admin: &bootstrapv3.Admin{Address: socket(b.Admin)},
		BootstrapExtensions: []*core.TypedExtensionConfig{
			{Name: "envoy.bootstrap.internal_listener", TypedConfig: p.pack(&internal.InternalListener{})},
		},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: &core.ApiConfigSource{
				ApiType: core.ApiConfigSource_DELTA_GRPC, TransportApiVersion: core.ApiVersion_V3, SetNodeOnFirstMessageOnly: true, GrpcServices: overGRPC,
			},
			CdsConfig: ads, LdsConfig: ads,
		},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Clusters: []*cluster.Cluster{
				p.grpcCluster(discoveryCluster, b.Socket), p.grpcCluster(secretsCluster, b.Socket),
				{Name: adminCluster, ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_STATIC}, LoadAssignment: endpoints(adminCluster, socket(b.Admin))},
			},
		},
	}
	if b.Readiness.IsValid() {
		out.StaticResources.Listeners = append(out.StaticResources.Listeners, p.page("readiness", b.Readiness, map[string]string{"/healthz/ready": "/ready"}))
	}
	if b.Metrics.IsValid() {
		out.StaticResources.Listeners = append(out.StaticResources.Listeners,
			p.page("metrics", b.Metrics, map[string]string{"/metrics": "/stats/prometheus", "/stats/prometheus": "/stats/prometheus"}))
	}
	if p.err != nil {
		return nil, fmt.Errorf("sds: bootstrap: %w", p.err)
	}
	return protojson.MarshalOptions{Multiline: true}.Marshal(out)
}

// packer packs messages and keeps the first error.
type packer struct{ err error }

func (p *packer) pack(m proto.Message) *anypb.Any {
	packed, err := anypb.New(m)
	if err != nil && p.err == nil {
		p.err = err
	}
	return packed
}

// grpcCluster is a server on a Unix socket.
func (p *packer) grpcCluster(name, path string) *cluster.Cluster {
	pipe := &core.Address{Address: &core.Address_Pipe{Pipe: &core.Pipe{Path: path}}}
	options := &http.HttpProtocolOptions{UpstreamProtocolOptions: &http.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &http.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &http.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &core.Http2ProtocolOptions{}},
		},
	}}
	return &cluster.Cluster{
		Name: name, ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_STATIC}, ConnectTimeout: durationpb.New(time.Second),
		LoadAssignment:                endpoints(name, pipe),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": p.pack(options)},
	}
}

// page is a listener that passes some paths on to Envoy's admin page, under
// others, and answers 404 to the rest.
func (p *packer) page(name string, at netip.AddrPort, paths map[string]string) *listener.Listener {
	host := &route.VirtualHost{Name: name, Domains: []string{"*"}}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		host.Routes = append(host.Routes, &route.Route{
			Match: &route.RouteMatch{PathSpecifier: &route.RouteMatch_Path{Path: path}},
			Action: &route.Route_Route{Route: &route.RouteAction{
				ClusterSpecifier: &route.RouteAction_Cluster{Cluster: adminCluster}, PrefixRewrite: paths[path],
			}},
		})
	}
	manager := &hcm.HttpConnectionManager{
		StatPrefix:     name,
		RouteSpecifier: &hcm.HttpConnectionManager_RouteConfig{RouteConfig: &route.RouteConfiguration{Name: name, VirtualHosts: []*route.VirtualHost{host}}},
		HttpFilters: []*hcm.HttpFilter{{Name: "envoy.filters.http.router",
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: p.pack(&router.Router{})}}},
	}
	return &listener.Listener{Name: name, Address: socket(at), FilterChains: []*listener.FilterChain{{Filters: []*listener.Filter{{
		Name: "envoy.filters.network.http_connection_manager", ConfigType: &listener.Filter_TypedConfig{TypedConfig: p.pack(manager)},
	}}}}}
}

func socket(a netip.AddrPort) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(a.Port())},
		Ipv4Compat: a.Addr() == netip.IPv6Unspecified(),
	}}}
}

func endpoints(name string, a *core.Address) *endpoint.ClusterLoadAssignment {
	return &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{{LbEndpoints: []*endpoint.LbEndpoint{{
		HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: a}},
	}}}}}
}
