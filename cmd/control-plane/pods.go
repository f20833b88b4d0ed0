package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// podIndex answers the CA from the objects of the moment.
type podIndex struct{ objects objects }

var _ ca.Pods = (*podIndex)(nil)

// Exists implements [ca.Pods]. In a directory's cluster a node agent is a process
// of its node, not a pod: then its node must exist. Where there is a pod of its
// name, it must be the very one that the token is bound to.
func (p *podIndex) Exists(_ context.Context, caller token.Caller) (bool, error) {
	objects := p.objects.Objects()
	for _, pod := range objects.Pods {
		if pod.Namespace == caller.Namespace && pod.Name == caller.Pod {
			return string(pod.UID) == caller.PodUID && pod.Spec.NodeName == caller.Node && accountOf(pod) == caller.ServiceAccount, nil
		}
	}
	for _, node := range objects.Nodes {
		if node.Name == caller.Node {
			return true, nil
		}
	}
	return false, nil
}

// OnNode implements [ca.Pods].
func (p *podIndex) OnNode(_ context.Context, node, namespace, serviceAccount string) (bool, error) {
	for _, pod := range p.objects.Objects().Pods {
		if pod.Spec.NodeName == node && pod.Namespace == namespace && accountOf(pod) == serviceAccount && pod.Status.Phase != corev1.PodFailed {
			return true, nil
		}
	}
	return false, nil
}

func accountOf(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}
