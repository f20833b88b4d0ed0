package ztunnel

import (
	"context"
	"net/netip"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// find is the pod's own workload in s, or nil. Its address may still be that of
// another pod, of before: the name and the account must be the pod's.
func (p *Proxy) find(s *store.Snapshot) *mesh.Workload {
	for _, a := range p.info.Addrs {
		w := s.WorkloadByAddr(mesh.NewNetworkAddr(p.o.Network, a))
		if w != nil && w.Name == p.info.Name && w.Namespace == p.info.Namespace && w.ServiceAccount == p.info.ServiceAccount {
			return w
		}
	}
	return nil
}

// self is the pod's own workload. A pod that is so new that the control plane's
// word of it is still on its way is waited for.
func (p *Proxy) self(ctx context.Context) (*mesh.Workload, *store.Snapshot, error) {
	select {
	case <-p.o.Ready:
	case <-ctx.Done():
		return nil, nil, errNoState
	}
	s := p.o.State.Snapshot()
	if w := p.find(s); w != nil {
		return w, s, nil
	}
	timer := time.NewTimer(workloadWait)
	defer timer.Stop()
	for {
		select {
		case <-s.Changed():
		case <-timer.C:
			return nil, s, errUnknownPod
		case <-ctx.Done():
			return nil, s, errUnknownPod
		}
		s = p.o.State.Snapshot()
		if w := p.find(s); w != nil {
			return w, s, nil
		}
	}
}

// isOwn reports whether a is the pod's.
func (p *Proxy) isOwn(a netip.Addr) bool {
	for _, own := range p.info.Addrs {
		if own == a {
			return true
		}
	}
	return false
}

// peerAt is the workload of an address, for the record. Where the peer proved
// who it is, the address must be of the same identity: it may have changed hands.
func (p *Proxy) peerAt(s *store.Snapshot, a netip.Addr, proven mesh.Identity) *mesh.Workload {
	w := s.WorkloadByAddr(mesh.NewNetworkAddr(p.o.Network, a))
	if w != nil && !proven.IsZero() && w.Identity() != proven {
		return nil
	}
	return w
}
