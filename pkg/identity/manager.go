package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// CA signs certificate requests.
type CA interface {
	// Sign returns the PEM chain for a PEM request: leaf, intermediates, roots.
	Sign(ctx context.Context, id mesh.Identity, csr []byte, ttl time.Duration) ([]byte, error)
}

const (
	// DefaultTTL is what is asked for.
	DefaultTTL = 24 * time.Hour
	// maxInFlight bounds the requests to the CA at one time.
	maxInFlight = 8
	// signTimeout bounds one request.
	signTimeout = 20 * time.Second
	// waitForFirst bounds how long Get waits for a first certificate.
	waitForFirst = 10 * time.Second

	minBackoff, maxBackoff = 500 * time.Millisecond, time.Minute
)

// Options of a [Manager].
type Options struct {
	CA CA // must be non-nil
	// RootFile holds the mesh's roots in PEM; "" trusts what comes with certificates.
	RootFile string
	// Directory keeps certificates over a restart and must be a tmpfs; "" keeps none.
	Directory string
	// TTL is the life to ask for; zero is DefaultTTL.
	TTL    time.Duration
	Logger *slog.Logger // must be non-nil
}

// Manager holds the certificates of the identities in use.
type Manager struct {
	// Constant after NewManager.
	ca       CA
	ttl      time.Duration
	log      *slog.Logger
	dir      *directory // or nil
	roots    *roots
	verifier *verifier
	inFlight chan struct{}
	ctx      context.Context
	cancel   context.CancelFunc
	work     sync.WaitGroup

	// files orders what is done to the directory; it is taken before mu.
	files sync.Mutex

	// mu guards below.
	mu      sync.Mutex
	entries map[mesh.Identity]*entry
	closed  bool
	changed chan struct{}
}

// entry is one identity in use. The Manager's lock guards it.
type entry struct {
	users   int
	cert    *Certificate // or nil: none yet
	ready   chan struct{}
	failure error // of the last request
	fails   int
	next    time.Time
	cancel  context.CancelFunc // ends its goroutine
}

// NewManager returns a manager without identities. Close it.
func NewManager(o Options) (*Manager, error) {
	if o.CA == nil || o.Logger == nil {
		return nil, errors.New("identity: CA and Logger must be set")
	}
	m := &Manager{
		ca: o.CA, ttl: o.TTL, log: o.Logger, inFlight: make(chan struct{}, maxInFlight), entries: map[mesh.Identity]*entry{},
		changed: make(chan struct{}),
	}
	if m.ttl <= 0 {
		m.ttl = DefaultTTL
	}
	var err error
	if m.roots, err = newRoots(o.RootFile, o.Logger); err != nil {
		return nil, err
	}
	if o.Directory != "" {
		if m.dir, err = openDirectory(o.Directory); err != nil {
			return nil, err
		}
	}
	m.verifier = newVerifier(m.roots)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m, nil
}

// Close stops renewals. Certificates stay usable until they end.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.work.Wait()
}

// Acquire asks for id's certificate ahead of use, and keeps it renewed until as
// many calls of Release.
func (m *Manager) Acquire(id mesh.Identity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.entries[id]; ok {
		e.users++
		return
	}
	if m.closed {
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	e := &entry{users: 1, ready: make(chan struct{}), cancel: cancel}
	m.entries[id] = e
	if m.dir != nil {
		if c := m.dir.load(id, m.roots.list(), time.Now()); c != nil {
			m.setLocked(e, c)
		}
	}
	m.work.Go(func() { m.keep(ctx, id, e) })
}

// Release lets go of id; the last one forgets certificate and key.
func (m *Manager) Release(id mesh.Identity) {
	m.mu.Lock()
	e, ok := m.entries[id]
	if !ok {
		m.mu.Unlock()
		return
	}
	if e.users--; e.users > 0 {
		m.mu.Unlock()
		return
	}
	delete(m.entries, id)
	e.cancel()
	m.mu.Unlock()
	m.settle(id, nil)
}

// settle makes roots and directory agree with the entries once id's certificate
// has come or gone. Several callers may be at it: the file follows the entry of the
// moment, so that a request that ends after the last release leaves no key behind.
func (m *Manager) settle(id mesh.Identity, e *entry) {
	m.files.Lock()
	defer m.files.Unlock()
	m.mu.Lock()
	now := m.entries[id]
	var cert *Certificate
	if now != nil {
		cert = now.cert
	}
	m.roots.retain(m.certificatesLocked())
	m.mu.Unlock()
	switch {
	case m.dir == nil || now != e:
	case now == nil:
		if err := m.dir.remove(id); err != nil {
			m.log.Warn("certificate not removed", "identity", id.String(), "err", err)
		}
	default:
		if err := m.dir.save(cert); err != nil {
			m.log.Warn("certificate not kept for a restart", "identity", id.String(), "err", err)
		}
	}
}

// Prune removes what the directory keeps of identities not in use; call it once
// those of the last run have been acquired.
func (m *Manager) Prune() error {
	if m.dir == nil {
		return nil
	}
	m.mu.Lock()
	var keep []mesh.Identity
	for id := range m.entries {
		keep = append(keep, id)
	}
	m.mu.Unlock()
	return m.dir.prune(keep)
}

// Get returns id's certificate. It waits for a first one, for a bounded time.
func (m *Manager) Get(ctx context.Context, id mesh.Identity) (*Certificate, error) {
	m.mu.Lock()
	e, ok := m.entries[id]
	if !ok {
		m.mu.Unlock()
		return nil, fmt.Errorf("certificate of %s: not an identity of this node", id)
	}
	cert, ready := e.cert, e.ready
	m.mu.Unlock()
	if cert == nil {
		timer := time.NewTimer(waitForFirst)
		defer timer.Stop()
		select {
		case <-ready:
		case <-ctx.Done():
		case <-timer.C:
		}
		m.mu.Lock()
		failure := e.failure
		cert = e.cert
		m.mu.Unlock()
		if cert == nil {
			return nil, fmt.Errorf("certificate of %s: not issued yet: %w", id, errors.Join(failure, ctx.Err()))
		}
	}
	if cert.Expired(time.Now()) {
		m.mu.Lock()
		defer m.mu.Unlock()
		return nil, fmt.Errorf("certificate of %s: ended at %s and was not renewed: %w", id, cert.Leaf().NotAfter.UTC().Format(time.RFC3339), errors.Join(e.failure))
	}
	return cert, nil
}

// keep requests and renews id's certificate until ctx ends.
func (m *Manager) keep(ctx context.Context, id mesh.Identity, e *entry) {
	for {
		m.mu.Lock()
		wait := time.Until(e.next)
		m.mu.Unlock()
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		cert, err := m.request(ctx, id)
		if ctx.Err() != nil {
			return
		}
		m.mu.Lock()
		if err == nil {
			m.setLocked(e, cert)
		} else {
			e.failure, e.fails = err, e.fails+1
			e.next = time.Now().Add(retryAfter(e.fails))
		}
		fails := e.fails
		m.mu.Unlock()
		if err != nil {
			m.log.Warn("certificate not issued; trying again", "identity", id.String(), "failures", fails, "err", err)
			continue
		}
		m.settle(id, e)
		m.log.Debug("certificate issued", "identity", id.String(), "until", cert.Leaf().NotAfter, "renewal", cert.RenewAt)
	}
}

func retryAfter(fails int) time.Duration {
	d := min(minBackoff<<min(fails-1, 16), maxBackoff)
	return d/2 + rand.N(d/2) //nolint:gosec // spreads load, guards nothing
}

func (m *Manager) setLocked(e *entry, c *Certificate) {
	m.roots.trust(c.Roots)
	first := e.cert == nil
	e.cert, e.failure, e.fails, e.next = c, nil, 0, c.RenewAt
	close(m.changed)
	m.changed = make(chan struct{})
	if soonest := time.Now().Add(minBackoff); e.next.Before(soonest) {
		e.next = soonest // whatever the CA answers, it is not asked in a loop
	}
	if first {
		close(e.ready)
	}
}

// Changed is closed when a certificate has come. Take it before [Manager.Get], so
// that none is missed.
func (m *Manager) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// RootsPEM is what the mesh trusts now, in an order that depends on the content
// alone.
func (m *Manager) RootsPEM() []byte {
	m.roots.current() // looks at the file, if that is due
	list := m.roots.list()
	slices.SortFunc(list, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	return encodeCertificates(slices.CompactFunc(list, (*x509.Certificate).Equal))
}

func (m *Manager) certificatesLocked() []*Certificate {
	var out []*Certificate
	for _, e := range m.entries {
		if e.cert != nil {
			out = append(out, e.cert)
		}
	}
	return out
}

func (m *Manager) request(ctx context.Context, id mesh.Identity) (*Certificate, error) {
	select {
	case m.inFlight <- struct{}{}:
		defer func() { <-m.inFlight }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	key, csr, err := newRequest(id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	chain, err := m.ca.Sign(ctx, id, csr, m.ttl)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	now := time.Now()
	cert, err := newCertificate(id, key, chain, m.roots.list(), now)
	if err != nil {
		return nil, err
	}
	// Half of what is left of it: CAs date certificates back, by more than a short
	// one lives.
	cert.renewAtHalf(now)
	return cert, nil
}

// Status is one identity as the admin page shows it.
type Status struct {
	Identity mesh.Identity
	Cert     *Certificate // or nil: none yet
	Roots    []*x509.Certificate
	// Failure is the last request's error, or nil.
	Failure error
	// Next is when the CA will be asked next.
	Next time.Time
}

// Status lists the identities in use, by name.
func (m *Manager) Status() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Status
	for id, e := range m.entries {
		out = append(out, Status{Identity: id, Cert: e.cert, Roots: m.roots.list(), Failure: e.failure, Next: e.next})
	}
	slices.SortFunc(out, func(a, b Status) int {
		if a.Identity.String() < b.Identity.String() {
			return -1
		}
		return 1
	})
	return out
}
