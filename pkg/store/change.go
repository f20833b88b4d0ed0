package store

import (
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// change is a snapshot being made.
type change struct {
	old        *Snapshot
	workloads  *editor[mesh.WorkloadID, *mesh.Workload]
	byAddr     *editor[mesh.NetworkAddr, []*mesh.Workload]
	endpoints  *editor[mesh.ServiceKey, []*mesh.Workload]
	services   *editor[mesh.ServiceKey, *mesh.Service]
	byVIP      *editor[mesh.NetworkAddr, []*mesh.Service]
	byHostname *editor[string, []*mesh.Service]
	policies   *editor[string, *mesh.Policy]
	namespace  *editor[string, []*mesh.Policy]
	prefixes   []prefixEntry
	global     []*mesh.Policy
}

func newChange(old *Snapshot) *change {
	return &change{
		old:       old,
		workloads: edit(&old.workloads), byAddr: edit(&old.byAddr), endpoints: edit(&old.endpoints),
		services: edit(&old.services), byVIP: edit(&old.byVIP), byHostname: edit(&old.byHostname),
		policies: edit(&old.policies), namespace: edit(&old.namespace),
		prefixes: old.prefixes, global: old.global,
	}
}

func (e *change) snapshot() *Snapshot {
	return &Snapshot{
		generation: e.old.generation + 1, changed: make(chan struct{}),
		workloads: *e.workloads.table, byAddr: *e.byAddr.table, endpoints: *e.endpoints.table,
		services: *e.services.table, byVIP: *e.byVIP.table, byHostname: *e.byHostname.table, prefixes: e.prefixes,
		policies: *e.policies.table, namespace: *e.namespace.table, global: e.global,
	}
}

// setWorkload adds or replaces w; it returns another workload with its address.
func (e *change) setWorkload(w *mesh.Workload) (other *mesh.Workload) {
	e.removeWorkload(w.UID)
	e.workloads.set(w.UID, w)
	for _, a := range addresses(w) {
		insert(e.byAddr, a, w, compareWorkloads)
		if all, _ := e.byAddr.get(a); len(all) > 1 {
			other = all[0]
			if other == w {
				other = all[1]
			}
		}
	}
	for key := range w.Services {
		insert(e.endpoints, key, w, compareWorkloads)
	}
	return other
}

func (e *change) removeWorkload(id mesh.WorkloadID) bool {
	w, ok := e.workloads.get(id)
	if !ok {
		return false
	}
	e.workloads.remove(id)
	for _, a := range addresses(w) {
		take(e.byAddr, a, w, compareWorkloads)
	}
	for key := range w.Services {
		take(e.endpoints, key, w, compareWorkloads)
	}
	return true
}

func (e *change) setService(s *mesh.Service) {
	e.removeService(s.Key)
	e.services.set(s.Key, s)
	insert(e.byHostname, strings.ToLower(s.Key.Hostname), s, compareServices)
	for _, vip := range s.VIPs {
		insert(e.byVIP, vip, s, compareServices)
	}
	if len(s.Prefixes) == 0 {
		return
	}
	e.prefixes = slices.Clone(e.prefixes)
	for _, p := range s.Prefixes {
		e.prefixes = append(e.prefixes, prefixEntry{p, s})
	}
	slices.SortFunc(e.prefixes, prefixLess)
}

func (e *change) removeService(key mesh.ServiceKey) {
	s, ok := e.services.get(key)
	if !ok {
		return
	}
	e.services.remove(key)
	take(e.byHostname, strings.ToLower(key.Hostname), s, compareServices)
	for _, vip := range s.VIPs {
		take(e.byVIP, vip, s, compareServices)
	}
	if len(s.Prefixes) > 0 {
		e.prefixes = slices.DeleteFunc(slices.Clone(e.prefixes), func(p prefixEntry) bool { return p.service.Key == key })
	}
}

// removeAddress removes a workload by its uid or a service by its key; which it
// is the name alone does not say.
func (e *change) removeAddress(name string) {
	if e.removeWorkload(mesh.WorkloadID(name)) {
		return
	}
	if namespace, hostname, ok := strings.Cut(name, "/"); ok {
		e.removeService(mesh.ServiceKey{Namespace: namespace, Hostname: hostname})
	}
}

func (e *change) setPolicy(p *mesh.Policy) {
	e.removePolicy(p.Key())
	e.policies.set(p.Key(), p)
	switch p.Scope {
	case mesh.ScopeGlobal:
		e.global = append(slices.Clone(e.global), p)
		slices.SortFunc(e.global, comparePolicies)
	case mesh.ScopeNamespace:
		insert(e.namespace, p.Namespace, p, comparePolicies)
	case mesh.ScopeWorkload:
	}
}

func (e *change) removePolicy(key string) {
	p, ok := e.policies.get(key)
	if !ok {
		return
	}
	e.policies.remove(key)
	switch p.Scope {
	case mesh.ScopeGlobal:
		e.global = slices.DeleteFunc(slices.Clone(e.global), func(g *mesh.Policy) bool { return g.Key() == key })
	case mesh.ScopeNamespace:
		take(e.namespace, p.Namespace, p, comparePolicies)
	case mesh.ScopeWorkload:
	}
}
