package main

import (
	"slices"
	"sync"

	"github.com/fairlead-mesh/fairlead/pkg/admin"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// synced follows what has arrived from the control plane. usable closes when
// connections can be decided on: everything has arrived, or a last state is here.
type synced struct {
	known  bool // there is a last state
	usable chan struct{}
	once   sync.Once
	// arrived closes when everything has arrived.
	arrived chan struct{}

	mu      sync.Mutex
	pending map[string]func()
	missing []string // types that have not arrived, waited for or not
	all     bool
}

func newSynced(ready *admin.Readiness, known bool) *synced {
	s := &synced{known: known, usable: make(chan struct{}), arrived: make(chan struct{}), pending: map[string]func(){
		xds.AddressType: ready.Wait("workloads from the control plane"), xds.AuthorizationType: ready.Wait("policies from the control plane"),
	}}
	s.missing = []string{xds.AddressType, xds.AuthorizationType}
	if known {
		s.once.Do(func() { close(s.usable) })
	}
	return s
}

// mark notes that all of a type has arrived.
func (s *synced) mark(typeURL string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if done := s.pending[typeURL]; done != nil {
		done()
		delete(s.pending, typeURL)
	}
	s.missing = slices.DeleteFunc(s.missing, func(t string) bool { return t == typeURL })
	if len(s.missing) == 0 && !s.all {
		s.all = true
		close(s.arrived)
	}
	if len(s.pending) == 0 {
		s.once.Do(func() { close(s.usable) })
	}
}

// settle waits no more for the control plane, if there is a last state to serve
// from. It reports whether anything was waited for.
func (s *synced) settle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known || len(s.pending) == 0 {
		return false
	}
	for t, done := range s.pending {
		done()
		delete(s.pending, t)
	}
	return true
}
