package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// rootCheck is how often the file of roots is looked at again.
const rootCheck = 5 * time.Second

// roots is what the mesh trusts: the roots of the file, and those that came with
// certificates. Several are trusted at once, so that a root can be replaced.
type roots struct {
	path string // or "": no file
	log  *slog.Logger

	// mu guards below.
	mu         sync.Mutex
	checked    time.Time
	modified   time.Time
	fromFile   []*x509.Certificate
	fromCA     map[[sha256.Size]byte]*x509.Certificate
	pool       *x509.CertPool // or nil: to be made
	generation uint64
}

func newRoots(path string, log *slog.Logger) (*roots, error) {
	r := &roots{path: path, log: log, fromCA: map[[sha256.Size]byte]*x509.Certificate{}}
	if path == "" {
		return r, nil
	}
	if err := r.readLocked(); err != nil {
		return nil, err
	}
	r.checked = time.Now()
	return r, nil
}

func (r *roots) readLocked() error {
	info, err := os.Stat(r.path)
	if err != nil {
		return fmt.Errorf("root certificates: %w", err)
	}
	if info.ModTime().Equal(r.modified) {
		return nil
	}
	b, err := os.ReadFile(r.path)
	if err != nil {
		return fmt.Errorf("root certificates: %w", err)
	}
	certs, err := parseCertificates(b)
	if err != nil {
		return fmt.Errorf("root certificates in %s: %w", r.path, err)
	}
	r.fromFile, r.modified, r.pool = certs, info.ModTime(), nil
	return nil
}

// trust adds roots that came with a certificate.
func (r *roots) trust(certs []*x509.Certificate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range certs {
		key := sha256.Sum256(c.Raw)
		if _, known := r.fromCA[key]; !known {
			r.fromCA[key] = c
			r.pool = nil
		}
	}
}

// retain forgets the CA's roots that no certificate in use came with.
func (r *roots) retain(certs []*Certificate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := map[[sha256.Size]byte]bool{}
	for _, c := range certs {
		for _, root := range c.Roots {
			used[sha256.Sum256(root.Raw)] = true
		}
	}
	for key := range r.fromCA {
		if !used[key] {
			delete(r.fromCA, key)
			r.pool = nil
		}
	}
}

// current returns the pool and its generation, which changes with its content.
// A file that cannot be read keeps the roots that were.
func (r *roots) current() (*x509.CertPool, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.path != "" && now.Sub(r.checked) > rootCheck {
		r.checked = now
		if err := r.readLocked(); err != nil {
			r.log.Warn("the roots known before stay in force", "err", err)
		}
	}
	if r.pool == nil {
		r.pool = x509.NewCertPool()
		for _, c := range r.listLocked() {
			r.pool.AddCert(c)
		}
		r.generation++
	}
	return r.pool, r.generation
}

func (r *roots) list() []*x509.Certificate {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.listLocked()
}

func (r *roots) listLocked() []*x509.Certificate {
	out := append([]*x509.Certificate(nil), r.fromFile...)
	for _, c := range r.fromCA {
		out = append(out, c)
	}
	return out
}
