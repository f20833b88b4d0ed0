package translate

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// workload is a workload with what the wire does not say of it.
type workload struct {
	wire     *workloadapi.Workload
	labels   map[string]string
	waypoint *waypoint // for its own addresses, or nil
}

// annotationServiceAccount names the service account that a Gateway's pods run
// as; without it they run as one of the Gateway's own name.
const annotationServiceAccount = "gateway.istio.io/service-account"

func serviceAccount(g *gatewayv1.Gateway) string {
	if name := g.Annotations[annotationServiceAccount]; name != "" {
		return name
	}
	return g.Name
}

// model is the mesh as the translation for waypoints sees it.
func (w *world) model(workloads []*workload) *model.Model {
	m, services, waypoints := w.modelWithoutEndpoints()
	w.modelEndpoints(m, workloads, services, waypoints)
	for _, all := range m.Endpoints {
		slices.SortFunc(all, byName)
	}
	for _, wp := range m.Waypoints {
		slices.SortFunc(wp.Workloads, byName)
	}
	return m
}

func byName(a, b *model.Endpoint) int { return cmp.Compare(a.Name, b.Name) }

// modelWithoutEndpoints has the services, by their keys too, and the waypoints that they
// are bound to.
func (w *world) modelWithoutEndpoints() (*model.Model, map[string]*model.Service, map[*waypoint]*model.Waypoint) {
	m := &model.Model{
		Objects: w.Objects, ClusterDomain: w.Settings.ClusterDomain,
		TrustDomain: w.Mesh.GetTrustDomain(), TrustDomainAliases: w.Mesh.GetTrustDomainAliases(),
		ClusterID: w.opts.ClusterID, Network: w.opts.Network,
	}
	waypoints := map[*waypoint]*model.Waypoint{}
	for _, p := range w.waypoints {
		g := p.gateway
		wp := &model.Waypoint{Key: model.Key{Namespace: g.Namespace, Name: g.Name}, Gateway: g, ServiceAccount: serviceAccount(g)}
		waypoints[p] = wp
		m.Waypoints = append(m.Waypoints, wp)
	}
	slices.SortFunc(m.Waypoints, func(a, b *model.Waypoint) int {
		return cmp.Or(cmp.Compare(a.Key.Namespace, b.Key.Namespace), cmp.Compare(a.Key.Name, b.Key.Name))
	})
	services := map[string]*model.Service{}
	for _, s := range w.services {
		ms := modelService(s)
		ms.Waypoint = waypoints[s.waypoint]
		services[s.key] = ms
		m.Services = append(m.Services, ms)
	}
	slices.SortFunc(m.Services, func(a, b *model.Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Hostname, b.Hostname))
	})
	m.Endpoints = make([][]*model.Endpoint, len(m.Services))
	for i, s := range m.Services {
		s.Index = i
		if s.Waypoint != nil {
			s.Waypoint.Services = append(s.Waypoint.Services, s)
		}
	}
	return m, services, waypoints
}

func modelService(s *service) *model.Service {
	out := &model.Service{
		Namespace: s.wire.Namespace, Name: s.wire.Name, Hostname: s.wire.Hostname, SubjectAltNames: s.wire.SubjectAltNames,
		Ports: s.ports, Resolution: networkingapi.ServiceEntry_STATIC, Kube: s.kube, Entry: s.object,
	}
	if s.entry != nil {
		out.Resolution = s.entry.Resolution
		out.MeshExternal = s.entry.Location == networkingapi.ServiceEntry_MESH_EXTERNAL
	}
	for _, a := range s.wire.Addresses {
		addr, ok := netip.AddrFromSlice(a.Address)
		if !ok {
			continue
		}
		bits := addr.BitLen()
		if a.Length != nil {
			bits = int(a.GetLength())
		}
		out.Addresses = append(out.Addresses, netip.PrefixFrom(addr, bits))
	}
	return out
}

// modelEndpoints gives services and waypoints the workloads behind them.
func (w *world) modelEndpoints(m *model.Model, workloads []*workload, services map[string]*model.Service, waypoints map[*waypoint]*model.Waypoint) {
	unready := map[string]bool{}
	for _, s := range w.services {
		unready[s.key] = s.unready()
	}
	tunnels := map[string]*workloadapi.Workload{} // by address
	for _, wl := range workloads {
		if wl.wire.TunnelProtocol == workloadapi.TunnelProtocol_HBONE {
			for _, a := range wl.wire.Addresses {
				tunnels[string(a)] = wl.wire
			}
		}
	}
	for _, wl := range workloads {
		e := w.modelEndpoint(wl)
		if len(wl.wire.Addresses) > 0 && !e.Tunnel {
			// The address of an endpoint may be a pod's, which is reached as such.
			if pod := tunnels[string(wl.wire.Addresses[0])]; pod != nil {
				e.Tunnel, e.Namespace, e.ServiceAccount = true, pod.Namespace, pod.ServiceAccount
			}
		}
		// The address of one on the node's network is not its own.
		if wp := waypoints[wl.waypoint]; wp != nil && wl.wire.NetworkMode != workloadapi.NetworkMode_HOST_NETWORK {
			wp.Workloads = append(wp.Workloads, e)
		}
		for key, ports := range wl.wire.Services {
			if s := services[key]; s != nil && takes(s, ports) {
				m.Endpoints[s.Index] = append(m.Endpoints[s.Index], endpointOf(e, ports, unready[key]))
			}
		}
	}
}

// unready tells whether a service takes endpoints that are not ready.
func (s *service) unready() bool {
	return s.wire.LoadBalancing.GetHealthPolicy() == workloadapi.LoadBalancing_ALLOW_ALL
}

// takes tells whether a workload with those ports is an endpoint of a service.
func takes(s *model.Service, ports *workloadapi.PortList) bool {
	return len(ports.GetPorts()) > 0 && s.Resolution != networkingapi.ServiceEntry_NONE
}

// endpointOf is a workload as an endpoint of one service.
func endpointOf(e *model.Endpoint, ports *workloadapi.PortList, unready bool) *model.Endpoint {
	of := *e
	of.Ready = e.Ready || unready
	of.Ports = make(map[uint32]uint32, len(ports.GetPorts()))
	for _, p := range ports.GetPorts() {
		of.Ports[p.ServicePort] = p.TargetPort
	}
	return &of
}

func (w *world) modelEndpoint(wl *workload) *model.Endpoint {
	x := wl.wire
	e := &model.Endpoint{
		Name: x.Uid, Hostname: x.Hostname, Labels: wl.labels,
		Tunnel: x.TunnelProtocol == workloadapi.TunnelProtocol_HBONE, Ready: x.Status == workloadapi.WorkloadStatus_HEALTHY,
		Weight: x.Capacity.GetValue(), Namespace: x.Namespace, ServiceAccount: x.ServiceAccount,
		Workload: x.WorkloadName, WorkloadType: strings.ToLower(x.WorkloadType.String()),
		CanonicalService: x.CanonicalName, CanonicalRevision: x.CanonicalRevision,
		Node: x.Node, Region: x.Locality.GetRegion(), Zone: x.Locality.GetZone(), SubZone: x.Locality.GetSubzone(),
		Cluster: x.ClusterId, Network: x.Network,
	}
	for i, b := range x.Addresses {
		addr, ok := netip.AddrFromSlice(b)
		switch {
		case !ok:
		case i == 0:
			e.Address = addr
		default:
			e.MoreAddresses = append(e.MoreAddresses, addr)
		}
	}
	return e
}
