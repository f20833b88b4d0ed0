package kube

import (
	"encoding/json"
	"net/netip"
	"strings"
)

// Meta is an object's metadata, as far as it is of use here.
type Meta struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace"`
	UID               string            `json:"uid"`
	ResourceVersion   string            `json:"resourceVersion"`
	Labels            map[string]string `json:"labels"`
	Annotations       Annotations       `json:"annotations"`
	DeletionTimestamp string            `json:"deletionTimestamp"`
}

func (m Meta) meta() Meta { return m }

// Object is what may be followed.
type Object interface {
	Pod | Namespace | DaemonSet
	meta() Meta
}

// Annotations are those that enrolment reads: others may be large.
type Annotations map[string]string

// The annotations that are kept.
const (
	SidecarStatus = "sidecar.istio.io/status"
	Redirection   = "ambient.istio.io/redirection"
	// ConfigHash is the uid by which the kubelet knows a static pod; ConfigMirror, of the
	// same value, marks the object that stands for one. Anybody may write the first
	// on a pod of theirs; an object with the second that stands for none is deleted by the kubelet.
	ConfigHash   = "kubernetes.io/config.hash"
	ConfigMirror = "kubernetes.io/config.mirror"
)

// UnmarshalJSON implements json.Unmarshaler.
func (a *Annotations) UnmarshalJSON(b []byte) error {
	var all map[string]string
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	*a = nil
	for _, name := range []string{SidecarStatus, Redirection, ConfigHash, ConfigMirror} {
		if v, ok := all[name]; ok {
			if *a == nil {
				*a = Annotations{}
			}
			(*a)[name] = strings.Clone(v)
		}
	}
	return nil
}

// Namespace is a namespace.
type Namespace struct {
	Meta `json:"metadata"`
}

// DaemonSet is a DaemonSet.
type DaemonSet struct {
	Meta `json:"metadata"`
}

// Pod is a pod.
type Pod struct {
	Meta   `json:"metadata"`
	Spec   PodSpec   `json:"spec"`
	Status PodStatus `json:"status"`
}

// PodSpec is what a pod is to be.
type PodSpec struct {
	NodeName           string      `json:"nodeName"`
	ServiceAccountName string      `json:"serviceAccountName"`
	HostNetwork        bool        `json:"hostNetwork"`
	Containers         []Container `json:"containers"`
	InitContainers     []Container `json:"initContainers"`
}

// Container is a container's name.
type Container struct {
	Name string `json:"name"`
}

// PodStatus is what a pod has become.
type PodStatus struct {
	Phase  string `json:"phase"`
	PodIPs []struct {
		IP string `json:"ip"`
	} `json:"podIPs"`
	Conditions []struct {
		Type   string `json:"type"`
		Status string `json:"status"`
	} `json:"conditions"`
}

// Finished reports that the pod has ended for good.
func (p *Pod) Finished() bool { return p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" }

// Ready reports that the pod serves.
func (p *Pod) Ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

// IPs are the addresses that the kubelet has told of.
func (p *Pod) IPs() []netip.Addr {
	var out []netip.Addr
	for _, s := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(s.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// ContainerNames are those of all containers, the initial ones too.
func (p *Pod) ContainerNames() []string {
	var out []string
	for _, c := range p.Spec.InitContainers {
		out = append(out, c.Name)
	}
	for _, c := range p.Spec.Containers {
		out = append(out, c.Name)
	}
	return out
}
