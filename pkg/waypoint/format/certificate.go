package format

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

func init() {
	for name, get := range map[string]func(*tls.ConnectionState) string{
		"DOWNSTREAM_TLS_VERSION":  func(s *tls.ConnectionState) string { return tlsVersion(s.Version) },
		"DOWNSTREAM_TLS_CIPHER":   func(s *tls.ConnectionState) string { return tls.CipherSuiteName(s.CipherSuite) },
		"DOWNSTREAM_PEER_SUBJECT": peer(func(c *x509.Certificate) string { return c.Subject.String() }),
		"DOWNSTREAM_PEER_ISSUER":  peer(func(c *x509.Certificate) string { return c.Issuer.String() }),
		"DOWNSTREAM_PEER_SERIAL":  peer(func(c *x509.Certificate) string { return hex.EncodeToString(c.SerialNumber.Bytes()) }),
		"DOWNSTREAM_PEER_DNS_SAN": peer(func(c *x509.Certificate) string { return strings.Join(c.DNSNames, ",") }),
		"DOWNSTREAM_PEER_FINGERPRINT_256": peer(func(c *x509.Certificate) string {
			sum := sha256.Sum256(c.Raw)
			return hex.EncodeToString(sum[:])
		}),
		"DOWNSTREAM_PEER_CERT_V_START": peer(func(c *x509.Certificate) string {
			return string(appendMillis(nil, c.NotBefore.UTC()))
		}),
		"DOWNSTREAM_PEER_CERT_V_END": peer(func(c *x509.Certificate) string {
			return string(appendMillis(nil, c.NotAfter.UTC()))
		}),
	} {
		plainCommands[name] = conn(func(c *streaminfo.Connection) string {
			if c.TLS == nil {
				return ""
			}
			return get(c.TLS)
		})
	}
}

// peer reads the client's certificate.
func peer(get func(*x509.Certificate) string) func(*tls.ConnectionState) string {
	return func(s *tls.ConnectionState) string {
		if len(s.PeerCertificates) == 0 {
			return ""
		}
		return get(s.PeerCertificates[0])
	}
}

func tlsVersion(v uint16) string {
	switch v {
	case tls.VersionTLS13:
		return "TLSv1.3"
	case tls.VersionTLS12:
		return "TLSv1.2"
	}
	return ""
}
