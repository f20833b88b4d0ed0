package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Certificate is an identity's certificate with its key. It is never changed.
type Certificate struct {
	Identity mesh.Identity
	// TLS has the leaf and the intermediates; roots are not sent to peers.
	TLS tls.Certificate
	// Chain is the leaf and the intermediates; Roots are what the CA said to trust.
	Chain, Roots []*x509.Certificate
	// RenewAt is when the next one should be asked for: about half-life.
	RenewAt time.Time
}

// Leaf is the certificate itself.
func (c *Certificate) Leaf() *x509.Certificate { return c.Chain[0] }

// Expired reports whether the certificate has ended at t.
func (c *Certificate) Expired(t time.Time) bool { return !t.Before(c.Leaf().NotAfter) }

// ChainPEM is the leaf and the intermediates.
func (c *Certificate) ChainPEM() []byte { return encodeCertificates(c.Chain) }

// KeyPEM is the private key, PKCS #8. It must not reach a disk or another host.
func (c *Certificate) KeyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.TLS.PrivateKey)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// newCertificate checks what the CA answered: that the leaf is for key and id,
// and that it chains to a root in the answer or in trusted.
func newCertificate(id mesh.Identity, key *ecdsa.PrivateKey, answer []byte, trusted []*x509.Certificate, now time.Time) (*Certificate, error) {
	all, err := parseCertificates(answer)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", id, err)
	}
	c := &Certificate{Identity: id}
	for i, cert := range all {
		if i > 0 && isSelfSigned(cert) {
			c.Roots = append(c.Roots, cert)
			continue
		}
		c.Chain = append(c.Chain, cert)
	}
	leaf := c.Leaf()
	if public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("certificate of %s: the CA signed another key", id)
	}
	if got, err := identityOf(leaf); err != nil || got != id {
		return nil, fmt.Errorf("certificate of %s: the CA signed %v (%w)", id, leaf.URIs, errors.Join(err, errOtherIdentity))
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range append(trusted, c.Roots...) {
		roots.AddCert(root)
	}
	for _, cert := range c.Chain[1:] {
		intermediates.AddCert(cert)
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := leaf.Verify(options); err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", id, err)
	}
	for _, cert := range c.Chain {
		c.TLS.Certificate = append(c.TLS.Certificate, cert.Raw)
	}
	c.TLS.PrivateKey, c.TLS.Leaf = key, leaf
	return c, nil
}

var errOtherIdentity = errors.New("another identity")

// renewAtHalf sets RenewAt to half of the certificate's life since from.
func (c *Certificate) renewAtHalf(from time.Time) {
	c.RenewAt = renewal(from, c.Leaf().NotAfter, rand.Float64()) //nolint:gosec // spreads load, guards nothing
}

// renewal is half-life, spread by up to a tenth of the life before it, so that
// certificates issued together are not renewed together.
func renewal(from, to time.Time, spread float64) time.Time {
	life := to.Sub(from)
	return from.Add(life/2 - time.Duration(spread*float64(life)/10))
}

func isSelfSigned(c *x509.Certificate) bool {
	return c.IsCA && bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil
}

// maxChain bounds what is read of a certificate chain or bundle.
const maxChain = 64

func parseCertificates(bundle []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if out = append(out, c); len(out) > maxChain {
			return nil, fmt.Errorf("more than %d certificates", maxChain)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return out, nil
}

// identityOf reads the one SPIFFE ID of a certificate.
func identityOf(c *x509.Certificate) (mesh.Identity, error) {
	var found mesh.Identity
	for _, uri := range c.URIs {
		if uri.Scheme != "spiffe" {
			continue
		}
		if !found.IsZero() {
			return mesh.Identity{}, errors.New("more than one SPIFFE ID")
		}
		id, err := mesh.ParseIdentity(uri.String())
		if err != nil {
			return mesh.Identity{}, err
		}
		found = id
	}
	if found.IsZero() {
		return mesh.Identity{}, errors.New("no SPIFFE ID")
	}
	return found, nil
}

func encodeCertificates(certs []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer does not fail
	}
	return out.Bytes()
}
