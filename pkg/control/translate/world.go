package translate

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// world is the objects with the indexes that one translation needs.
type world struct {
	*source.Objects
	opts       Options
	namespaces map[string]*corev1.Namespace
	nodes      map[string]*corev1.Node
	waypoints  map[string]*waypoint // by namespace/name
	services   []*service
	selectors  selectors
	families   []corev1.IPFamily // of the cluster, the first is the default
	statuses   map[status.Object]*status.Status
}

func newWorld(in *source.Objects, opts Options) *world {
	w := &world{
		Objects: in, opts: opts,
		namespaces: make(map[string]*corev1.Namespace, len(in.Namespaces)),
		nodes:      make(map[string]*corev1.Node, len(in.Nodes)),
		statuses:   map[status.Object]*status.Status{},
	}
	for _, n := range in.Namespaces {
		w.namespaces[n.Name] = n
	}
	for _, n := range in.Nodes {
		w.nodes[n.Name] = n
	}
	w.families = clusterFamilies(in)
	w.waypoints = findWaypoints(w)
	return w
}

// clusterFamilies are the address families of the cluster: what an API server
// is told and a directory is not.
func clusterFamilies(in *source.Objects) []corev1.IPFamily {
	families := serviceFamilies(in.Services)
	for _, p := range in.Pods {
		if !p.Spec.HostNetwork {
			families = addFamilies(families, podIPs(p))
		}
	}
	if len(families) == 0 {
		return []corev1.IPFamily{corev1.IPv4Protocol}
	}
	return families
}

// serviceFamilies are those of the addresses of services, in their order.
func serviceFamilies(services []*corev1.Service) (families []corev1.IPFamily) {
	for _, s := range services {
		families = addFamilies(families, clusterIPs(s))
	}
	return families
}

func addFamilies(families []corev1.IPFamily, addresses []string) []corev1.IPFamily {
	for _, t := range addresses {
		if a, err := netip.ParseAddr(t); err == nil && !slices.Contains(families, family(a)) {
			families = append(families, family(a))
		}
	}
	return families
}

func family(a netip.Addr) corev1.IPFamily {
	if a.Unmap().Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// namespace is the metadata of a namespace; one that has no object has no labels.
func (w *world) namespace(name string) metav1.ObjectMeta {
	if n := w.namespaces[name]; n != nil {
		return n.ObjectMeta
	}
	return metav1.ObjectMeta{Name: name}
}

func (w *world) root() string { return w.Mesh.GetRootNamespace() }

// condition adds to what is said about an object.
func (w *world) condition(o status.Object, c status.Condition) {
	w.status(o).Set(c)
}

func (w *world) status(o status.Object) *status.Status {
	s := w.statuses[o]
	if s == nil {
		s = &status.Status{Object: o}
		w.statuses[o] = s
	}
	return s
}

// said is what is said of all objects, sorted.
func (w *world) said() []status.Status {
	var out []status.Status
	for _, s := range w.statuses {
		out = append(out, *s)
	}
	status.Sort(out)
	return out
}

// trustDomain is what the wire says of it: nothing, for the default.
func (w *world) trustDomain() string {
	if td := w.Mesh.GetTrustDomain(); td != "cluster.local" {
		return td
	}
	return ""
}

// selects tells whether labels hold all that a selector wants. An empty
// selector selects nothing here.
func selects(selector, labels map[string]string) bool {
	if len(selector) == 0 {
		return false
	}
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// oldest orders objects as Istio does where only one can win: by age, then name.
func oldest[T metav1.Object](objects []T) []T {
	return slices.SortedStableFunc(slices.Values(objects), func(a, b T) int {
		at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
		return cmp.Or(at.Compare(bt.Time), cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
}

// address is an IP address as the wire has it, IPv4 in four bytes.
func address(a netip.Addr) []byte { return a.Unmap().AsSlice() }

func (w *world) networkAddress(a netip.Addr) *workloadapi.NetworkAddress {
	return &workloadapi.NetworkAddress{Network: w.opts.Network, Address: address(a)}
}
