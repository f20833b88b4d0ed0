package translate

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
)

// sliceEndpoint is one address of an EndpointSlice that was not made from a
// selector.
type sliceEndpoint struct {
	slice   *discoveryv1.EndpointSlice
	service *service
	addr    netip.Addr
	ready   bool
	pod     *corev1.Pod // the pod that has the address, or nil
}

// sliceEndpoints are the endpoints that only EndpointSlices tell of: those that
// are no pods, and those of services without selector.
func (w *world) sliceEndpoints() []sliceEndpoint {
	services := map[[2]string]*service{}
	for _, s := range w.services {
		if s.kube != nil {
			services[[2]string{s.kube.Namespace, s.kube.Name}] = s
		}
	}
	pods := map[netip.Addr]*corev1.Pod{}
	for _, p := range w.Pods {
		if !livePod(p) || p.Spec.HostNetwork {
			continue
		}
		for _, ip := range podIPs(p) {
			if a, err := netip.ParseAddr(ip); err == nil {
				pods[a] = p
			}
		}
	}
	var out []sliceEndpoint
	for _, slice := range w.EndpointSlices {
		s := services[[2]string{slice.Namespace, slice.Labels[discoveryv1.LabelServiceName]}]
		if s == nil || slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for _, e := range slice.Endpoints {
			if e.Conditions.Terminating != nil && *e.Conditions.Terminating {
				continue
			}
			isPod := e.TargetRef != nil && e.TargetRef.Kind == "Pod"
			for _, text := range e.Addresses {
				a, err := netip.ParseAddr(text)
				if err != nil || isPod && (len(s.selector) > 0 || pods[a] == nil) {
					continue // a selected pod is known by itself
				}
				out = append(out, sliceEndpoint{slice, s, a, e.Conditions.Ready == nil || *e.Conditions.Ready, pods[a]})
			}
		}
	}
	return out
}

// sliceServicesOfPods are services without selector whose slices name a pod.
func (w *world) sliceServicesOfPods() map[*corev1.Pod]map[string]*workloadapi.PortList {
	out := map[*corev1.Pod]map[string]*workloadapi.PortList{}
	for _, e := range w.sliceEndpoints() {
		if e.pod == nil {
			continue
		}
		if out[e.pod] == nil {
			out[e.pod] = map[string]*workloadapi.PortList{}
		}
		out[e.pod][e.service.key] = slicePorts(e.slice, e.service.kube)
	}
	return out
}

// sliceWorkloads are the endpoints that are no pods. Their addresses are of the
// underlying network, where others may have them too: they are never looked up
// by address.
func (w *world) sliceWorkloads() []*workload {
	found := map[string]*workload{}
	for _, e := range w.sliceEndpoints() {
		if e.pod != nil {
			continue
		}
		uid := w.opts.ClusterID + "/discovery.k8s.io/EndpointSlice/" + e.slice.Namespace + "/" + e.slice.Name + "/" + e.addr.String()
		wl := &workloadapi.Workload{
			Uid: uid, Name: e.slice.Name, Namespace: e.slice.Namespace, Network: w.opts.Network, ClusterId: w.opts.ClusterID,
			TrustDomain: w.trustDomain(), Addresses: [][]byte{address(e.addr)}, NetworkMode: workloadapi.NetworkMode_HOST_NETWORK,
			Services: map[string]*workloadapi.PortList{e.service.key: slicePorts(e.slice, e.service.kube)},
		}
		if !e.ready {
			wl.Status = workloadapi.WorkloadStatus_UNHEALTHY
		}
		found[uid] = &workload{wire: wl}
	}
	return slices.Collect(maps.Values(found))
}

// slicePorts joins a service's ports with a slice's by name.
func slicePorts(slice *discoveryv1.EndpointSlice, s *corev1.Service) *workloadapi.PortList {
	list := &workloadapi.PortList{}
	for _, port := range s.Spec.Ports {
		for _, p := range slice.Ports {
			name := ""
			if p.Name != nil {
				name = *p.Name
			}
			if name == port.Name && carried(port.Protocol) && p.Port != nil {
				list.Ports = append(list.Ports, &workloadapi.Port{ServicePort: uint32(port.Port), TargetPort: uint32(*p.Port)})
				break
			}
		}
	}
	return list
}
