package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

const (
	rootLife = 10 * 365 * 24 * time.Hour
	// DefaultTTL and MaxTTL are a workload certificate's life: unless asked, and at most.
	// Nothing is revoked, so that is how long what was stolen is good for.
	DefaultTTL = 24 * time.Hour
	MaxTTL     = 24 * time.Hour
	// backdate allows for clocks that differ.
	backdate = 2 * time.Minute
)

// Authority signs. It is never changed after it was made.
type Authority struct {
	key    crypto.Signer
	cert   *x509.Certificate
	chain  []*x509.Certificate // cert and intermediates up to, not with, a root; empty if cert is the root
	roots  []*x509.Certificate
	maxTTL time.Duration
}

// check: the key is the certificate's, which may sign and chains to a root.
func (a *Authority) check() error {
	public, ok := a.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(a.key.Public()) {
		return errors.New("the key is not that of the certificate")
	}
	if !a.cert.IsCA {
		return fmt.Errorf("the certificate of %q is not a CA's", a.cert.Subject)
	}
	if err := a.verify(a.roots); err != nil {
		return fmt.Errorf("the certificate of %q chains to none of the roots: %w", a.cert.Subject, err)
	}
	return nil
}

// verify: who trusts roots takes what a signs.
func (a *Authority) verify(roots []*x509.Certificate) error {
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, r := range roots {
		options.Roots.AddCert(r)
	}
	for _, c := range a.chain {
		options.Intermediates.AddCert(c)
	}
	_, err := a.cert.Verify(options)
	return err
}

// Equal reports whether both sign with one certificate, chain and key, and publish the
// same roots.
func (a *Authority) Equal(b *Authority) bool {
	return a.cert.Equal(b.cert) && slices.EqualFunc(a.chain, b.chain, (*x509.Certificate).Equal) && slices.EqualFunc(a.roots, b.roots, (*x509.Certificate).Equal)
}

// with is a that publishes more roots beside its own.
func (a *Authority) with(roots []*x509.Certificate) *Authority {
	more := *a
	more.roots = distinct(slices.Concat(a.roots, roots))
	return &more
}

// RootsPEM is what peers must trust.
func (a *Authority) RootsPEM() []byte {
	var out []byte
	for _, r := range a.roots {
		out = append(out, encode(r)...)
	}
	return out
}

func encode(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Sign issues a certificate for id to the key of request, of which nothing else
// is taken. It returns leaf and intermediates, one PEM each, and last all the roots in
// one, as istiod does.
func (a *Authority) Sign(request *x509.CertificateRequest, id mesh.Identity, ttl time.Duration) (chain []string, leaf *x509.Certificate, err error) {
	if err := checkKey(request.PublicKey); err != nil {
		return nil, nil, err
	}
	uri, err := url.Parse(id.String())
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		URIs:     []*url.URL{uri},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	leaf, err = a.issue(template, request.PublicKey, ttl)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range append([]*x509.Certificate{leaf}, a.chain...) {
		chain = append(chain, string(encode(c)))
	}
	return append(chain, string(a.RootsPEM())), leaf, nil
}

// issue signs template. The subject is empty, so the names are critical (RFC
// 5280 section 4.2.1.6), which crypto/x509 sees to.
func (a *Authority) issue(template *x509.Certificate, public crypto.PublicKey, ttl time.Duration) (*x509.Certificate, error) {
	if ttl <= 0 {
		ttl = DefaultTTL
	}
	now := time.Now()
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(min(ttl, a.maxTTL))
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	var err error
	if template.SerialNumber, err = newSerial(); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return x509.ParseCertificate(der)
}

// SignServer issues the control plane's own certificate, for DNS names and addresses.
func (a *Authority) SignServer(public crypto.PublicKey, names []string, ips []net.IP, ttl time.Duration) ([][]byte, *x509.Certificate, error) {
	leaf, err := a.issue(&x509.Certificate{
		DNSNames: names, IPAddresses: ips, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, public, ttl)
	if err != nil {
		return nil, nil, err
	}
	raw := [][]byte{leaf.Raw}
	for _, c := range a.chain {
		raw = append(raw, c.Raw)
	}
	return raw, leaf, nil
}

func checkKey(public any) error {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return fmt.Errorf("key on curve %s: P-256 and P-384 are supported", key.Curve.Params().Name)
		}
		return nil
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 2048 || bits > 4096 {
			return fmt.Errorf("RSA key of %d bits: 2048 to 4096 are supported", bits)
		}
		return nil
	}
	return fmt.Errorf("key of type %T: EC and RSA are supported", public)
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}
