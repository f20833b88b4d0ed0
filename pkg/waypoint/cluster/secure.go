package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/strict"
)

// Names by which istiod asks its agent for files and for the system's roots.
const (
	fileRootPrefix = "file-root:"
	fileCertPrefix = "file-cert:"
	systemRoots    = fileRootPrefix + "system"
)

// secure is a compiled UpstreamTlsContext.
type secure struct {
	sni               string
	hostSNI, namesSNI bool // the host's name; the request's
	checkSNI          bool // the certificate must be for the SNI
	low, high         uint16
	alpn              []string
	suites            []uint16
	certificate       string           // SDS name, or ""
	own               *tls.Certificate // inline, or nil
	roots             string           // SDS name, or ""
	pool              *x509.CertPool   // inline, or nil
	verify            bool             // there is a trusted CA
	sans              []sanMatcher
	hashes            [][]byte // SHA-256 of certificates
}

// only refuses set fields of a message that are not in names: what is not enforced
// must not seem to be.
func only(m proto.Message, names ...protoreflect.Name) error {
	var err error
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(names, f.Name()) {
			err = fmt.Errorf("%s is not supported", f.Name())
		}
		return err == nil
	})
	return err
}

func secureOf(c *tlsv3.UpstreamTlsContext, names *corev3.UpstreamHttpProtocolOptions) (*secure, error) {
	if err := strict.Check(c); err != nil {
		return nil, err
	}
	if err := only(c, "common_tls_context", "sni", "auto_host_sni", "auto_sni_san_validation", "max_session_keys", "enforce_rsa_key_usage"); err != nil {
		return nil, err
	}
	common := c.GetCommonTlsContext()
	if err := only(common, "tls_params", "tls_certificates", "tls_certificate_sds_secret_configs", "alpn_protocols",
		"validation_context", "validation_context_sds_secret_config", "combined_validation_context"); err != nil {
		return nil, fmt.Errorf("common_tls_context: %w", err)
	}
	s := &secure{sni: c.GetSni(), hostSNI: c.GetAutoHostSni(), namesSNI: names.GetAutoSni(),
		checkSNI: c.GetAutoSniSanValidation() || names.GetAutoSanValidation(), alpn: common.GetAlpnProtocols()}
	if err := s.params(common.GetTlsParams()); err != nil {
		return nil, fmt.Errorf("tls_params: %w", err)
	}
	if err := s.certificates(common); err != nil {
		return nil, err
	}
	switch v := common.GetValidationContextType().(type) {
	case nil:
	case *tlsv3.CommonTlsContext_ValidationContext:
		if err := s.validation(v.ValidationContext); err != nil {
			return nil, fmt.Errorf("validation_context: %w", err)
		}
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		s.roots, s.verify = v.ValidationContextSdsSecretConfig.GetName(), true
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		if err := only(v.CombinedValidationContext, "default_validation_context", "validation_context_sds_secret_config"); err != nil {
			return nil, fmt.Errorf("combined_validation_context: %w", err)
		}
		if err := s.validation(v.CombinedValidationContext.GetDefaultValidationContext()); err != nil {
			return nil, fmt.Errorf("default_validation_context: %w", err)
		}
		s.roots, s.verify = v.CombinedValidationContext.GetValidationContextSdsSecretConfig().GetName(), true
	}
	if !s.verify && (len(s.sans) > 0 || s.checkSNI) {
		return nil, errors.New("names are matched but no trusted CA is given: anybody could answer")
	}
	return s, nil
}

func (s *secure) params(p *tlsv3.TlsParameters) error {
	if err := only(p, "tls_minimum_protocol_version", "tls_maximum_protocol_version", "cipher_suites", "ecdh_curves"); err != nil {
		return err
	}
	version := func(v tlsv3.TlsParameters_TlsProtocol, unset uint16) (uint16, error) {
		switch v {
		case tlsv3.TlsParameters_TLS_AUTO:
			return unset, nil
		case tlsv3.TlsParameters_TLSv1_2:
			return tls.VersionTLS12, nil
		case tlsv3.TlsParameters_TLSv1_3:
			return tls.VersionTLS13, nil
		}
		return 0, fmt.Errorf("%v is not supported: TLS 1.2 is the least", v)
	}
	var err error
	if s.low, err = version(p.GetTlsMinimumProtocolVersion(), tls.VersionTLS12); err != nil {
		return err
	}
	if s.high, err = version(p.GetTlsMaximumProtocolVersion(), tls.VersionTLS13); err != nil {
		return err
	}
	for _, list := range p.GetCipherSuites() {
		for name := range strings.SplitSeq(strings.Trim(list, "[]"), "|") {
			id, ok := suites[name]
			if !ok {
				return fmt.Errorf("cipher suite %q is not supported", name)
			}
			s.suites = append(s.suites, id)
		}
	}
	return nil
}

// suites are those of TLS 1.2 by OpenSSL's names. Others are not safe.
var suites = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256": tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384": tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305": tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

func (s *secure) certificates(common *tlsv3.CommonTlsContext) error {
	sds := common.GetTlsCertificateSdsSecretConfigs()
	if len(sds)+len(common.GetTlsCertificates()) > 1 {
		return errors.New("more than one client certificate")
	}
	if len(sds) == 1 {
		s.certificate = sds[0].GetName()
		return nil
	}
	for _, c := range common.GetTlsCertificates() {
		if err := only(c, "certificate_chain", "private_key"); err != nil {
			return fmt.Errorf("tls_certificates: %w", err)
		}
		chain, err := dataOf(c.GetCertificateChain())
		if err != nil {
			return fmt.Errorf("tls_certificates.certificate_chain: %w", err)
		}
		key, err := dataOf(c.GetPrivateKey())
		if err != nil {
			return fmt.Errorf("tls_certificates.private_key: %w", err)
		}
		pair, err := tls.X509KeyPair(chain, key)
		if err != nil {
			return fmt.Errorf("tls_certificates: %w", err)
		}
		s.own = &pair
	}
	return nil
}

func (s *secure) validation(v *tlsv3.CertificateValidationContext) error {
	if err := only(v, "trusted_ca", "system_root_certs", "match_typed_subject_alt_names", "match_subject_alt_names", "verify_certificate_hash", "trust_chain_verification"); err != nil {
		return err
	}
	if v.GetTrustChainVerification() != tlsv3.CertificateValidationContext_VERIFY_TRUST_CHAIN {
		return errors.New("trust_chain_verification ACCEPT_UNTRUSTED is not supported")
	}
	switch {
	// Where both are given, the file is for an Envoy, which does not know the other.
	case v.GetSystemRootCerts() != nil:
		s.roots, s.verify = systemRoots, true
	case v.GetTrustedCa() != nil:
		pem, err := dataOf(v.GetTrustedCa())
		if err != nil {
			return fmt.Errorf("trusted_ca: %w", err)
		}
		s.pool, s.verify = x509.NewCertPool(), true
		if !s.pool.AppendCertsFromPEM(pem) {
			return errors.New("trusted_ca: no certificate in it")
		}
	}
	for _, h := range v.GetVerifyCertificateHash() {
		sum, err := hex.DecodeString(strings.ReplaceAll(h, ":", ""))
		if err != nil || len(sum) != sha256.Size {
			return fmt.Errorf("verify_certificate_hash: %q is not a SHA-256 in hex", h)
		}
		s.hashes = append(s.hashes, sum)
	}
	return s.matchers(v)
}

func dataOf(d *corev3.DataSource) ([]byte, error) {
	switch s := d.GetSpecifier().(type) {
	case *corev3.DataSource_InlineBytes:
		return s.InlineBytes, nil
	case *corev3.DataSource_InlineString:
		return []byte(s.InlineString), nil
	case *corev3.DataSource_Filename:
		return os.ReadFile(s.Filename)
	case *corev3.DataSource_EnvironmentVariable:
		return []byte(os.Getenv(s.EnvironmentVariable)), nil
	}
	return nil, errors.New("no source")
}

// identities are the SPIFFE ids that the context allows, those by their beginning
// with "*" at the end.
func (s *secure) identities() (out []string) {
	for _, m := range s.sans {
		switch uri := m.kind == tlsv3.SubjectAltNameMatcher_URI || m.kind == tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED; {
		case uri && m.exact != "":
			out = append(out, m.exact)
		case uri && m.prefix != "":
			out = append(out, m.prefix+"*")
		}
	}
	slices.Sort(out)
	return out
}

// secureConn is TLS over a connection that is no socket.
type secureConn struct {
	*tls.Conn
	under codec.Conn
}

// Abort ends the connection below abruptly.
func (c *secureConn) Abort() { c.under.Abort() }

// handshake begins TLS with a host.
func (s *secure) handshake(ctx context.Context, raw codec.Conn, h *Host, requested string, p protocol) (codec.Conn, *tls.ConnectionState, error) {
	config, err := s.config(h, requested, p)
	if err != nil {
		return nil, nil, err
	}
	socket, isSocket := raw.(codec.TCPConn)
	under := net.Conn(raw)
	if isSocket {
		under = socket.TCPConn
	}
	conn := tls.Client(under, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, nil, fmt.Errorf("TLS handshake: %w", err)
	}
	state := conn.ConnectionState()
	if isSocket {
		return codec.TLSConn{Conn: conn}, &state, nil
	}
	return &secureConn{conn, raw}, &state, nil
}

func (s *secure) config(h *Host, requested string, p protocol) (*tls.Config, error) {
	m := h.cluster.manager
	config := &tls.Config{MinVersion: s.low, MaxVersion: s.high, NextProtos: s.alpn, CipherSuites: s.suites, SessionTicketsDisabled: true, ServerName: s.sni,
		InsecureSkipVerify: true} //nolint:gosec // VerifyConnection does it: roots, then the names that are configured
	switch {
	case s.hostSNI && h.Hostname != "":
		config.ServerName = h.Hostname
	case s.namesSNI && h.cluster.snap.Load().spec.discovery == forward:
		config.ServerName = h.Hostname
	case s.namesSNI && requested != "":
		config.ServerName = strings.Clone(requested) // the connection keeps it
	}
	if len(config.NextProtos) == 0 {
		switch p {
		case byALPN:
			config.NextProtos = []string{"h2", "http/1.1"}
		case http2:
			config.NextProtos = []string{"h2"}
		case http1, asDownstream:
		}
	}
	if s.certificate != "" || s.own != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.certificate(s) }
	}
	if !s.verify && len(s.hashes) == 0 {
		return config, nil // as configured: encrypted, not authenticated
	}
	var roots *x509.CertPool
	if s.verify {
		var err error
		if roots, err = m.roots(s); err != nil {
			return nil, err
		}
	}
	name := config.ServerName
	config.VerifyConnection = func(state tls.ConnectionState) error { return s.check(state, roots, name) }
	return config, nil
}

// check is who answers: a chain to the roots, and one of the names.
func (s *secure) check(state tls.ConnectionState, roots *x509.CertPool, name string) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server showed no certificate")
	}
	leaf := state.PeerCertificates[0]
	if roots != nil {
		between := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			between.AddCert(c)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
			return err
		}
	}
	if len(s.hashes) > 0 {
		sum := sha256.Sum256(leaf.Raw)
		if !slices.ContainsFunc(s.hashes, func(h []byte) bool { return bytes.Equal(h, sum[:]) }) {
			return errors.New("the certificate is not one of verify_certificate_hash")
		}
	}
	if s.checkSNI {
		if err := leaf.VerifyHostname(name); name == "" || err != nil {
			return fmt.Errorf("the certificate is not for the SNI %q: %w", name, err)
		}
	}
	if len(s.sans) > 0 && !slices.ContainsFunc(s.sans, func(m sanMatcher) bool { return m.match(leaf) }) {
		return fmt.Errorf("none of the certificate's names is expected: %s", sansOf(leaf))
	}
	return nil
}

func (m *Manager) certificate(s *secure) (*tls.Certificate, error) {
	if s.own != nil {
		return s.own, nil
	}
	if files, ok := strings.CutPrefix(s.certificate, fileCertPrefix); ok {
		chain, key, _ := strings.Cut(files, "~")
		pair, err := tls.LoadX509KeyPair(chain, key)
		return &pair, err
	}
	if m.o.Secrets == nil {
		return nil, fmt.Errorf("secret %q: there is no source of secrets", s.certificate)
	}
	return m.o.Secrets.Certificate(s.certificate)
}

func (m *Manager) roots(s *secure) (*x509.CertPool, error) {
	switch file, isFile := strings.CutPrefix(s.roots, fileRootPrefix); {
	case s.roots == "":
		return s.pool, nil
	case s.roots == systemRoots:
		return x509.SystemCertPool()
	case isFile:
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in it", file)
		}
		return pool, nil
	case m.o.Secrets == nil:
		return nil, fmt.Errorf("secret %q: there is no source of secrets", s.roots)
	}
	return m.o.Secrets.Roots(s.roots)
}
