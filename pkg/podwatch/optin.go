package podwatch

import (
	"slices"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
)

// The labels by which pods join the mesh, and by which Istio's sidecars are told.
const (
	ModeLabel      = "istio.io/dataplane-mode"
	ModeAmbient    = "ambient"
	ModeNone       = "none"
	injectionLabel = "istio-injection"
	injectLabel    = "sidecar.istio.io/inject"
	sidecarStatus  = "sidecar.istio.io/status"
	sidecarName    = "istio-proxy"
)

// Rule says which pods are captured. The zero value knows no excluded namespaces.
type Rule struct {
	// Excluded namespaces have no pod in the mesh, whatever labels say.
	Excluded []string
	// Injection takes the labels of sidecar injection for an opt-in too: a namespace
	// labelled istio-injection=enabled, and pods without sidecar.istio.io/inject=false.
	Injection bool
}

// Facts are what of a pod decides.
type Facts struct {
	Namespace           string
	Labels, Annotations map[string]string
	// Containers are the names of all containers, the initial ones too.
	Containers  []string
	HostNetwork bool
	// Finished pods have ended for good.
	Finished bool
}

// FactsOf reads them of a pod of the API.
func FactsOf(p *kube.Pod) Facts {
	return Facts{
		Namespace: p.Namespace, Labels: p.Labels, Annotations: p.Annotations, Containers: p.ContainerNames(),
		HostNetwork: p.Spec.HostNetwork, Finished: p.Finished(),
	}
}

// Captures decides whether a pod is in the mesh, and says why in a few words. Labels
// are read as Istio's ambient mode does: ambient on the pod, or on its namespace and
// not none on the pod.
func (r Rule) Captures(f Facts, namespace map[string]string) (captured bool, why string) {
	switch {
	case f.HostNetwork:
		return false, "it is in the node's network"
	case f.Finished:
		return false, "it has ended"
	case slices.Contains(r.Excluded, f.Namespace):
		return false, "its namespace is excluded"
	case hasSidecar(f):
		return false, "it has a sidecar"
	case f.Labels[ModeLabel] == ModeNone:
		return false, "its label says none"
	case f.Labels[ModeLabel] == ModeAmbient:
		return true, "its label"
	case namespace[ModeLabel] == ModeAmbient:
		return true, "its namespace's label"
	case r.Injection && namespace[ModeLabel] != ModeNone && f.Labels[injectLabel] != "false" &&
		(namespace[injectionLabel] == "enabled" || f.Labels[injectLabel] == "true" && namespace[injectionLabel] != "disabled"):
		return true, "its injection label"
	}
	return false, "no label asks for it"
}

func hasSidecar(f Facts) bool {
	_, injected := f.Annotations[sidecarStatus]
	return injected || slices.Contains(f.Containers, sidecarName)
}
