package xds

import "github.com/fairlead-mesh/fairlead/pkg/mesh"

// interner makes equal strings of one response share their memory: the workloads
// of a mesh repeat a few thousand namespaces, nodes and hostnames. It lives as long as
// the decoding of that response, so it is bounded by it.
type interner map[string]string

func (i interner) share(fields ...*string) {
	for _, s := range fields {
		known, ok := i[*s]
		if !ok {
			i[*s] = *s
			continue
		}
		*s = known
	}
}

func (i interner) workload(w *mesh.Workload) {
	i.share(&w.Namespace, &w.TrustDomain, &w.ServiceAccount, &w.Network, &w.Cluster, &w.Node,
		&w.Locality.Region, &w.Locality.Zone, &w.Locality.Subzone, &w.WorkloadName, &w.CanonicalName, &w.CanonicalRevision)
	if w.Waypoint != nil {
		i.gateway(w.Waypoint)
	}
	if w.NetworkGateway != nil {
		i.gateway(w.NetworkGateway)
	}
	for n := range w.Policies {
		i.share(&w.Policies[n])
	}
	if len(w.Services) == 0 {
		return
	}
	services := make(map[mesh.ServiceKey][]mesh.Port, len(w.Services))
	for key, ports := range w.Services {
		i.share(&key.Namespace, &key.Hostname)
		services[key] = ports
	}
	w.Services = services
}

func (i interner) service(s *mesh.Service) {
	i.share(&s.Key.Namespace, &s.Key.Hostname)
	for n := range s.VIPs {
		i.share(&s.VIPs[n].Network)
	}
	if s.Waypoint != nil {
		i.gateway(s.Waypoint)
	}
}

func (i interner) gateway(g *mesh.GatewayAddr) {
	i.share(&g.Service.Namespace, &g.Service.Hostname, &g.Addr.Network)
}
