package waypoint

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/strict"
)

// downstream is the TLS context of a listener's first chain, or nil: plain.
func downstream(c *listenerv3.Listener) (*tlsv3.DownstreamTlsContext, error) {
	if len(c.GetFilterChains()) == 0 {
		return nil, nil
	}
	ts := c.GetFilterChains()[0].GetTransportSocket()
	if ts == nil {
		return nil, nil
	}
	ctx := &tlsv3.DownstreamTlsContext{}
	if !ts.GetTypedConfig().MessageIs(ctx) {
		return nil, fmt.Errorf("transport_socket %s is not supported", ts.GetName())
	}
	if err := ts.GetTypedConfig().UnmarshalTo(ctx); err != nil {
		return nil, fmt.Errorf("transport_socket: %w", err)
	}
	if err := strict.Check(ctx); err != nil {
		return nil, fmt.Errorf("transport_socket: %w", err)
	}
	return ctx, nil
}

// tunnelTLS is the engine's own, with the names that the context allows.
func (e *Engine) tunnelTLS(c *listenerv3.Listener) (*tls.Config, error) {
	ctx, err := downstream(c)
	switch {
	case err != nil:
		return nil, err
	case ctx == nil || !ctx.GetRequireClientCertificate().GetValue():
		return nil, errors.New("transport_socket: tunnels need require_client_certificate")
	}
	match, err := sans(ctx.GetCommonTlsContext())
	if err != nil {
		return nil, fmt.Errorf("transport_socket: %w", err)
	}
	return withSANs(e.o.TunnelTLS, match), nil
}

// withSANs asks, beside what base does, that a certificate has one of the names.
func withSANs(base *tls.Config, match []*matcher.String) *tls.Config {
	if len(match) == 0 {
		return base
	}
	out := base.Clone()
	before := out.VerifyConnection
	out.VerifyConnection = func(s tls.ConnectionState) error {
		if before != nil {
			if err := before(s); err != nil {
				return err
			}
		}
		for _, u := range s.PeerCertificates[0].URIs {
			for _, m := range match {
				if m.Match(u.String()) {
					return nil
				}
			}
		}
		return errors.New("none of the certificate's names is one that may call here")
	}
	return out
}

// sans are the URI names that a validation context allows; none allows all.
func sans(c *tlsv3.CommonTlsContext) ([]*matcher.String, error) {
	v := c.GetValidationContext()
	if v == nil {
		v = c.GetCombinedValidationContext().GetDefaultValidationContext()
	}
	var out []*matcher.String
	for i, m := range v.GetMatchTypedSubjectAltNames() {
		if m.GetSanType() != tlsv3.SubjectAltNameMatcher_URI {
			return nil, fmt.Errorf("match_typed_subject_alt_names[%d]: type %s is not supported", i, m.GetSanType())
		}
		s, err := matcher.NewString(m.GetMatcher())
		if err != nil {
			return nil, fmt.Errorf("match_typed_subject_alt_names[%d]: %w", i, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// serverTLS is what connections of a socket begin with, or nil: plain.
func (e *Engine) serverTLS(c *listenerv3.Listener) (*tls.Config, error) {
	ctx, err := downstream(c)
	if ctx == nil || err != nil {
		return nil, err
	}
	common := ctx.GetCommonTlsContext()
	out := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: common.GetAlpnProtocols()}
	if out.GetCertificate, err = e.certificates(common); err != nil {
		return nil, fmt.Errorf("transport_socket: %w", err)
	}
	if !ctx.GetRequireClientCertificate().GetValue() {
		return out, nil
	}
	if out.ClientCAs, err = e.roots(common); err != nil {
		return nil, fmt.Errorf("transport_socket: %w", err)
	}
	out.ClientAuth = tls.RequireAndVerifyClientCert
	match, err := sans(common)
	if err != nil {
		return nil, fmt.Errorf("transport_socket: %w", err)
	}
	return withSANs(out, match), nil
}

func (e *Engine) certificates(c *tlsv3.CommonTlsContext) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	if list := c.GetTlsCertificates(); len(list) == 1 {
		cert, err := tls.X509KeyPair(inline(list[0].GetCertificateChain()), inline(list[0].GetPrivateKey()))
		if err != nil {
			return nil, fmt.Errorf("tls_certificates[0]: %w", err)
		}
		return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }, nil
	}
	if list := c.GetTlsCertificateSdsSecretConfigs(); len(list) == 1 && e.o.Secrets != nil {
		name := list[0].GetName()
		return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return e.o.Secrets.Certificate(name) }, nil
	}
	return nil, errors.New("one certificate is needed, inline or by SDS")
}

func (e *Engine) roots(c *tlsv3.CommonTlsContext) (*x509.CertPool, error) {
	if ca := inline(c.GetValidationContext().GetTrustedCa()); len(ca) > 0 {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca) {
			return nil, errors.New("validation_context.trusted_ca: no certificate in it")
		}
		return pool, nil
	}
	name := c.GetValidationContextSdsSecretConfig().GetName()
	if name == "" {
		name = c.GetCombinedValidationContext().GetValidationContextSdsSecretConfig().GetName()
	}
	if name == "" || e.o.Secrets == nil {
		return nil, errors.New("validation_context: no roots to verify clients with")
	}
	return e.o.Secrets.Roots(name)
}

func inline(d *corev3.DataSource) []byte {
	if b := d.GetInlineBytes(); len(b) > 0 {
		return b
	}
	return []byte(d.GetInlineString())
}
