package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Errors of a handshake, for the caller to tell apart.
var (
	// ErrTrustDomain: the peer's certificate is of another trust domain.
	ErrTrustDomain = errors.New("peer is of another trust domain")
	// ErrUnexpectedPeer: the peer is of the mesh, but not who was meant.
	ErrUnexpectedPeer = errors.New("peer is not who was expected")
)

// maxVerified bounds the cache of verified chains; it is emptied when full.
const maxVerified = 4_096

// verifier checks peers' chains against the roots. A chain that was verified is
// not verified again while it and the roots stay as they are.
type verifier struct {
	roots *roots

	// mu guards below.
	mu       sync.Mutex
	verified map[[sha256.Size]byte]verdict
}

type verdict struct {
	generation uint64 // of the roots
	until      time.Time
	identity   mesh.Identity
}

func newVerifier(r *roots) *verifier {
	return &verifier{roots: r, verified: map[[sha256.Size]byte]verdict{}}
}

// peer verifies a connection's certificates and returns who it is.
func (v *verifier) peer(certs []*x509.Certificate) (mesh.Identity, error) {
	if len(certs) == 0 {
		return mesh.Identity{}, errors.New("peer sent no certificate")
	}
	h := sha256.New()
	for _, c := range certs {
		h.Write(c.Raw)
	}
	key := [sha256.Size]byte(h.Sum(nil))
	pool, generation := v.roots.current()
	now := time.Now()
	v.mu.Lock()
	known, ok := v.verified[key]
	v.mu.Unlock()
	if ok && known.generation == generation && now.Before(known.until) {
		return known.identity, nil
	}
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	chains, err := certs[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return mesh.Identity{}, fmt.Errorf("peer's certificate: %w", err)
	}
	id, err := identityOf(certs[0])
	if err != nil {
		return mesh.Identity{}, fmt.Errorf("peer's certificate: %w", err)
	}
	until := certs[0].NotAfter
	for _, c := range chains[0] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.verified) >= maxVerified {
		clear(v.verified)
	}
	v.verified[key] = verdict{generation, until, id}
	return id, nil
}

// Peer is who a finished handshake proved, or the zero value.
func Peer(state tls.ConnectionState) mesh.Identity {
	if len(state.PeerCertificates) == 0 {
		return mesh.Identity{}
	}
	id, err := identityOf(state.PeerCertificates[0])
	if err != nil {
		return mesh.Identity{}
	}
	return id
}
