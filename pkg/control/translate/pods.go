package translate

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// pods is what is needed to translate pods one by one, while all else is as it was.
type pods struct {
	w        *world
	policies *policySet
	services map[string]*service       // by key
	models   map[string]*model.Service // by key
	// workloads are those of pods, by their uid.
	workloads map[string]*workload
	// addresses counts the workloads that have an address.
	addresses map[string]int
	// families are those of the services' addresses: with them a pod's make no
	// difference to the cluster's.
	families map[corev1.IPFamily]bool
	// troubled are pods of which a file says something.
	troubled map[source.Ref]bool
	// claimed are addresses that something else has, where it matters whether a pod has
	// them: of ServiceEntries, and of EndpointSlices.
	claimed map[netip.Addr]bool
}

// newPods is nil where a pod may matter for more than itself and its services.
func newPods(w *world, policies *policySet, workloads []*workload, m *model.Model) *pods {
	for _, p := range w.waypoints {
		if p.required() {
			return nil
		}
	}
	s := &pods{
		w: w, policies: policies, services: map[string]*service{}, models: map[string]*model.Service{}, workloads: map[string]*workload{},
		addresses: map[string]int{}, families: map[corev1.IPFamily]bool{}, troubled: map[source.Ref]bool{}, claimed: w.claimed(),
	}
	for _, svc := range w.services {
		s.services[svc.key] = svc
	}
	for _, svc := range m.Services {
		s.models[svc.Namespace+"/"+svc.Hostname] = svc
	}
	for _, wl := range workloads {
		s.count(wl, 1)
		s.workloads[wl.wire.Uid] = wl
	}
	for _, svc := range w.Services {
		for _, ip := range clusterIPs(svc) {
			if a, err := netip.ParseAddr(ip); err == nil {
				s.families[family(a)] = true
			}
		}
	}
	for _, p := range w.Problems {
		s.troubled[p.Ref] = true
	}
	return s
}

func (w *world) claimed() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, e := range w.ServiceEntries {
		for _, text := range e.Spec.Addresses {
			if block, err := source.ParseBlock(text); err == nil && block.IsSingleIP() {
				out[block.Addr().Unmap()] = true
			}
		}
	}
	for _, slice := range w.EndpointSlices {
		for _, e := range slice.Endpoints {
			for _, text := range e.Addresses {
				if a, err := netip.ParseAddr(text); err == nil {
					out[a.Unmap()] = true
				}
			}
		}
	}
	return out
}

func (s *pods) count(wl *workload, by int) {
	for _, a := range wl.wire.Addresses {
		if s.addresses[string(a)] += by; s.addresses[string(a)] == 0 {
			delete(s.addresses, string(a))
		}
	}
}

// plain tells whether a pod matters for itself and its services alone.
func (s *pods) plain(p *corev1.Pod) bool {
	if s.troubled[source.Ref{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}] {
		return false
	}
	for _, ip := range podIPs(p) {
		if a, err := netip.ParseAddr(ip); err == nil && (!s.families[family(a)] || s.claimed[a.Unmap()]) {
			return false
		}
	}
	return true
}

// translate is a pod as a workload, or nil: it takes no connections.
func (s *pods) translate(p *corev1.Pod) *workload {
	if !livePod(p) {
		return nil
	}
	wire, bound := s.w.pod(p)
	wire.Services = s.w.servicesOfPod(p)
	wire.AuthorizationPolicies = s.policies.forWorkload(p.Namespace, p.Labels)
	for key := range wire.Services {
		if svc := s.services[key]; svc != nil && svc.waypoint != nil {
			wire.Extensions = append(wire.Extensions, &workloadapi.Extension{Name: mesh.ExtensionWaypointAuthorizes})
			break
		}
	}
	return &workload{wire: wire, labels: p.Labels, waypoint: bound}
}

// change makes an output that of a state which differs in pods, and perhaps in
// routes. It returns false where that takes a translation of everything.
func (s *pods) change(out Output, before, now *source.Objects) (Output, bool) {
	gone, come := source.Difference(before.Pods, now.Pods)
	if !slices.ContainsFunc(gone, func(p *corev1.Pod) bool { return !s.plain(p) }) && !slices.ContainsFunc(come, func(p *corev1.Pod) bool { return !s.plain(p) }) {
		if changes, ok := s.changes(gone, come); ok {
			return s.apply(out, now, changes), true
		}
	}
	return out, false
}

// podChange is a pod's workload as it was and as it is; either may be nil.
type podChange struct{ before, now *workload }

// changes are the pods' by uid. One whose address others have too, or that is bound
// to a waypoint itself, changes more than its services.
func (s *pods) changes(gone, come []*corev1.Pod) (map[string]podChange, bool) {
	changes := map[string]podChange{}
	fits := func(wl *workload, already int) bool {
		return wl == nil || wl.waypoint == nil && !slices.ContainsFunc(wl.wire.Addresses, func(a []byte) bool { return s.addresses[string(a)] > already })
	}
	for _, p := range gone {
		uid := s.w.podUID(p)
		before := s.workloads[uid]
		if !fits(before, 1) {
			return nil, false
		}
		changes[uid] = podChange{before: before}
	}
	took := map[string]bool{}
	for _, p := range come {
		uid := s.w.podUID(p)
		c := changes[uid]
		c.now = s.translate(p)
		if c.now != nil {
			already := 0
			if c.before != nil && slices.EqualFunc(c.before.wire.Addresses, c.now.wire.Addresses, slices.Equal) {
				already = 1
			}
			if !fits(c.now, already) {
				return nil, false
			}
			for _, a := range c.now.wire.Addresses {
				if took[string(a)] {
					return nil, false
				}
				took[string(a)] = true
			}
		}
		changes[uid] = c
	}
	return changes, true
}

// apply makes the output that of the changes.
func (s *pods) apply(out Output, now *source.Objects, changes map[string]podChange) Output {
	m := *out.Model
	m.Objects, m.Endpoints = now, slices.Clone(m.Endpoints)
	out.Model, out.Addresses, out.Changes = &m, slices.Clone(out.Addresses), &Changes{}
	edited := map[int]bool{}
	edit := func(wl *workload, key string) (index int, ok bool) {
		svc := s.models[key]
		if svc == nil || !takes(svc, wl.wire.Services[key]) {
			return 0, false
		}
		if !edited[svc.Index] {
			edited[svc.Index] = true
			m.Endpoints[svc.Index] = slices.Clone(m.Endpoints[svc.Index])
		}
		return svc.Index, true
	}
	for uid, c := range changes {
		at, known := slices.BinarySearchFunc(out.Addresses, uid, func(a *workloadapi.Address, name string) int { return cmp.Compare(AddressName(a), name) })
		if c.before != nil {
			s.count(c.before, -1)
			delete(s.workloads, uid)
			for key := range c.before.wire.Services {
				if i, ok := edit(c.before, key); ok {
					m.Endpoints[i] = slices.DeleteFunc(m.Endpoints[i], func(e *model.Endpoint) bool { return e.Name == uid })
				}
			}
		}
		switch {
		case c.now != nil:
			s.count(c.now, 1)
			s.workloads[uid] = c.now
			a := &workloadapi.Address{Type: &workloadapi.Address_Workload{Workload: c.now.wire}}
			if known {
				out.Addresses[at] = a
			} else {
				out.Addresses = slices.Insert(out.Addresses, at, a)
			}
			out.Changes.Addresses = append(out.Changes.Addresses, a)
			e := s.w.modelEndpoint(c.now)
			for key, ports := range c.now.wire.Services {
				if i, ok := edit(c.now, key); ok {
					m.Endpoints[i] = append(m.Endpoints[i], endpointOf(e, ports, s.services[key].unready()))
				}
			}
		case known:
			out.Addresses = slices.Delete(out.Addresses, at, at+1)
			out.Changes.Gone = append(out.Changes.Gone, uid)
		}
	}
	for i := range edited {
		slices.SortFunc(m.Endpoints[i], func(a, b *model.Endpoint) int { return cmp.Compare(a.Name, b.Name) })
	}
	return out
}
