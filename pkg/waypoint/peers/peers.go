// Package peers is what the waypoint knows from workload discovery: who calls, who
// may answer, and which L4 policies hold for a destination. It reads pkg/store.
package peers

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// View is the mesh as a waypoint in a network sees it.
type View struct {
	store   *store.Store
	network string
	self    mesh.Identity

	// mu guards below: labels made of workloads, which are replaced, never changed.
	mu     sync.Mutex
	labels map[*mesh.Workload]*streaminfo.Workload
}

// maxLabels bounds the labels that are kept; past it they are made anew.
const maxLabels = 10_000

// NewView returns the view of s that the waypoint of an identity has.
func NewView(s *store.Store, network string, self mesh.Identity) *View {
	return &View{store: s, network: network, self: self, labels: map[*mesh.Workload]*streaminfo.Workload{}}
}

func (v *View) find(s *store.Snapshot, a netip.Addr) *mesh.Workload {
	return s.WorkloadByAddr(mesh.NewNetworkAddr(v.network, a))
}

// Workload labels who has an address, or is nil.
func (v *View) Workload(a netip.Addr) *streaminfo.Workload {
	w := v.find(v.store.Snapshot(), a)
	if w == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if l := v.labels[w]; l != nil {
		return l
	}
	if len(v.labels) >= maxLabels {
		clear(v.labels)
	}
	l := &streaminfo.Workload{
		Name: w.WorkloadName, Namespace: w.Namespace, Principal: w.Identity().String(), CanonicalService: w.CanonicalName,
		CanonicalRevision: w.CanonicalRevision, App: w.CanonicalName, Version: w.CanonicalRevision, Cluster: w.Cluster,
	}
	v.labels[w] = l
	return l
}

// Expected are the SPIFFE ids that may answer at an address; none: it is not known.
func (v *View) Expected(a netip.AddrPort) []string {
	s := v.store.Snapshot()
	w := v.find(s, a.Addr())
	if w == nil {
		return nil
	}
	ids := []string{w.Identity().String()}
	for _, svc := range s.ServicesOf(w) {
		ids = append(ids, svc.SubjectAltNames...)
	}
	return ids
}

// patience is how long a workload is waited for whose endpoint is here already.
const patience = time.Second

// await waits for the workload at an address.
func (v *View) await(a netip.Addr) (*store.Snapshot, *mesh.Workload) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		s := v.store.Snapshot()
		if w := v.find(s, a); w != nil {
			return s, w
		}
		select {
		case <-s.Changed():
		case <-timer.C:
			return s, nil
		}
	}
}

// Denied is a connection that an L4 policy refuses.
type Denied struct{ Policy, Reason string }

func (d *Denied) Error() string {
	if d.Policy == "" {
		return d.Reason
	}
	return d.Policy
}

// Authorize decides whether who calls may reach destination, by the policies that hold
// for the workload there. The tunnel has proven the caller; the destination's own agent
// sees the waypoint alone, and leaves this to it.
//
// A destination that is new in the mesh is waited for, and so are policies that it
// names: endpoints may come before the workloads that they are. It is refused if it does
// not come; named policies that do not are passed over, as istiod names some that it
// never sends.
func (v *View) Authorize(c *streaminfo.Connection, destination netip.AddrPort, newInMesh bool) error {
	s := v.store.Snapshot()
	w := v.find(s, destination.Addr())
	if w == nil && newInMesh {
		if s, w = v.await(destination.Addr()); w == nil {
			return &Denied{Reason: "nothing is known of the destination yet"}
		}
	}
	if w == nil {
		return nil
	}
	policies, missing := s.Policies(w)
	if len(missing) > 0 && newInMesh {
		_, policies, _ = v.store.WaitPolicies(context.Background(), w)
	}
	if len(policies) == 0 {
		return nil
	}
	conn := authz.Conn{SourceIP: c.Remote.Addr(), Destination: destination}
	if c.PeerURISAN != "" {
		id, err := mesh.ParseIdentity(c.PeerURISAN)
		if err != nil {
			return &Denied{Reason: "the caller's identity has another form than the mesh's"}
		}
		conn.Source = id
	}
	if d := authz.Evaluate(through(policies, v.self), conn); !d.Allow {
		return &Denied{Policy: d.Policy, Reason: d.Reason}
	}
	return nil
}
