package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

const (
	rootLife = 10 * 365 * 24 * time.Hour
	// DefaultTTL and MaxTTL are a workload certificate's life: unless asked, and at most.
	DefaultTTL = 24 * time.Hour
	MaxTTL     = 90 * 24 * time.Hour
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

// Files name a plugged-in authority, each in PEM: Istio's cacerts.
type Files struct {
	Cert, Key string // ca-cert.pem, ca-key.pem
	// Chain is the authority's own chain (cert-chain.pem); "" if Cert is a root.
	Chain string
	// Roots is what peers trust (root-cert.pem); several, while one is replaced.
	Roots string
}

// Load reads a plugged-in authority.
func Load(f Files) (*Authority, error) {
	key, err := readKey(f.Key)
	if err != nil {
		return nil, err
	}
	certs, err := readCertificates(f.Cert)
	if err != nil {
		return nil, err
	}
	a := &Authority{key: key, cert: certs[0], maxTTL: MaxTTL}
	if a.roots, err = readCertificates(f.Roots); err != nil {
		return nil, err
	}
	if f.Chain != "" {
		if a.chain, err = readCertificates(f.Chain); err != nil {
			return nil, err
		}
		a.chain = withoutRoots(a.chain)
	}
	if len(a.chain) == 0 && !isRoot(a.cert) {
		a.chain = []*x509.Certificate{a.cert}
	}
	return a, a.check(f.Cert)
}

// Create returns the authority kept in dir, and makes one, with a new root, if
// there is none. The key's file must be readable by its owner alone.
func Create(dir, trustDomain string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("CA directory: %w", err)
	}
	certFile, keyFile := filepath.Join(dir, "root-cert.pem"), filepath.Join(dir, "root-key.pem")
	if _, err := os.Stat(keyFile); errors.Is(err, fs.ErrNotExist) {
		if err := create(certFile, keyFile, trustDomain); err != nil {
			return nil, err
		}
	}
	return Load(Files{Cert: certFile, Key: keyFile, Roots: certFile})
}

func create(certFile, keyFile, trustDomain string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{trustDomain}, CommonName: "Fairlead root " + now.UTC().Format("2006-01-02")},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// The certificate first: a key without one would be taken for complete.
	if err := writeNew(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return err
	}
	return writeNew(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600)
}

func writeNew(path string, b []byte, mode os.FileMode) error {
	if err := os.WriteFile(path+".new", b, mode); err != nil {
		return fmt.Errorf("CA: %w", err)
	}
	return os.Rename(path+".new", path)
}

func readKey(path string) (crypto.Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("CA key %s has mode %04o: others than its owner may read it; chmod 0600 it, and replace it if they have", path, mode)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("CA key: %s is not PEM", path)
	}
	for _, parse := range []func([]byte) (any, error){
		x509.ParsePKCS8PrivateKey,
		func(b []byte) (any, error) { return x509.ParseECPrivateKey(b) },
		func(b []byte) (any, error) { return x509.ParsePKCS1PrivateKey(b) },
	} {
		if key, err := parse(block.Bytes); err == nil {
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
		}
	}
	return nil, fmt.Errorf("CA key: %s holds no EC or RSA key", path)
}

func readCertificates(path string) ([]*x509.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("CA: %s: %w", path, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("CA: %s holds no certificate in PEM", path)
	}
	return out, nil
}

func isRoot(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil
}

func withoutRoots(certs []*x509.Certificate) (out []*x509.Certificate) {
	for _, c := range certs {
		if !isRoot(c) {
			out = append(out, c)
		}
	}
	return out
}

// check: the key is the certificate's, which may sign and chains to a root.
func (a *Authority) check(file string) error {
	public, ok := a.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(a.key.Public()) {
		return fmt.Errorf("CA: the key is not that of %s", file)
	}
	if !a.cert.IsCA {
		return fmt.Errorf("CA: %s is not a CA certificate", file)
	}
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, r := range a.roots {
		options.Roots.AddCert(r)
	}
	for _, c := range a.chain {
		options.Intermediates.AddCert(c)
	}
	if _, err := a.cert.Verify(options); err != nil {
		return fmt.Errorf("CA: %s: %w", file, err)
	}
	return nil
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
// is taken. It returns leaf, intermediates and roots, one PEM each.
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
	for _, c := range append(append([]*x509.Certificate{leaf}, a.chain...), a.roots...) {
		chain = append(chain, string(encode(c)))
	}
	return chain, leaf, nil
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
