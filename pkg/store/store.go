package store

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// policyHold is how long new connections wait for a policy that is named and has
// not arrived, once per policy.
const policyHold = time.Second

// maxHeld bounds the memory of policies that were waited for.
const maxHeld = 10_000

// Store is the mesh as the node knows it.
type Store struct {
	log     *slog.Logger
	current atomic.Pointer[Snapshot]

	write sync.Mutex // one writer at a time

	// mu guards below.
	mu   sync.Mutex
	held map[string]time.Time // missing policy: when waiting for it ends
}

// New returns an empty store.
func New(log *slog.Logger) (*Store, error) {
	if log == nil {
		return nil, errors.New("store: Logger must be set")
	}
	s := &Store{log: log, held: map[string]time.Time{}}
	s.current.Store(&Snapshot{changed: make(chan struct{})})
	return s, nil
}

// Snapshot is the newest state.
func (s *Store) Snapshot() *Snapshot { return s.current.Load() }

// HasPolicy reports whether any form of a policy is held.
func (s *Store) HasPolicy(key string) bool { return s.Snapshot().Policy(key) != nil }

// Apply makes a new snapshot of the old one and delta. Its cost grows with the
// delta, not with the mesh.
func (s *Store) Apply(delta mesh.Delta) error {
	s.write.Lock()
	defer s.write.Unlock()
	old := s.current.Load()
	e := newChange(old)
	for _, p := range delta.Policies {
		e.setPolicy(p)
	}
	for _, key := range delta.RemovedPolicies {
		e.removePolicy(key)
	}
	for _, svc := range delta.Services {
		e.setService(svc)
	}
	for _, w := range delta.Workloads {
		if other := e.setWorkload(w); other != nil {
			s.log.Warn("two workloads claim one address; the first by uid has it", "workload", string(w.UID), "other", string(other.UID))
		}
	}
	for _, name := range delta.RemovedAddresses {
		e.removeAddress(name)
	}
	next := e.snapshot()
	s.current.Store(next)
	close(old.changed)
	return nil
}

// WaitPolicies returns the newest snapshot once all the policies that w names are
// in it, or have been waited for; the missing ones are then named. It keeps to ctx.
func (s *Store) WaitPolicies(ctx context.Context, w *mesh.Workload) (snapshot *Snapshot, policies []*mesh.Policy, missing []string) {
	for {
		snapshot = s.Snapshot()
		policies, missing = snapshot.Policies(w)
		wait := s.hold(missing)
		if wait <= 0 {
			return snapshot, policies, missing
		}
		timer := time.NewTimer(wait)
		select {
		case <-snapshot.Changed():
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return snapshot, policies, missing
		}
		timer.Stop()
	}
}

// hold returns how long to wait for the missing policies; zero once each had its
// time. It warns when a policy's time begins.
func (s *Store) hold(missing []string) time.Duration {
	if len(missing) == 0 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var wait time.Duration
	for _, key := range missing {
		until, known := s.held[key]
		if !known {
			if len(s.held) >= maxHeld {
				clear(s.held)
			}
			until = now.Add(policyHold)
			s.held[key] = until
			s.log.Warn("a workload names a policy that has not arrived; its connections wait", "policy", key, "for", policyHold)
		}
		wait = max(wait, until.Sub(now))
	}
	return wait
}
