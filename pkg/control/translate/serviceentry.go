package translate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

const labelAutoAllocate = "networking.istio.io/enable-autoallocate-ip"

// serviceEntryServices are one service per host. A host that a Service has, or
// an older ServiceEntry of the namespace, is not served again.
func (w *world) serviceEntryServices() []*service {
	taken := map[string]string{}
	canonical := map[string]bool{}
	for _, s := range w.Services {
		host := w.kubeHostname(s)
		taken[host] = "Service " + s.Namespace + "/" + s.Name
	}
	var out []*service
	owners := w.addressOwners()
	for _, e := range oldest(w.ServiceEntries) {
		object := entryObject(e)
		for _, host := range e.Spec.Hosts {
			key := e.Namespace + "/" + host
			by := taken[host]
			if by == "" {
				by = taken[key]
			}
			if by != "" {
				w.condition(object, status.Condition{Type: status.Served, Status: "False", Reason: "HostTaken",
					Message: fmt.Sprintf("host %s is not served: %s has it", host, by)})
				continue
			}
			taken[key] = "ServiceEntry " + e.Namespace + "/" + e.Name
			s := w.entryService(e, host, owners)
			s.wire.Canonical = !canonical[host]
			canonical[host] = true
			out = append(out, s)
		}
	}
	w.allocate(out)
	return out
}

// owner is who has an address.
type owner struct{ namespace, what string }

// addressOwners are the addresses that a ServiceEntry of another namespace cannot have:
// those of Kubernetes Services and of pods. Whoever has an address gets the traffic to
// it.
func (w *world) addressOwners() map[netip.Addr]owner {
	out := map[netip.Addr]owner{}
	if !slices.ContainsFunc(w.ServiceEntries, func(e *networkingv1.ServiceEntry) bool { return len(e.Spec.Addresses) > 0 }) {
		return out
	}
	note := func(text, namespace, what string) {
		if a, err := netip.ParseAddr(text); err == nil {
			out[a.Unmap()] = owner{namespace, what}
		}
	}
	for _, p := range w.Pods {
		if livePod(p) && !p.Spec.HostNetwork {
			for _, ip := range podIPs(p) {
				note(ip, p.Namespace, "Pod "+p.Namespace+"/"+p.Name)
			}
		}
	}
	for _, s := range w.Services {
		for _, ip := range clusterIPs(s) {
			note(ip, s.Namespace, "Service "+s.Namespace+"/"+s.Name)
		}
	}
	return out
}

func entryObject(e *networkingv1.ServiceEntry) status.Object {
	return status.Object{APIVersion: "networking.istio.io/v1", Kind: "ServiceEntry", Namespace: e.Namespace, Name: e.Name}
}

func (w *world) entryService(e *networkingv1.ServiceEntry, host string, owners map[netip.Addr]owner) *service {
	object := entryObject(e)
	bound := w.bind(object, e.ObjectMeta, trafficService)
	wire := &workloadapi.Service{
		Name: e.Name, Namespace: e.Namespace, Hostname: host, SubjectAltNames: e.Spec.SubjectAltNames,
		LoadBalancing: w.annotatedDistribution(e.Namespace, e.Annotations),
		Waypoint:      bound.where(),
	}
	wire.IngressUseWaypoint = wire.Waypoint != nil && w.ingressUsesWaypoint(e.ObjectMeta)
	var ports []model.Port
	for _, p := range e.Spec.Ports {
		if strings.EqualFold(p.Protocol, "UDP") {
			continue
		}
		protocol := namedProtocol(p.Protocol)
		ports = append(ports, model.Port{Name: p.Name, Number: p.Number, Protocol: protocol})
		wire.Ports = append(wire.Ports, &workloadapi.Port{ServicePort: p.Number, TargetPort: entryTarget(p), AppProtocol: wireProtocol(protocol)})
	}
	for _, text := range e.Spec.Addresses {
		block, err := source.ParseBlock(text)
		if err != nil {
			continue
		}
		if o, taken := owners[block.Addr()]; taken && block.IsSingleIP() && o.namespace != e.Namespace {
			w.condition(object, status.Condition{Type: status.Served, Status: "False", Reason: "AddressTaken",
				Message: fmt.Sprintf("address %s is not served: %s has it", block.Addr(), o.what)})
			continue
		}
		a := w.networkAddress(block.Addr())
		if !block.IsSingleIP() {
			bits := uint32(block.Bits())
			a.Length = &bits
		}
		wire.Addresses = append(wire.Addresses, a)
	}
	if e.Spec.Resolution == networkingapi.ServiceEntry_NONE {
		wire.LoadBalancing = &workloadapi.LoadBalancing{Mode: workloadapi.LoadBalancing_PASSTHROUGH, HealthPolicy: workloadapi.LoadBalancing_ALLOW_ALL}
	}
	if e.Spec.Resolution == networkingapi.ServiceEntry_DYNAMIC_DNS && strings.HasPrefix(host, "*") && wire.Waypoint == nil {
		w.condition(object, status.Condition{Type: status.WaypointMissing, Status: "True", Reason: "NoWaypointForWildcardService",
			Message: fmt.Sprintf("host %s can be resolved by a waypoint only, and none is bound", host)})
	}
	if e.Spec.Resolution == networkingapi.ServiceEntry_DYNAMIC_DNS && wire.Waypoint != nil {
		for _, p := range ports {
			if !p.Protocol.IsHTTP() && p.Protocol != model.TLS && p.Protocol != model.HTTPS {
				w.condition(object, status.Condition{Type: status.Served, Status: "False", Reason: "PortNotServed",
					Message: fmt.Sprintf("port %d of %s is not served: nothing in its bytes says which host is meant; connections to it are closed. Declare it HTTP or TLS", p.Number, host)})
			}
		}
	}
	return &service{wire: wire, key: serviceName(wire), selector: e.Spec.GetWorkloadSelector().GetLabels(), waypoint: bound, entry: &e.Spec, object: e, ports: ports}
}

func entryTarget(p *networkingapi.ServicePort) uint32 {
	if p.TargetPort != 0 {
		return p.TargetPort
	}
	return p.Number
}

// entryPorts are a ServiceEntry's ports at an endpoint, which may have its own
// numbers for their names.
func entryPorts(e *networkingapi.ServiceEntry, own map[string]uint32) *workloadapi.PortList {
	list := &workloadapi.PortList{}
	for _, p := range e.Ports {
		if strings.EqualFold(p.Protocol, "UDP") {
			continue
		}
		target := entryTarget(p)
		if own[p.Name] != 0 {
			target = own[p.Name]
		}
		list.Ports = append(list.Ports, &workloadapi.Port{ServicePort: p.Number, TargetPort: target})
	}
	return list
}

// allocates tells whether a host is given virtual addresses: it has none, and
// could not be told from others by the address called.
func allocates(e *networkingv1.ServiceEntry, host string) bool {
	wildcard := strings.HasPrefix(host, "*") && e.Spec.Resolution != networkingapi.ServiceEntry_DYNAMIC_DNS
	return len(e.Spec.Addresses) == 0 && e.Spec.Resolution != networkingapi.ServiceEntry_NONE && !wildcard && e.Labels[labelAutoAllocate] != "false"
}

// serviceEntryWorkloads are the endpoints written into ServiceEntries, and for
// hosts without any a workload that stands for the name itself.
func (w *world) serviceEntryWorkloads(policies *policySet) []*workload {
	served := map[string]*service{}
	for _, s := range w.services {
		if s.entry != nil {
			served[s.wire.Namespace+"/"+s.wire.Name+"/"+s.wire.Hostname] = s
		}
	}
	var out []*workload
	for _, e := range w.ServiceEntries {
		if e.Spec.Resolution == networkingapi.ServiceEntry_NONE || e.Spec.WorkloadSelector != nil {
			continue
		}
		var services []*service
		for _, host := range e.Spec.Hosts {
			if s := served[e.Namespace+"/"+e.Name+"/"+host]; s != nil {
				services = append(services, s)
			}
		}
		if len(e.Spec.Endpoints) == 0 && e.Spec.Resolution != networkingapi.ServiceEntry_STATIC {
			for _, s := range services {
				out = append(out, w.entryWorkload(e, &networkingapi.WorkloadEntry{Address: s.wire.Hostname}, []*service{s}, policies))
			}
			continue
		}
		seen := map[string]bool{}
		for _, endpoint := range e.Spec.Endpoints {
			if len(services) == 0 || seen[endpoint.Address] || strings.HasPrefix(endpoint.Address, "unix://") {
				continue
			}
			seen[endpoint.Address] = true
			out = append(out, w.entryWorkload(e, endpoint, services, policies))
		}
	}
	return out
}

func (w *world) entryWorkload(e *networkingv1.ServiceEntry, endpoint *networkingapi.WorkloadEntry, services []*service, policies *policySet) *workload {
	wl := w.endpoint(endpoint)
	wl.Uid = w.opts.ClusterID + "/networking.istio.io/ServiceEntry/" + e.Namespace + "/" + e.Name + "/" + endpoint.Address
	wl.Name, wl.Namespace = e.Name, e.Namespace
	wl.WorkloadName = e.Name
	wl.CanonicalName, wl.CanonicalRevision = canonicalName(e.Labels, e.Name), canonicalRevision(e.Labels)
	wl.Services = map[string]*workloadapi.PortList{}
	for _, s := range services {
		wl.Services[s.key] = entryPorts(s.entry, endpoint.Ports)
	}
	if len(wl.Addresses) > 0 { // policies are of no use at a name
		wl.AuthorizationPolicies = policies.forWorkload(e.Namespace, endpoint.Labels)
	}
	return &workload{wire: wl, labels: endpoint.Labels}
}

// endpoint is what a WorkloadEntry says, inlined or not.
func (w *world) endpoint(e *networkingapi.WorkloadEntry) *workloadapi.Workload {
	wl := &workloadapi.Workload{
		Network: w.opts.Network, ClusterId: w.opts.ClusterID, TrustDomain: w.trustDomain(), ServiceAccount: e.ServiceAccount,
		WorkloadType: workloadapi.WorkloadType_POD, Locality: parseLocality(e.Locality),
	}
	if e.Network != "" {
		wl.Network = e.Network
	}
	if e.Weight > 0 {
		wl.Capacity = capacity(e.Weight)
	}
	if a, err := netip.ParseAddr(e.Address); err == nil {
		wl.Addresses = [][]byte{address(a)}
	} else {
		wl.Hostname = e.Address
	}
	if speaksTunnel(e.Labels) {
		wl.TunnelProtocol = workloadapi.TunnelProtocol_HBONE
	}
	return wl
}

// parseLocality reads "region/zone/subzone", of which the end may be left out.
func parseLocality(s string) *workloadapi.Locality {
	if s == "" {
		return nil
	}
	parts := append(strings.SplitN(s, "/", 3), "", "")
	return &workloadapi.Locality{Region: parts[0], Zone: parts[1], Subzone: parts[2]}
}
