package informer

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// annotationRedirection is the one of a pod's annotations that translation reads.
const annotationRedirection = "ambient.istio.io/redirection"

// head is the metadata that translation reads. What every write changes stays out, so
// that a write which changes nothing else is no change.
func head(m metav1.ObjectMeta) metav1.ObjectMeta {
	out := metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, Labels: m.Labels, Annotations: m.Annotations,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp, OwnerReferences: m.OwnerReferences,
	}
	if _, applied := m.Annotations[corev1.LastAppliedConfigAnnotation]; applied {
		out.Annotations = maps.Clone(m.Annotations)
		delete(out.Annotations, corev1.LastAppliedConfigAnnotation)
	}
	return out
}

// pod is what translation, and the CA, read of a pod.
func pod(p *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{
		ObjectMeta: head(p.ObjectMeta),
		Spec: corev1.PodSpec{
			ServiceAccountName: p.Spec.ServiceAccountName, NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork,
			Containers: named(p.Spec.Containers), InitContainers: named(p.Spec.InitContainers),
		},
		Status: corev1.PodStatus{Phase: p.Status.Phase, PodIPs: p.Status.PodIPs},
	}
	out.OwnerReferences = nil
	if owner := metav1.GetControllerOf(p); owner != nil {
		out.OwnerReferences = []metav1.OwnerReference{{APIVersion: owner.APIVersion, Kind: owner.Kind, Name: owner.Name, Controller: owner.Controller}}
	}
	out.Annotations = nil
	if value, ok := p.Annotations[annotationRedirection]; ok {
		out.Annotations = map[string]string{annotationRedirection: value}
	}
	if len(out.Status.PodIPs) == 0 {
		out.Status.PodIP = p.Status.PodIP
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			out.Status.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	return out
}

// named are the containers with ports that a service can name.
func named(containers []corev1.Container) (out []corev1.Container) {
	for _, c := range containers {
		var ports []corev1.ContainerPort
		for _, p := range c.Ports {
			if p.Name != "" {
				ports = append(ports, corev1.ContainerPort{Name: p.Name, ContainerPort: p.ContainerPort, Protocol: p.Protocol})
			}
		}
		if len(ports) > 0 {
			out = append(out, corev1.Container{Name: c.Name, Ports: ports})
		}
	}
	return out
}

func service(s *corev1.Service) *corev1.Service {
	out := &corev1.Service{ObjectMeta: head(s.ObjectMeta), Spec: s.Spec}
	out.Generation = s.Generation // statuses say which they are of
	return out
}

func namespace(n *corev1.Namespace) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: head(n.ObjectMeta)}
}

func node(n *metav1.PartialObjectMetadata) *corev1.Node {
	out := &corev1.Node{ObjectMeta: head(n.ObjectMeta)}
	out.Annotations = nil
	return out
}

func endpointSlice(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: s.Name, Namespace: s.Namespace, UID: s.UID},
		AddressType: s.AddressType, Ports: s.Ports,
	}
	if name, ok := s.Labels[discoveryv1.LabelServiceName]; ok {
		out.Labels = map[string]string{discoveryv1.LabelServiceName: name}
	}
	for _, e := range s.Endpoints {
		kept := discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: discoveryv1.EndpointConditions{Ready: e.Conditions.Ready, Terminating: e.Conditions.Terminating}}
		if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
			kept.TargetRef = podReference
		}
		out.Endpoints = append(out.Endpoints, kept)
	}
	return out
}

// podReference is what is kept of a reference to a pod: that it is one.
var podReference = &corev1.ObjectReference{Kind: "Pod"}

// ofPods tells whether all endpoints of a slice are pods.
func ofPods(s *discoveryv1.EndpointSlice) bool {
	for _, e := range s.Endpoints {
		if e.TargetRef == nil {
			return false
		}
	}
	return true
}
