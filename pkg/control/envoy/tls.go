package envoy

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// transport is what a policy's tls and proxyProtocol put on a connection, inside
// the mesh's tunnel if there is one; nil for nothing. ISTIO_MUTUAL is the tunnel
// itself.
func (g *generator) transport(kind Kind, protocol model.Protocol, p *networkingapi.TrafficPolicy) *corev3.TransportSocket {
	var out *corev3.TransportSocket
	if originates(p.GetTls()) {
		out = g.socket("envoy.transport_sockets.tls", g.clientTLS(kind, protocol, p))
	}
	if pp := p.GetProxyProtocol(); pp != nil {
		inner := out
		if inner == nil {
			inner = g.rawBuffer()
		}
		version := corev3.ProxyProtocolConfig_V1
		if pp.Version == networkingapi.TrafficPolicy_ProxyProtocol_V2 {
			version = corev3.ProxyProtocolConfig_V2
		}
		out = g.socket("envoy.transport_sockets.upstream_proxy_protocol", &proxyprotocolv3.ProxyProtocolUpstreamTransport{
			Config: &corev3.ProxyProtocolConfig{Version: version}, TransportSocket: inner})
	}
	return out
}

func originates(t *networkingapi.ClientTLSSettings) bool {
	return t.GetMode() == networkingapi.ClientTLSSettings_SIMPLE || t.GetMode() == networkingapi.ClientTLSSettings_MUTUAL
}

func (g *generator) clientTLS(kind Kind, protocol model.Protocol, p *networkingapi.TrafficPolicy) *tlsv3.UpstreamTlsContext {
	t := p.GetTls()
	common := &tlsv3.CommonTlsContext{TlsParams: &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3}}
	if kind == HTTP && (protocol == model.HTTP2 || protocol == model.GRPC || g.upgrades(p.GetConnectionPool().GetHttp())) {
		common.AlpnProtocols = []string{"h2"}
	}
	if t.Mode == networkingapi.ClientTLSSettings_MUTUAL {
		g.clientCertificate(common, t)
	}
	if !t.GetInsecureSkipVerify().GetValue() {
		g.verification(common, t)
	}
	return &tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: t.Sni}
}

// clientCertificate is read from files on the waypoint, by its SDS where it is
// Istio's, by Envoy itself elsewhere.
func (g *generator) clientCertificate(c *tlsv3.CommonTlsContext, t *networkingapi.ClientTLSSettings) {
	if g.o.IstioExtensions {
		c.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{secret("file-cert:" + t.ClientCertificate + "~" + t.PrivateKey)}
		return
	}
	c.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: file(t.ClientCertificate), PrivateKey: file(t.PrivateKey)}}
}

func (g *generator) verification(c *tlsv3.CommonTlsContext, t *networkingapi.ClientTLSSettings) {
	v := &tlsv3.CertificateValidationContext{}
	if g.o.IstioExtensions {
		for _, name := range t.SubjectAltNames {
			//nolint:staticcheck // istiod's form
			v.MatchSubjectAltNames = append(v.MatchSubjectAltNames, exact(name))
		}
		roots := "file-root:system"
		if t.CaCertificates != "" {
			roots = "file-root:" + t.CaCertificates
		}
		c.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext: v, ValidationContextSdsSecretConfig: secret(roots)}}
		return
	}
	for _, name := range t.SubjectAltNames {
		kind := tlsv3.SubjectAltNameMatcher_DNS
		if strings.Contains(name, "://") {
			kind = tlsv3.SubjectAltNameMatcher_URI
		}
		v.MatchTypedSubjectAltNames = append(v.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{SanType: kind, Matcher: exact(name)})
	}
	if t.CaCertificates == "" || t.CaCertificates == "system" {
		// Envoy does not act on system_root_certs: without the file it would verify nothing.
		v.SystemRootCerts, v.TrustedCa = &tlsv3.CertificateValidationContext_SystemRootCerts{}, file(systemRoots)
	} else {
		v.TrustedCa = file(t.CaCertificates)
	}
	if t.CaCrl != "" {
		v.Crl = file(t.CaCrl)
	}
	c.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
}

// systemRoots is where distributions, and the images of Envoy, keep the roots of the
// world.
const systemRoots = "/etc/ssl/certs/ca-certificates.crt"

func file(name string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: name}}
}

func exact(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

// withServerName has TLS name the host of each request where the policy names
// none, and the server's certificate be checked for it.
func withServerName(kind Kind, p *networkingapi.TrafficPolicy, o *upstreamsv3.HttpProtocolOptions) *upstreamsv3.HttpProtocolOptions {
	t := p.GetTls()
	if kind != HTTP || !originates(t) || t.GetSni() != "" {
		return o
	}
	if o == nil {
		o = &upstreamsv3.HttpProtocolOptions{UpstreamProtocolOptions: explicit(nil)}
	}
	o.UpstreamHttpProtocolOptions = &corev3.UpstreamHttpProtocolOptions{
		AutoSni: true, AutoSanValidation: !t.GetInsecureSkipVerify().GetValue() && len(t.SubjectAltNames) == 0}
	return o
}
