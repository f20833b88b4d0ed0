package translate

import (
	"maps"
	"strings"

	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

func capacity(weight uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(weight) }

func (w *world) workloadEntryWorkloads(policies *policySet) []*workload {
	var out []*workload
	for _, e := range w.WorkloadEntries {
		if e.DeletionTimestamp != nil || strings.HasPrefix(e.Spec.Address, "unix://") {
			continue
		}
		labels := labelsOfEntry(e)
		wl := w.endpoint(&e.Spec)
		wl.Uid = w.opts.ClusterID + "/networking.istio.io/WorkloadEntry/" + e.Namespace + "/" + e.Name
		wl.Name, wl.Namespace, wl.WorkloadName = e.Name, e.Namespace, e.Name
		wl.CanonicalName, wl.CanonicalRevision = canonicalName(labels, e.Name), canonicalRevision(labels)
		if speaksTunnel(labels) {
			wl.TunnelProtocol = workloadapi.TunnelProtocol_HBONE
		}
		if unhealthy(e) {
			wl.Status = workloadapi.WorkloadStatus_UNHEALTHY
		}
		object := status.Object{APIVersion: "networking.istio.io/v1", Kind: "WorkloadEntry", Namespace: e.Namespace, Name: e.Name}
		bound := w.bind(object, e.ObjectMeta, trafficWorkload)
		wl.Waypoint = bound.where()
		wl.Services = w.servicesOfEntry(e, labels)
		if len(wl.Addresses) > 0 {
			wl.AuthorizationPolicies = policies.forWorkload(e.Namespace, labels)
		}
		out = append(out, &workload{wire: wl, labels: labels, waypoint: bound})
	}
	return out
}

// labelsOfEntry are its own with those of its spec, which win.
func labelsOfEntry(e *networkingv1.WorkloadEntry) map[string]string {
	labels := maps.Clone(e.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, e.Spec.Labels)
	return labels
}

// unhealthy tells whether a health check of the entry is known to fail.
func unhealthy(e *networkingv1.WorkloadEntry) bool {
	for _, c := range e.Status.GetConditions() {
		if c.GetType() == "Healthy" {
			return c.GetStatus() == "False"
		}
	}
	return false
}

func (w *world) servicesOfEntry(e *networkingv1.WorkloadEntry, labels map[string]string) map[string]*workloadapi.PortList {
	var out map[string]*workloadapi.PortList
	for s := range w.selectors.of(e.Namespace, labels) {
		list := &workloadapi.PortList{}
		if s.entry != nil {
			list = entryPorts(s.entry, e.Spec.Ports)
		} else {
			for _, port := range s.kube.Spec.Ports {
				target := numericTarget(port)
				if port.TargetPort.Type == intstr.String {
					target = e.Spec.Ports[port.TargetPort.StrVal]
				} else if own := e.Spec.Ports[port.Name]; own != 0 {
					target = own
				}
				if carried(port.Protocol) && target != 0 {
					list.Ports = append(list.Ports, &workloadapi.Port{ServicePort: uint32(port.Port), TargetPort: target})
				}
			}
		}
		if out == nil {
			out = map[string]*workloadapi.PortList{}
		}
		out[s.key] = list
	}
	return out
}
