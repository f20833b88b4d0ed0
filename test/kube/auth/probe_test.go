package auth

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/plane"
)

// The kubelet passes the policies of the pods that it probes. Whoever may create pods must not
// send it to others: no probe and no hook of a pod names a host.
func TestNoProbeNamesAHost(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{Name: "probes"})
	if out, err := c.KubectlInput(t.Context(), world, "apply", "-f", "-"); err != nil {
		t.Fatal(err, out)
	}
	p := plane.Start(t, c)
	create := func(change func(spec *corev1.PodSpec)) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "p-", Namespace: "shop"}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "a", Image: "x"}, {Name: "b", Image: "x"}}, InitContainers: []corev1.Container{{Name: "i", Image: "x"}},
		}}
		change(&pod.Spec)
		_, err := p.Kube.CoreV1().Pods("shop").Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	http := func(host string) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: host, Port: intstr.FromInt32(80)}}
	}
	tcp := func(host string) corev1.ProbeHandler {
		return corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Host: host, Port: intstr.FromInt32(80)}}
	}
	hook := func(host string) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: host, Port: intstr.FromInt32(80)}}
	}
	always := corev1.ContainerRestartPolicyAlways
	changes := func(host string) map[string]func(s *corev1.PodSpec) {
		return map[string]func(s *corev1.PodSpec){
			"liveness":      func(s *corev1.PodSpec) { s.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: http(host)} },
			"liveness tcp":  func(s *corev1.PodSpec) { s.Containers[1].LivenessProbe = &corev1.Probe{ProbeHandler: tcp(host)} },
			"readiness":     func(s *corev1.PodSpec) { s.Containers[1].ReadinessProbe = &corev1.Probe{ProbeHandler: http(host)} },
			"readiness tcp": func(s *corev1.PodSpec) { s.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: tcp(host)} },
			"startup":       func(s *corev1.PodSpec) { s.Containers[0].StartupProbe = &corev1.Probe{ProbeHandler: http(host)} },
			"startup tcp":   func(s *corev1.PodSpec) { s.Containers[0].StartupProbe = &corev1.Probe{ProbeHandler: tcp(host)} },
			"sidecar": func(s *corev1.PodSpec) {
				s.InitContainers[0].RestartPolicy, s.InitContainers[0].StartupProbe = &always, &corev1.Probe{ProbeHandler: http(host)}
			},
			"after start": func(s *corev1.PodSpec) { s.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: hook(host)} },
			"before stop": func(s *corev1.PodSpec) { s.Containers[1].Lifecycle = &corev1.Lifecycle{PreStop: hook(host)} },
		}
	}
	// Policies come into force a little after they were written.
	p.Until("the API server's policy", func() bool { return create(changes("10.1.0.9")["liveness"]) != nil })
	for name, change := range changes("10.1.0.9") {
		if err := create(change); err == nil || !strings.Contains(err.Error(), "names a host") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range changes("") {
		if err := create(change); err != nil {
			t.Errorf("%s of the pod itself: %v", name, err)
		}
	}
	if err := create(func(*corev1.PodSpec) {}); err != nil {
		t.Errorf("without probes: %v", err)
	}
	if err := create(func(s *corev1.PodSpec) {
		s.HostNetwork = true
		changes("127.0.0.1")["liveness"](s)
	}); err != nil {
		t.Errorf("in the node's network: %v", err)
	}
}
