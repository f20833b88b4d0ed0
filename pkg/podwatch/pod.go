package podwatch

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// Pod is a pod of this node as its creator describes it.
type Pod struct {
	// UID is the pod's Kubernetes uid: unique over time, not only by name.
	UID            string `json:"uid"`
	Namespace      string `json:"namespace"`
	Name           string `json:"name"`
	ServiceAccount string `json:"serviceAccount"`
	// NetNS is the path of the pod's network namespace, for example /run/netns/x.
	NetNS string `json:"netns"`
	// Cookie is the kernel's number of the namespace that NetNS is meant to lead to:
	// a path by a process's number may lead elsewhere later. 0 is whatever is there.
	Cookie uint64 `json:"cookie,omitempty"`
	// IPs are all addresses of the pod.
	IPs []netip.Addr `json:"ips"`
	// HostInterface is the pod's veth in the node's namespace, where the guard sits;
	// empty is found from the pod's end.
	HostInterface string `json:"hostInterface"`
	// Captured is whether the pod is in the mesh. A pod that is not stays known.
	Captured bool `json:"captured"`
	// ProbePorts are ports that the node's kubelet may reach without the mesh.
	ProbePorts []uint16 `json:"probePorts,omitempty"`
}

// Key is "namespace/name", for logs.
func (p *Pod) Key() string { return p.Namespace + "/" + p.Name }

// Equal reports whether nothing differs.
func (p *Pod) Equal(o *Pod) bool {
	return p.UID == o.UID && p.Namespace == o.Namespace && p.Name == o.Name && p.ServiceAccount == o.ServiceAccount &&
		p.sameNetNS(o) && p.HostInterface == o.HostInterface && p.Captured == o.Captured &&
		slices.Equal(p.IPs, o.IPs) && slices.Equal(p.ProbePorts, o.ProbePorts)
}

// sameNetNS reports whether both mean one network namespace, by whatever path.
func (p *Pod) sameNetNS(o *Pod) bool {
	if p.Cookie != 0 && o.Cookie != 0 {
		return p.Cookie == o.Cookie
	}
	return p.NetNS == o.NetNS
}

// Bounds of what a caller may send.
const (
	maxName       = 253
	maxAddresses  = 16
	maxProbePorts = 64
	maxPods       = 4096
)

// Validate reports everything that is wrong with p.
func (p *Pod) Validate() error {
	var errs []error
	name := func(field, value string) {
		if value == "" || len(value) > maxName || strings.ContainsAny(value, "/ \n\x00") {
			errs = append(errs, fmt.Errorf("%s %q: want 1 to %d characters without slash or space", field, value, maxName))
		}
	}
	name("uid", p.UID)
	name("namespace", p.Namespace)
	name("name", p.Name)
	name("serviceAccount", p.ServiceAccount)
	if !filepath.IsAbs(p.NetNS) {
		errs = append(errs, fmt.Errorf("netns %q: want an absolute path", p.NetNS))
	}
	if len(p.IPs) == 0 || len(p.IPs) > maxAddresses {
		errs = append(errs, fmt.Errorf("ips: want 1 to %d addresses, got %d", maxAddresses, len(p.IPs)))
	}
	for _, ip := range p.IPs {
		if !ip.IsValid() || ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() {
			errs = append(errs, fmt.Errorf("ips: %q is no address of a pod", ip))
		}
	}
	if len(p.HostInterface) > 15 {
		errs = append(errs, fmt.Errorf("hostInterface %q: want the name of the pod's interface on the node, at most 15 characters", p.HostInterface))
	}
	if len(p.ProbePorts) > maxProbePorts {
		errs = append(errs, fmt.Errorf("probePorts: want at most %d, got %d", maxProbePorts, len(p.ProbePorts)))
	}
	return errors.Join(errs...)
}

// The states of a pod.
const (
	StateEnrolled    = "enrolled"    // captured
	StatePassthrough = "passthrough" // known, outside the mesh
	StateFailed      = "failed"      // wants to be captured and is not: Error says why
)

// Status is what became of a pod.
type Status struct {
	State string `json:"state"`
	// Cookie is the kernel's number of the pod's network namespace; 0 unless enrolled.
	Cookie uint64 `json:"cookie,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Entry is a pod and its status.
type Entry struct {
	Pod
	Status Status `json:"status"`
}

// Snapshot says which pods there are.
type Snapshot struct {
	UIDs []string `json:"uids"`
}
