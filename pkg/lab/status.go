package lab

import (
	"cmp"
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// labels are the node's own and those that Kubernetes adds.
func (n *node) labels() map[string]string {
	out := map[string]string{corev1.LabelHostname: n.name, corev1.LabelOSStable: "linux"}
	maps.Copy(out, n.object.Labels)
	return out
}

// derived is the Node as an API server would show it.
func (n *node) derived() *corev1.Node {
	o := n.object.DeepCopy()
	o.APIVersion, o.Kind = "v1", "Node"
	o.Labels = n.labels()
	o.Spec.PodCIDRs, o.Spec.PodCIDR = nil, n.podCIDRs[0].String()
	for _, p := range n.podCIDRs {
		o.Spec.PodCIDRs = append(o.Spec.PodCIDRs, p.String())
	}
	o.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: n.name}}
	for _, a := range n.addrs {
		o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.Addr().String()})
	}
	o.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "LabReady"}}
	return o
}

// writePod writes the Pod where the control plane sees it: once it has its
// namespace, and so its addresses; until then nothing can be behind them.
func (l *Lab) writePod(p *pod) {
	if p.netns == "" || !p.dirty {
		return
	}
	if err := l.derived.Put("Pod", p.key, p.derived()); err != nil {
		l.log.Error(err.Error())
		return
	}
	p.dirty = false
}

// derived is the Pod as an API server would show it.
func (p *pod) derived() *corev1.Pod {
	o := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.key.Namespace, Name: p.key.Name, UID: types.UID(p.uid), CreationTimestamp: p.created,
			Labels: p.nowLabels, Annotations: maps.Clone(p.annotations),
		},
		Spec: p.spec,
	}
	delete(o.Annotations, redirectionAnnotation) // only the lab may say it
	if p.announced {
		if o.Annotations == nil {
			o.Annotations = map[string]string{}
		}
		o.Annotations[redirectionAnnotation] = redirectionEnabled
	}
	if p.owner != nil {
		controller := true
		o.GenerateName = p.owner.Name + "-" + p.hash + "-"
		o.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "ReplicaSet", Name: p.owner.Name + "-" + p.hash, Controller: &controller,
		}}
	}
	if p.deleting {
		o.DeletionTimestamp = &p.deletedAt
	}
	p.status(&o.Status)
	return o
}

func (p *pod) status(s *corev1.PodStatus) {
	s.Phase, s.Message, s.StartTime = p.phase, p.problem, &p.created
	for i, a := range p.addrs {
		if i == 0 {
			s.PodIP = a.String()
		}
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: a.String()})
	}
	for i, a := range p.node.addrs {
		if i == 0 {
			s.HostIP = a.Addr().String()
		}
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: a.Addr().String()})
	}
	ready, scheduled := corev1.ConditionFalse, corev1.ConditionTrue
	if p.ready {
		ready = corev1.ConditionTrue
	}
	s.Conditions = []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: scheduled},
		{Type: corev1.ContainersReady, Status: ready},
		{Type: corev1.PodReady, Status: ready},
	}
	for _, c := range p.containers {
		st := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Ready: c.Ready, RestartCount: c.Restarts}
		switch {
		case c.Running:
			st.State.Running = &corev1.ContainerStateRunning{StartedAt: c.Started}
		case c.Ended >= 0 && p.done():
			st.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: int32(c.Ended), Message: c.Message}
		default:
			st.State.Waiting = &corev1.ContainerStateWaiting{Reason: "Waiting", Message: c.Message}
		}
		s.ContainerStatuses = append(s.ContainerStatuses, st)
	}
}

// first is an address of a list for people, preferring IPv4.
func first(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return ""
	}
	return cmp.Or(addrs[0].String(), "")
}

// forgetPod removes what is left of a pod that has ended.
func (l *Lab) forgetPod(p *pod) {
	delete(l.pods, p.uid)
	p.release()
	for _, other := range l.pods {
		if other.key == p.key { // its successor has the name now
			return
		}
	}
	l.logIf(l.derived.Delete("Pod", p.key))
}
