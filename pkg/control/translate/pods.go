package translate

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// pods is what is needed to translate pods and Services one by one, while all else is as
// it was.
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
	for _, f := range serviceFamilies(w.Services) {
		s.families[f] = true
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
	wl := &workload{wire: wire, labels: p.Labels, waypoint: bound}
	wl.authorizedByWaypoints(s.services)
	return wl
}

// change makes an output that of a state which differs in pods and Services, and perhaps
// in routes. It returns false where that takes a translation of everything; then s is
// not to be used any more.
func (s *pods) change(out Output, before, now *source.Objects) (Output, bool) {
	services, ok := s.serviceChanges(before, now)
	if !ok {
		return out, false
	}
	gone, come := source.Difference(before.Pods, now.Pods)
	if len(services) > 0 {
		s.replace(services, now)
		again := s.selected(services, come)
		gone, come = slices.Concat(gone, again), slices.Concat(come, again)
	}
	if !slices.ContainsFunc(gone, func(p *corev1.Pod) bool { return !s.plain(p) }) && !slices.ContainsFunc(come, func(p *corev1.Pod) bool { return !s.plain(p) }) {
		if changes, ok := s.changes(gone, come); ok {
			return s.apply(out, now, services, changes), true
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
func (s *pods) apply(out Output, now *source.Objects, services []serviceChange, changes map[string]podChange) Output {
	out.Addresses, out.Changes = slices.Clone(out.Addresses), &Changes{}
	if len(services) > 0 {
		s.applyServices(&out, services)
	}
	m := *out.Model
	m.Objects, m.Endpoints = now, slices.Clone(m.Endpoints)
	out.Model = &m
	edited := map[int]bool{}
	edit := func(wl *workload, key string) (index int, ok bool) {
		svc := s.models[key]
		if svc == nil || !takes(svc, wl.wire.Services[key]) {
			return 0, false
		}
		if !edited[svc.Index] {
			edited[svc.Index] = true
			// Those of all pods that change are made again: each list is gone through once.
			m.Endpoints[svc.Index] = slices.DeleteFunc(slices.Clone(m.Endpoints[svc.Index]), func(e *model.Endpoint) bool {
				_, changes := changes[e.Name]
				return changes
			})
		}
		return svc.Index, true
	}
	for uid, c := range changes {
		if c.before != nil {
			s.count(c.before, -1)
			delete(s.workloads, uid)
			for key := range c.before.wire.Services {
				edit(c.before, key)
			}
		}
		if c.now == nil {
			out.remove(uid)
		} else {
			s.count(c.now, 1)
			s.workloads[uid] = c.now
			out.put(&workloadapi.Address{Type: &workloadapi.Address_Workload{Workload: c.now.wire}})
			e := s.w.modelEndpoint(c.now)
			for key, ports := range c.now.wire.Services {
				if i, ok := edit(c.now, key); ok {
					m.Endpoints[i] = append(m.Endpoints[i], endpointOf(e, ports, s.services[key].unready()))
				}
			}
		}
	}
	for i := range edited {
		slices.SortFunc(m.Endpoints[i], byName)
	}
	return out
}

// find is where an address is in the output, or would be.
func (o *Output) find(name string) (at int, known bool) {
	return slices.BinarySearchFunc(o.Addresses, name, func(a *workloadapi.Address, name string) int { return cmp.Compare(AddressName(a), name) })
}

// put adds a changed address, or replaces it.
func (o *Output) put(a *workloadapi.Address) {
	if at, known := o.find(AddressName(a)); known {
		o.Addresses[at] = a
	} else {
		o.Addresses = slices.Insert(o.Addresses, at, a)
	}
	o.Changes.Addresses = append(o.Changes.Addresses, a)
}

// remove takes an address away, if it is there.
func (o *Output) remove(name string) {
	if at, known := o.find(name); known {
		o.Addresses = slices.Delete(o.Addresses, at, at+1)
		o.Changes.Gone = append(o.Changes.Gone, name)
	}
}
