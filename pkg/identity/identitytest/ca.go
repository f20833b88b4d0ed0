// Package identitytest is a certificate authority in memory, and certificates without one, for tests.
package identitytest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// CA signs whatever it is asked to. Its fields may be changed between calls, under Lock.
type CA struct {
	sync.Mutex
	// Fail is returned instead of a certificate while it is set.
	Fail error
	// TTL overrides the life that is asked for, if set.
	TTL time.Duration
	// Backdate is how long before now certificates begin to hold.
	Backdate time.Duration
	// As is signed instead of the requested identity, if set.
	As mesh.Identity
	// Extra roots are added to each answer.
	Extra []*x509.Certificate

	key    *ecdsa.PrivateKey
	root   *x509.Certificate
	signed map[mesh.Identity]int
	serial int64
}

// New makes a CA with a new root.
func New() *CA {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test root " + time.Now().String()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return &CA{key: key, root: root, signed: map[mesh.Identity]int{}}
}

// Root is the CA's certificate.
func (c *CA) Root() *x509.Certificate { return c.root }

// RootPEM is the CA's certificate in PEM.
func (c *CA) RootPEM() []byte { return encode(c.root.Raw) }

// Signed is how many certificates id has had.
func (c *CA) Signed(id mesh.Identity) int {
	c.Lock()
	defer c.Unlock()
	return c.signed[id]
}

// Sign implements identity.CA.
func (c *CA) Sign(_ context.Context, id mesh.Identity, csr []byte, ttl time.Duration) ([]byte, error) {
	c.Lock()
	defer c.Unlock()
	if c.Fail != nil {
		return nil, c.Fail
	}
	block, _ := pem.Decode(csr)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if c.TTL > 0 {
		ttl = c.TTL
	}
	if !c.As.IsZero() {
		id = c.As
	}
	uri, err := url.Parse(id.String())
	if err != nil {
		return nil, err
	}
	c.serial++
	c.signed[id]++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(c.serial), URIs: []*url.URL{uri}, NotBefore: time.Now().Add(-c.Backdate), NotAfter: time.Now().Add(ttl),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.root, request.PublicKey, c.key)
	if err != nil {
		return nil, err
	}
	out := append(encode(der), encode(c.root.Raw)...)
	for _, extra := range c.Extra {
		out = append(out, encode(extra.Raw)...)
	}
	return out, nil
}

func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
