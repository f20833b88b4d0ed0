package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	"google.golang.org/protobuf/proto"
)

const (
	socketInternal  = "internal_upstream"
	socketRawBuffer = "raw_buffer"
	filterTCPProxy  = "envoy.filters.network.tcp_proxy"
)

func (g *generator) socket(name string, config proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: name, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: g.pack(config)}}
}

func (g *generator) rawBuffer() *corev3.TransportSocket {
	return g.socket(socketRawBuffer, &rawbufferv3.RawBuffer{})
}

// internalSocket takes filter state and endpoints' metadata to an internal
// listener. Inner is what is spoken over it, nil for plain bytes.
func (g *generator) internalSocket(inner *corev3.TransportSocket, hosts bool) *corev3.TransportSocket {
	if inner == nil && hosts {
		config := g.once("plain "+socketInternal, func() proto.Message {
			return &internalv3.InternalUpstreamTransport{TransportSocket: g.rawBuffer(),
				PassthroughMetadata: []*internalv3.InternalUpstreamTransport_MetadataValueSource{ofHost(originalDst), ofHost(g.metadataNamespace())}}
		})
		return &corev3.TransportSocket{Name: socketInternal, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: config}}
	}
	if inner == nil {
		inner = g.rawBuffer()
	}
	var pass []*internalv3.InternalUpstreamTransport_MetadataValueSource
	if hosts {
		pass = []*internalv3.InternalUpstreamTransport_MetadataValueSource{ofHost(originalDst), ofHost(g.metadataNamespace())}
	}
	return g.internalSocketOf(socketInternal, inner, pass)
}

func (g *generator) internalSocketOf(name string, inner *corev3.TransportSocket, pass []*internalv3.InternalUpstreamTransport_MetadataValueSource) *corev3.TransportSocket {
	return g.socket(name, &internalv3.InternalUpstreamTransport{PassthroughMetadata: pass, TransportSocket: inner})
}

func ofHost(name string) *internalv3.InternalUpstreamTransport_MetadataValueSource {
	return &internalv3.InternalUpstreamTransport_MetadataValueSource{Name: name,
		Kind: &metadatav3.MetadataKind{Kind: &metadatav3.MetadataKind_Host_{Host: &metadatav3.MetadataKind_Host{}}}}
}

func ofCluster(name string) *internalv3.InternalUpstreamTransport_MetadataValueSource {
	return &internalv3.InternalUpstreamTransport_MetadataValueSource{Name: name,
		Kind: &metadatav3.MetadataKind{Kind: &metadatav3.MetadataKind_Cluster_{Cluster: &metadatav3.MetadataKind_Cluster{}}}}
}

// internalAddress is an internal listener; ids tell its endpoints apart.
func internalAddress(listener, id string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
		AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: listener}, EndpointId: id}}}
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}}}
}

func (g *generator) networkFilter(name string, config proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: g.pack(config)}}
}

func (g *generator) httpFilter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: g.pack(config)}}
}
