package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// What SDS calls the waypoint's own certificate and the mesh's roots. They are
// served on the waypoint's own machine, at the cluster that the bootstrap names
// sdsCluster: keys never pass through the control plane.
const (
	secretDefault = "default"
	secretRoots   = "ROOTCA"
	sdsCluster    = "sds-grpc"
)

func secret(name string) *tlsv3.SdsSecretConfig {
	c := &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType: corev3.ApiConfigSource_GRPC, TransportApiVersion: corev3.ApiVersion_V3, SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: sdsCluster}}}},
		}},
		ResourceApiVersion: corev3.ApiVersion_V3,
	}}
	if name == secretDefault || name == secretRoots {
		c.SdsConfig.InitialFetchTimeout = &durationpb.Duration{}
	}
	return c
}

// meshTLS is mutual TLS of the mesh, where the peer's identity must be one of the
// matchers.
func meshTLS(peers []*tlsv3.SubjectAltNameMatcher) *tlsv3.CommonTlsContext {
	return &tlsv3.CommonTlsContext{
		AlpnProtocols:                  []string{"h2"},
		TlsParams:                      &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{secret(secretDefault)},
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: peers},
			ValidationContextSdsSecretConfig: secret(secretRoots),
		}},
	}
}

func sanPrefix(prefix string) *tlsv3.SubjectAltNameMatcher {
	return &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}}}
}

func sanExact(name string) *tlsv3.SubjectAltNameMatcher {
	return &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}}}
}

// trustDomains are the mesh's own and those that count as it.
func (g *generator) trustDomains() []string {
	return append([]string{g.m.TrustDomain}, g.m.TrustDomainAliases...)
}

// inMesh matches any identity of the mesh.
func (g *generator) inMesh() []*tlsv3.SubjectAltNameMatcher {
	var out []*tlsv3.SubjectAltNameMatcher
	for _, td := range g.trustDomains() {
		out = append(out, sanPrefix("spiffe://"+td+"/"))
	}
	return out
}
