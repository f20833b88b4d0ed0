package informer

import (
	"fmt"
	"maps"
	"strings"

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

// readyAs are the conditions of pods, as far as they are read.
var readyAs = map[corev1.ConditionStatus][]corev1.PodCondition{
	corev1.ConditionTrue:    {{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	corev1.ConditionFalse:   {{Type: corev1.PodReady, Status: corev1.ConditionFalse}},
	corev1.ConditionUnknown: {{Type: corev1.PodReady, Status: corev1.ConditionUnknown}},
}

// pod is what translation, and the CA, read of a pod.
func (p *pools) pod(sent *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{
		ObjectMeta: head(sent.ObjectMeta),
		Spec: corev1.PodSpec{
			ServiceAccountName: p.text(sent.Spec.ServiceAccountName), NodeName: p.text(sent.Spec.NodeName), HostNetwork: sent.Spec.HostNetwork,
			Containers: p.named(sent.Spec.Containers), InitContainers: p.named(sent.Spec.InitContainers),
		},
		Status: corev1.PodStatus{Phase: sent.Status.Phase, PodIPs: sent.Status.PodIPs},
	}
	out.Namespace, out.Labels, out.Annotations, out.OwnerReferences = p.text(out.Namespace), p.set(out.Labels), nil, nil
	if o := metav1.GetControllerOf(sent); o != nil {
		out.OwnerReferences = p.owners.share(o.Kind+"/"+o.Name, []metav1.OwnerReference{{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, Controller: o.Controller}})
	}
	if value, ok := sent.Annotations[annotationRedirection]; ok {
		out.Annotations = p.set(map[string]string{annotationRedirection: value})
	}
	if len(out.Status.PodIPs) == 0 {
		out.Status.PodIP = sent.Status.PodIP
	}
	for _, c := range sent.Status.Conditions {
		if c.Type == corev1.PodReady {
			out.Status.Conditions = readyAs[c.Status]
		}
	}
	return out
}

// named are the containers with ports that a service can name.
func (p *pools) named(containers []corev1.Container) (out []corev1.Container) {
	var text strings.Builder
	for _, c := range containers {
		var ports []corev1.ContainerPort
		for _, port := range c.Ports {
			if port.Name != "" {
				ports = append(ports, corev1.ContainerPort{Name: port.Name, ContainerPort: port.ContainerPort, Protocol: port.Protocol})
				fmt.Fprintf(&text, "%s/%s/%d/%s ", c.Name, port.Name, port.ContainerPort, port.Protocol)
			}
		}
		if len(ports) > 0 {
			out = append(out, corev1.Container{Name: c.Name, Ports: ports})
		}
	}
	if len(out) == 0 {
		return nil
	}
	return p.containers.share(text.String(), out)
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

func (p *pools) endpointSlice(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: s.Name, Namespace: p.text(s.Namespace)},
		AddressType: s.AddressType, Ports: p.endpointPorts(s.Ports),
		Endpoints: make([]discoveryv1.Endpoint, 0, len(s.Endpoints)),
	}
	if name, ok := s.Labels[discoveryv1.LabelServiceName]; ok {
		out.Labels = p.set(map[string]string{discoveryv1.LabelServiceName: name})
	}
	for _, e := range s.Endpoints {
		kept := discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: discoveryv1.EndpointConditions{Ready: truth(e.Conditions.Ready), Terminating: truth(e.Conditions.Terminating)}}
		if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
			kept.TargetRef = podReference
		}
		out.Endpoints = append(out.Endpoints, kept)
	}
	return out
}

func (p *pools) endpointPorts(ports []discoveryv1.EndpointPort) []discoveryv1.EndpointPort {
	var text strings.Builder
	for _, port := range ports {
		if port.Name != nil {
			text.WriteString(*port.Name)
		}
		if port.Port != nil {
			fmt.Fprintf(&text, "/%d", *port.Port)
		}
		text.WriteByte(' ')
	}
	kept := make([]discoveryv1.EndpointPort, 0, len(ports))
	for _, port := range ports {
		kept = append(kept, discoveryv1.EndpointPort{Name: port.Name, Port: port.Port})
	}
	return p.ports.share(text.String(), kept)
}

var yes, no = true, false

// truth is one of two values that all share.
func truth(b *bool) *bool {
	switch {
	case b == nil:
		return nil
	case *b:
		return &yes
	}
	return &no
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
