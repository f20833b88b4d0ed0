package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Material is what an authority is made of, in PEM.
type Material struct {
	// Cert signs (ca-cert.pem), with Key (ca-key.pem).
	Cert, Key []byte
	// Chain is Cert's own chain (cert-chain.pem); empty if Cert is a root, or directly
	// below one.
	Chain []byte
	// Roots is what peers trust (root-cert.pem); several, while one is replaced. Empty
	// if Cert is the only root.
	Roots []byte
}

// Parse makes the authority, and checks that its parts belong together.
func Parse(m Material) (*Authority, error) {
	key, err := parseKey(m.Key)
	if err != nil {
		return nil, fmt.Errorf("ca-key.pem: %w", err)
	}
	certs, err := parseCertificates(m.Cert)
	if err != nil {
		return nil, fmt.Errorf("ca-cert.pem: %w", err)
	}
	a := &Authority{key: key, cert: certs[0], maxTTL: MaxTTL}
	if len(m.Roots) == 0 && isRoot(a.cert) {
		m.Roots = encode(a.cert)
	}
	if a.roots, err = parseCertificates(m.Roots); err != nil {
		return nil, fmt.Errorf("root-cert.pem: %w", err)
	}
	a.roots = distinct(a.roots)
	if len(m.Chain) > 0 {
		if a.chain, err = parseCertificates(m.Chain); err != nil {
			return nil, fmt.Errorf("cert-chain.pem: %w", err)
		}
		a.chain = withoutRoots(a.chain)
	}
	// Istio's chain begins with the certificate itself; some leave it out.
	if !isRoot(a.cert) && (len(a.chain) == 0 || !a.chain[0].Equal(a.cert)) {
		a.chain = append([]*x509.Certificate{a.cert}, a.chain...)
	}
	if err := a.check(); err != nil {
		return nil, err
	}
	return a, nil
}

// Generate makes a root of its own.
func Generate(trustDomain string) (Material, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Material{}, err
	}
	serial, err := newSerial()
	if err != nil {
		return Material{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{trustDomain}, CommonName: "Fairlead root " + now.UTC().Format("2006-01-02")},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Material{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Material{}, err
	}
	return Material{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

func parseKey(b []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("it is not PEM")
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
	return nil, errors.New("it holds no EC or RSA key")
}

func parseCertificates(b []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("it holds no certificate in PEM")
	}
	return out, nil
}

// distinct keeps the first of equal certificates.
func distinct(certs []*x509.Certificate) (out []*x509.Certificate) {
	for _, c := range certs {
		if !holds(out, c) {
			out = append(out, c)
		}
	}
	return out
}

func holds(certs []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(certs, c.Equal)
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
