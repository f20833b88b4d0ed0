package store

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Snapshot is the mesh at one moment. It never changes and may be kept.
type Snapshot struct {
	generation uint64
	changed    chan struct{}

	workloads table[mesh.WorkloadID, *mesh.Workload]
	byAddr    index[mesh.NetworkAddr, *mesh.Workload]
	endpoints index[mesh.ServiceKey, *mesh.Workload]

	services   table[mesh.ServiceKey, *mesh.Service]
	byVIP      index[mesh.NetworkAddr, *mesh.Service]
	byHostname index[string, *mesh.Service]
	prefixes   []prefixEntry // longest first

	policies  table[string, *mesh.Policy]
	global    []*mesh.Policy
	namespace index[string, *mesh.Policy]
}

type prefixEntry struct {
	prefix  mesh.NetworkPrefix
	service *mesh.Service
}

// Generation rises with every change.
func (s *Snapshot) Generation() uint64 { return s.generation }

// Changed closes when there is a newer snapshot.
func (s *Snapshot) Changed() <-chan struct{} { return s.changed }

// Workload finds a workload by its uid, or nil.
func (s *Snapshot) Workload(id mesh.WorkloadID) *mesh.Workload {
	w, _ := s.workloads.get(id)
	return w
}

// WorkloadByAddr finds who has an address, or nil. Workloads on their node's
// network are never found: they share its address. Where several claim it, the
// one with the least uid has it, on every node.
func (s *Snapshot) WorkloadByAddr(addr mesh.NetworkAddr) *mesh.Workload {
	if all, _ := s.byAddr.get(addr); len(all) > 0 {
		return all[0]
	}
	return nil
}

// Service finds a service by its key, or nil.
func (s *Snapshot) Service(key mesh.ServiceKey) *mesh.Service {
	svc, _ := s.services.get(key)
	return svc
}

// ServiceByVIP finds the service of a virtual address, or of the longest range
// that holds it, or nil.
func (s *Snapshot) ServiceByVIP(addr mesh.NetworkAddr) *mesh.Service {
	if all, _ := s.byVIP.get(addr); len(all) > 0 {
		return all[0]
	}
	for _, p := range s.prefixes {
		if p.prefix.Network == addr.Network && p.prefix.Prefix.Contains(addr.Addr) {
			return p.service
		}
	}
	return nil
}

// ServiceByHostname finds a service by name as a client in namespace sees it:
// its own namespace's first, then the canonical one, then the first by
// namespace; services that are not visible to it are not found.
func (s *Snapshot) ServiceByHostname(hostname, namespace string) *mesh.Service {
	all, _ := s.byHostname.get(strings.ToLower(hostname))
	var found *mesh.Service
	for _, svc := range all {
		switch {
		case svc.Key.Namespace == namespace:
			return svc
		case svc.Visibility == mesh.VisibleNamespace:
		case found == nil, svc.Canonical && !found.Canonical:
			found = svc
		}
	}
	return found
}

// Endpoints are the workloads behind a service, by uid. The slice is the
// snapshot's: do not change it.
func (s *Snapshot) Endpoints(key mesh.ServiceKey) []*mesh.Workload {
	all, _ := s.endpoints.get(key)
	return all
}

// ServicesOf are the services that w is an endpoint of, by key.
func (s *Snapshot) ServicesOf(w *mesh.Workload) []*mesh.Service {
	var out []*mesh.Service
	for key := range w.Services {
		if svc := s.Service(key); svc != nil {
			out = append(out, svc)
		}
	}
	slices.SortFunc(out, compareServices)
	return out
}

// Policies are those that hold for connections to w: its namespace's, the
// mesh's, and those that it names. missing are named ones that have not arrived.
func (s *Snapshot) Policies(w *mesh.Workload) (policies []*mesh.Policy, missing []string) {
	inNamespace, _ := s.namespace.get(w.Namespace)
	policies = make([]*mesh.Policy, 0, len(s.global)+len(inNamespace)+len(w.Policies))
	policies = append(append(policies, s.global...), inNamespace...)
	for _, key := range w.Policies {
		if p, ok := s.policies.get(key); ok {
			policies = append(policies, p)
		} else {
			missing = append(missing, key)
		}
	}
	return policies, missing
}

// Policy finds a policy by its key, or nil.
func (s *Snapshot) Policy(key string) *mesh.Policy {
	p, _ := s.policies.get(key)
	return p
}

// Workloads lists all workloads, in no order.
func (s *Snapshot) Workloads() []*mesh.Workload { return values(&s.workloads) }

// Services lists all services, in no order.
func (s *Snapshot) Services() []*mesh.Service { return values(&s.services) }

// AllPolicies lists all policies, in no order.
func (s *Snapshot) AllPolicies() []*mesh.Policy { return values(&s.policies) }

func values[K comparable, V any](t *table[K, V]) []V {
	out := make([]V, 0, t.size)
	t.each(func(_ K, v V) bool {
		out = append(out, v)
		return true
	})
	return out
}

func compareWorkloads(a, b *mesh.Workload) int { return compareText(a.UID, b.UID) }

func compareServices(a, b *mesh.Service) int {
	if c := compareText(a.Key.Namespace, b.Key.Namespace); c != 0 {
		return c
	}
	return compareText(a.Key.Hostname, b.Key.Hostname)
}

func comparePolicies(a, b *mesh.Policy) int { return compareText(a.Key(), b.Key()) }

func addresses(w *mesh.Workload) []mesh.NetworkAddr {
	if w.HostNetwork {
		return nil
	}
	out := make([]mesh.NetworkAddr, 0, len(w.Addrs))
	for _, a := range w.Addrs {
		out = append(out, mesh.NewNetworkAddr(w.Network, a))
	}
	return out
}

func prefixLess(a, b prefixEntry) int {
	if c := b.prefix.Prefix.Bits() - a.prefix.Prefix.Bits(); c != 0 {
		return c
	}
	if c := netip.Addr.Compare(a.prefix.Prefix.Addr(), b.prefix.Prefix.Addr()); c != 0 {
		return c
	}
	return compareServices(a.service, b.service)
}
