package identity

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// base is what both ends of a tunnel have in common: TLS 1.3, h2, the
// post-quantum exchange first, full records, no resumption (a resumed session
// would not look at identity and roots again).
func base() *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{"h2"},
		CurvePreferences:            []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
}

// ClientTLS is the configuration of a tunnel that source opens. The server must
// prove one of expected; no server name is sent.
func (m *Manager) ClientTLS(source mesh.Identity, expected []string) *tls.Config {
	c := base()
	// The chain and the SPIFFE ID are verified below; there is no DNS name to compare.
	c.InsecureSkipVerify = true //nolint:gosec // VerifyConnection does the verification
	c.VerifyConnection = func(state tls.ConnectionState) error {
		// What is trusted may come with the first certificate, which the next message of the
		// handshake needs anyway.
		if _, err := m.Get(m.ctx, source); err != nil {
			return err
		}
		id, err := m.verifier.peer(state.PeerCertificates)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(expected, func(e string) bool { return matches(id.String(), e) }) {
			return fmt.Errorf("%w: it is %s, expected %v", ErrUnexpectedPeer, id, expected)
		}
		return nil
	}
	c.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return m.tlsCertificate(info.Context(), source)
	}
	return c
}

// matches: an expected id is one, or all that begin as it does where it ends in "*".
func matches(id, expected string) bool {
	prefix, any := strings.CutSuffix(expected, "*")
	return id == expected || any && strings.HasPrefix(id, prefix)
}

// ServerTLS is the configuration of the tunnels that id takes. The client must
// have a certificate of id's trust domain.
func (m *Manager) ServerTLS(id mesh.Identity) *tls.Config {
	c := base()
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = func(state tls.ConnectionState) error {
		peer, err := m.verifier.peer(state.PeerCertificates)
		if err != nil {
			return err
		}
		if peer.TrustDomain != id.TrustDomain {
			return fmt.Errorf("%w: %s", ErrTrustDomain, peer)
		}
		return nil
	}
	c.GetCertificate = func(info *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return m.tlsCertificate(info.Context(), id)
	}
	return c
}

func (m *Manager) tlsCertificate(ctx context.Context, id mesh.Identity) (*tls.Certificate, error) {
	c, err := m.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return &c.TLS, nil
}
