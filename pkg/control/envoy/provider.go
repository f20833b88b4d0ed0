package envoy

import (
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/structpb"
	meshapi "istio.io/api/mesh/v1alpha1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// ProviderCluster is the cluster of a service that an extension provider of the
// mesh names, such as a collector of logs.
func ProviderCluster(port uint32, hostname string) string {
	return fmt.Sprintf("outbound|%d||%s", port, hostname)
}

// providers makes the clusters of the mesh's extension providers. Those that are
// no services of the mesh have none.
func (g *generator) providers() {
	for _, p := range g.m.Objects.Mesh.GetExtensionProviders() {
		host, port := providerService(p)
		s := g.m.ServiceByHost(host, g.w.Key.Namespace)
		if s == nil {
			continue
		}
		if of := s.Port(port); of != nil {
			g.provider(s, of)
		}
	}
}

// providerService is what a provider calls.
func providerService(p *meshapi.MeshConfig_ExtensionProvider) (host string, port uint32) {
	switch of := p.Provider.(type) {
	case *meshapi.MeshConfig_ExtensionProvider_EnvoyOtelAls:
		return of.EnvoyOtelAls.Service, of.EnvoyOtelAls.Port
	case *meshapi.MeshConfig_ExtensionProvider_EnvoyHttpAls:
		return of.EnvoyHttpAls.Service, of.EnvoyHttpAls.Port
	case *meshapi.MeshConfig_ExtensionProvider_EnvoyTcpAls:
		return of.EnvoyTcpAls.Service, of.EnvoyTcpAls.Port
	case *meshapi.MeshConfig_ExtensionProvider_Opentelemetry:
		return of.Opentelemetry.Service, of.Opentelemetry.Port
	case *meshapi.MeshConfig_ExtensionProvider_EnvoyExtAuthzGrpc:
		return of.EnvoyExtAuthzGrpc.Service, of.EnvoyExtAuthzGrpc.Port
	case *meshapi.MeshConfig_ExtensionProvider_EnvoyExtAuthzHttp:
		return of.EnvoyExtAuthzHttp.Service, of.EnvoyExtAuthzHttp.Port
	case *meshapi.MeshConfig_ExtensionProvider_Zipkin:
		return of.Zipkin.Service, of.Zipkin.Port
	}
	return "", 0
}

func (g *generator) provider(s *model.Service, port *model.Port) {
	name := ProviderCluster(port.Number, s.Hostname)
	if g.out.Clusters[name] != nil {
		return
	}
	policy := g.rules.For(s).Policy(port.Number, "")
	c := &clusterv3.Cluster{Name: name, AltStatName: g.statName(name), Metadata: g.clusterMetadata(s, "", nil)}
	g.protocolOptions(c, g.httpOptions(HTTP, port.Protocol, policy))
	namespace := g.metadataNamespace()
	pass := []*internalv3.InternalUpstreamTransport_MetadataValueSource{ofHost(originalDst), ofCluster(namespace), ofHost(namespace)}
	raw := g.socket("envoy.transport_sockets.raw_buffer", &rawbufferv3.RawBuffer{})
	c.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{{
		Name: "hbone", Match: matchField("tunnel", "http"), TransportSocket: g.internalSocketOf("envoy.transport_sockets.internal_upstream", raw, pass),
	}}
	if g.o.IstioExtensions {
		//nolint:staticcheck // istiod's form
		c.Filters = []*clusterv3.Filter{{Name: "istio.metadata_exchange", TypedConfig: g.pack(g.exchange())}}
		c.TransportSocketMatches = append(c.TransportSocketMatches, &clusterv3.Cluster_TransportSocketMatch{
			Name: "tlsMode-istio", Match: matchField("tlsMode", "istio"), TransportSocket: g.sidecarTLS(s, port)})
	}
	c.TransportSocketMatches = append(c.TransportSocketMatches, &clusterv3.Cluster_TransportSocketMatch{
		Name: "tlsMode-disabled", Match: &structpb.Struct{}, TransportSocket: raw})
	g.discover(c, s, port, nil, policy)
	for _, l := range g.out.Endpoints[name].GetEndpoints() {
		for _, e := range l.LbEndpoints {
			if e.GetEndpoint().GetAddress().GetEnvoyInternalAddress() != nil {
				e.Metadata.FilterMetadata["envoy.transport_socket_match"] = matchField("tunnel", "http")
			}
		}
	}
}

func matchField(key, value string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{key: structpb.NewStringValue(value)}}
}

// sidecarTLS is the mutual TLS of Istio's sidecars, which a client of Istio's
// expects to be offered.
func (g *generator) sidecarTLS(s *model.Service, port *model.Port) *corev3.TransportSocket {
	v := &tlsv3.CertificateValidationContext{}
	var names []string
	for _, e := range g.m.EndpointsOf(s) {
		names = append(names, spiffe(g.m.TrustDomain, e))
	}
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		//nolint:staticcheck // istiod's form
		v.MatchSubjectAltNames = append(v.MatchSubjectAltNames, exact(n))
	}
	alpn := []string{"istio-peer-exchange", "istio"}
	if port.Protocol == model.GRPC || port.Protocol == model.HTTP2 {
		alpn = append(alpn, "h2")
	}
	return g.socket("envoy.transport_sockets.tls", &tlsv3.UpstreamTlsContext{
		Sni: fmt.Sprintf("outbound_.%d_._.%s", port.Number, s.Hostname),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			AlpnProtocols:                  alpn,
			TlsParams:                      &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{secret(secretDefault)},
			ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: v, ValidationContextSdsSecretConfig: secret(secretRoots)}},
		}})
}
