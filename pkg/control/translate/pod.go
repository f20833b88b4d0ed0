package translate

import (
	"net/netip"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

const (
	annotationRedirection = "ambient.istio.io/redirection"
	labelTunnel           = "networking.istio.io/tunnel"
	labelSubzone          = "topology.istio.io/subzone"
	labelNetwork          = "topology.istio.io/network"
)

// podWorkloads are the pods that have an address, have not ended and are not
// about to.
func (w *world) podWorkloads(policies *policySet) []*workload {
	extra := w.sliceServicesOfPods()
	var out []*workload
	for _, p := range w.Pods {
		if !livePod(p) {
			continue
		}
		wl, bound := w.pod(p)
		wl.Services = w.servicesOfPod(p)
		for key, ports := range extra[p] {
			if wl.Services == nil {
				wl.Services = map[string]*workloadapi.PortList{}
			}
			if wl.Services[key] == nil {
				wl.Services[key] = ports
			}
		}
		wl.AuthorizationPolicies = policies.forWorkload(p.Namespace, p.Labels)
		out = append(out, &workload{wire: wl, labels: p.Labels, waypoint: bound})
	}
	return out
}

// livePod tells whether a pod can take connections. One that is being deleted
// takes none, though it may still run.
func livePod(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed && len(podIPs(p)) > 0
}

func podIPs(p *corev1.Pod) []string {
	var ips []string
	for _, ip := range p.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	if len(ips) == 0 && p.Status.PodIP != "" {
		ips = []string{p.Status.PodIP}
	}
	return ips
}

func (w *world) podUID(p *corev1.Pod) string {
	return w.opts.ClusterID + "//Pod/" + p.Namespace + "/" + p.Name
}

func (w *world) pod(p *corev1.Pod) (*workloadapi.Workload, *waypoint) {
	name, kind := ownerOf(p)
	wl := &workloadapi.Workload{
		Uid:  w.podUID(p),
		Name: p.Name, Namespace: p.Namespace, Network: w.opts.Network, ClusterId: w.opts.ClusterID,
		TrustDomain: w.trustDomain(), ServiceAccount: p.Spec.ServiceAccountName, Node: p.Spec.NodeName,
		WorkloadName: name, WorkloadType: kind,
		CanonicalName: canonicalName(p.Labels, name), CanonicalRevision: canonicalRevision(p.Labels),
		Locality: w.nodeLocality(p.Spec.NodeName),
	}
	if w.Settings.OtherProtocols == "deny" {
		wl.Extensions = append(wl.Extensions, &workloadapi.Extension{Name: mesh.ExtensionTCPOnly})
	}
	if n := p.Labels[labelNetwork]; n != "" {
		wl.Network = n
	}
	if wl.ServiceAccount == "" {
		wl.ServiceAccount = "default"
	}
	for _, ip := range podIPs(p) {
		if a, err := netip.ParseAddr(ip); err == nil {
			wl.Addresses = append(wl.Addresses, address(a))
		}
	}
	if p.Spec.HostNetwork {
		wl.NetworkMode = workloadapi.NetworkMode_HOST_NETWORK
	} else if p.Annotations[annotationRedirection] == "enabled" || speaksTunnel(p.Labels) {
		wl.TunnelProtocol = workloadapi.TunnelProtocol_HBONE
	}
	if !ready(p) {
		wl.Status = workloadapi.WorkloadStatus_UNHEALTHY
	}
	var bound *waypoint
	if p.Labels[labelGatewayName] == "" && p.Labels[labelManaged] == "" {
		object := status.Object{APIVersion: "v1", Kind: "Pod", Namespace: p.Namespace, Name: p.Name}
		bound = w.bind(object, p.ObjectMeta, trafficWorkload)
		wl.Waypoint = bound.where()
	}
	return wl, bound
}

// speaksTunnel tells whether a workload terminates HBONE itself.
func speaksTunnel(labels map[string]string) bool {
	for t := range strings.SplitSeq(labels[labelTunnel], ",") {
		if t == "http" {
			return true
		}
	}
	return false
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (w *world) nodeLocality(name string) *workloadapi.Locality {
	n := w.nodes[name]
	if n == nil {
		return nil
	}
	l := &workloadapi.Locality{Region: n.Labels[corev1.LabelTopologyRegion], Zone: n.Labels[corev1.LabelTopologyZone], Subzone: n.Labels[labelSubzone]}
	if l.Region == "" && l.Zone == "" && l.Subzone == "" {
		return nil
	}
	return l
}

var cronJobRun = regexp.MustCompile(`^(.+)-\d{8,10}$`)

// ownerOf is what a pod is one of: the Deployment of its ReplicaSet, the CronJob
// of its Job, its controller otherwise, else itself.
func ownerOf(p *corev1.Pod) (string, workloadapi.WorkloadType) {
	owner := metav1.GetControllerOf(p)
	if owner == nil {
		return p.Name, workloadapi.WorkloadType_POD
	}
	switch owner.Kind {
	case "ReplicaSet":
		if hash := p.Labels["pod-template-hash"]; hash != "" {
			if name, ok := strings.CutSuffix(owner.Name, "-"+hash); ok {
				return name, workloadapi.WorkloadType_DEPLOYMENT
			}
		}
	case "Deployment":
		return owner.Name, workloadapi.WorkloadType_DEPLOYMENT
	case "Job":
		if m := cronJobRun.FindStringSubmatch(owner.Name); m != nil {
			return m[1], workloadapi.WorkloadType_CRONJOB
		}
		return owner.Name, workloadapi.WorkloadType_JOB
	}
	return owner.Name, workloadapi.WorkloadType_POD
}

func canonicalName(labels map[string]string, otherwise string) string {
	for _, l := range []string{"service.istio.io/canonical-name", "app.kubernetes.io/name", "app"} {
		if labels[l] != "" {
			return labels[l]
		}
	}
	return otherwise
}

func canonicalRevision(labels map[string]string) string {
	for _, l := range []string{"service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"} {
		if labels[l] != "" {
			return labels[l]
		}
	}
	return "latest"
}

// servicesOfPod are the services whose selector selects a pod, with the pod's
// own ports.
func (w *world) servicesOfPod(p *corev1.Pod) map[string]*workloadapi.PortList {
	var out map[string]*workloadapi.PortList
	for s := range w.selectors.of(p.Namespace, p.Labels) {
		list := &workloadapi.PortList{}
		switch {
		case s.kube != nil:
			for _, port := range s.kube.Spec.Ports {
				if target := podPort(port, p); carried(port.Protocol) && target != 0 {
					list.Ports = append(list.Ports, &workloadapi.Port{ServicePort: uint32(port.Port), TargetPort: target})
				}
			}
		case s.entry != nil:
			list = entryPorts(s.entry, nil)
		}
		if out == nil {
			out = map[string]*workloadapi.PortList{}
		}
		out[s.key] = list
	}
	return out
}

// podPort is the port of a pod behind a service's port; 0: it has none of that name.
func podPort(port corev1.ServicePort, p *corev1.Pod) uint32 {
	if port.TargetPort.Type != intstr.String {
		return numericTarget(port)
	}
	for _, containers := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for _, c := range containers {
			for _, cp := range c.Ports {
				if cp.Name == port.TargetPort.StrVal && carried(cp.Protocol) {
					return uint32(cp.ContainerPort)
				}
			}
		}
	}
	return 0
}
