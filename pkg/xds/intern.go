package xds

import (
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// interner makes equal parts of one response share their memory: the workloads of
// a mesh repeat a few thousand namespaces, nodes and hostnames, and the pods of a
// deployment have the same services and policies. It lives as long as the decoding of
// that response, so it is bounded by it.
type interner struct {
	text     map[string]string
	services map[string]map[mesh.ServiceKey][]mesh.Port
	policies map[string][]string
}

func newInterner() *interner {
	return &interner{map[string]string{}, map[string]map[mesh.ServiceKey][]mesh.Port{}, map[string][]string{}}
}

func (i *interner) share(fields ...*string) {
	for _, s := range fields {
		known, ok := i.text[*s]
		if !ok {
			i.text[*s] = *s
			continue
		}
		*s = known
	}
}

// workload shares what w has in common with others; name is the resource's, equal
// to its uid and kept elsewhere anyway.
func (i *interner) workload(w *mesh.Workload, name string) {
	w.UID = mesh.WorkloadID(name)
	if strings.HasSuffix(name, w.Name) {
		w.Name = name[len(name)-len(w.Name):]
	}
	i.share(&w.Namespace, &w.TrustDomain, &w.ServiceAccount, &w.Network, &w.Cluster, &w.Node,
		&w.Locality.Region, &w.Locality.Zone, &w.Locality.Subzone, &w.WorkloadName, &w.CanonicalName, &w.CanonicalRevision)
	if w.Waypoint != nil {
		i.gateway(w.Waypoint)
	}
	if w.NetworkGateway != nil {
		i.gateway(w.NetworkGateway)
	}
	if len(w.Policies) > 0 {
		w.Policies = shareValue(i.policies, strings.Join(w.Policies, "\x00"), w.Policies)
	}
	if len(w.Services) > 0 {
		w.Services = shareValue(i.services, describe(w.Services), w.Services)
	}
}

func shareValue[V any](known map[string]V, key string, v V) V {
	if same, ok := known[key]; ok {
		return same
	}
	known[key] = v
	return v
}

// describe is equal for equal services.
func describe(services map[mesh.ServiceKey][]mesh.Port) string {
	parts := make([]string, 0, len(services))
	for key, ports := range services {
		b := make([]byte, 0, 128)
		b = append(append(append(b, key.Namespace...), 0), key.Hostname...)
		for _, p := range ports {
			for _, n := range [...]int64{int64(p.Service), int64(p.Target), int64(p.Protocol)} {
				b = strconv.AppendInt(append(b, 0), n, 10)
			}
		}
		parts = append(parts, string(b))
	}
	slices.Sort(parts)
	return strings.Join(parts, "\x01")
}

func (i *interner) service(s *mesh.Service) {
	i.share(&s.Key.Namespace, &s.Key.Hostname)
	for n := range s.VIPs {
		i.share(&s.VIPs[n].Network)
	}
	if s.Waypoint != nil {
		i.gateway(s.Waypoint)
	}
}

func (i *interner) gateway(g *mesh.GatewayAddr) {
	i.share(&g.Service.Namespace, &g.Service.Hostname, &g.Addr.Network)
}
