package deploy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxParameters bounds a Gateway's own ConfigMap, in bytes: it is read anew for each Gateway
// that names it.
const maxParameters = 64 << 10

// bounded refuses parameters that do more than say how a waypoint is run. They are those of
// whoever may write ConfigMaps beside a Gateway, and the control plane applies them with rights of
// its own: what code runs, as whom, with which Secrets and with what of the node would
// be given to users who may not create pods. before is the object without them.
func bounded(before, after metav1.Object) error {
	switch after := after.(type) {
	case *appsv1.Deployment:
		before, _ := before.(*appsv1.Deployment)
		return boundedDeployment(before, after)
	case *corev1.Service:
		before, _ := before.(*corev1.Service)
		return boundedService(before, after)
	case *autoscalingv2.HorizontalPodAutoscaler:
		before, _ := before.(*autoscalingv2.HorizontalPodAutoscaler)
		return same("spec.scaleTargetRef", before.Spec.ScaleTargetRef, after.Spec.ScaleTargetRef)
	case *policyv1.PodDisruptionBudget:
		before, _ := before.(*policyv1.PodDisruptionBudget)
		return same("spec.selector", before.Spec.Selector, after.Spec.Selector)
	}
	return nil
}

// classOnly ends what is refused of a field.
const classOnly = "cannot be set by a Gateway's own parameters: those of the class (a ConfigMap in the mesh's namespace, labelled " + ClassDefaults + ") can"

func same(field string, before, after any) error {
	if !reflect.DeepEqual(before, after) {
		return fmt.Errorf("%s %s", field, classOnly)
	}
	return nil
}

func boundedService(before, after *corev1.Service) error {
	if err := same("spec.selector", before.Spec.Selector, after.Spec.Selector); err != nil {
		return err
	}
	if err := same("spec.externalIPs", before.Spec.ExternalIPs, after.Spec.ExternalIPs); err != nil {
		return err
	}
	if after.Spec.Type == corev1.ServiceTypeExternalName || after.Spec.ExternalName != "" {
		return fmt.Errorf("spec.externalName %s", classOnly)
	}
	return nil
}

func boundedDeployment(before, after *appsv1.Deployment) error {
	if err := same("spec.selector", before.Spec.Selector, after.Spec.Selector); err != nil {
		return err
	}
	for k, v := range after.Spec.Template.Annotations {
		// Profiles of containers were written so before they were fields.
		if strings.Contains(k, ".security.beta.kubernetes.io/") || strings.Contains(k, ".security.alpha.kubernetes.io/") {
			return fmt.Errorf("spec.template.metadata.annotations[%s]: %q %s", k, v, classOnly)
		}
	}
	was, is := &before.Spec.Template.Spec, after.Spec.Template.Spec.DeepCopy()
	if len(was.Containers) != len(is.Containers) {
		return fmt.Errorf("spec.template.spec.containers: another container %s", classOnly)
	}
	for i := range is.Containers {
		if err := boundedContainer(&was.Containers[i], &is.Containers[i]); err != nil {
			return fmt.Errorf("spec.template.spec.containers[%d]%w", i, err)
		}
	}
	if err := boundedUsers(was.SecurityContext, is.SecurityContext); err != nil {
		return err
	}
	is.Containers, is.SecurityContext = was.Containers, was.SecurityContext
	// Where and beside what it runs, how it ends, how it resolves names.
	is.NodeSelector, is.Affinity, is.Tolerations, is.TopologySpreadConstraints = was.NodeSelector, was.Affinity, was.Tolerations, was.TopologySpreadConstraints
	is.PriorityClassName, is.PreemptionPolicy, is.SchedulerName, is.RuntimeClassName = was.PriorityClassName, was.PreemptionPolicy, was.SchedulerName, was.RuntimeClassName
	is.TerminationGracePeriodSeconds, is.ReadinessGates, is.EnableServiceLinks = was.TerminationGracePeriodSeconds, was.ReadinessGates, was.EnableServiceLinks
	is.DNSPolicy, is.DNSConfig, is.HostAliases, is.ImagePullSecrets, is.Overhead = was.DNSPolicy, was.DNSConfig, was.HostAliases, was.ImagePullSecrets, was.Overhead
	return unchanged("spec.template.spec", *was, *is)
}

// boundedUsers lets a pod's user be one that the cluster prefers, but root.
func boundedUsers(before, after *corev1.PodSecurityContext) error {
	if before == nil || after == nil {
		return same("spec.template.spec.securityContext", before, after)
	}
	is := after.DeepCopy()
	if is.RunAsUser != nil && *is.RunAsUser == 0 {
		return fmt.Errorf("spec.template.spec.securityContext.runAsUser: root %s", classOnly)
	}
	is.RunAsUser, is.RunAsGroup, is.FSGroup, is.FSGroupChangePolicy, is.SupplementalGroups = before.RunAsUser, before.RunAsGroup, before.FSGroup, before.FSGroupChangePolicy, before.SupplementalGroups
	return unchanged("spec.template.spec.securityContext", *before, *is)
}

// boundedContainer changes after into what of it may not be another than it was, and compares.
func boundedContainer(before, after *corev1.Container) error {
	for _, e := range after.Env {
		if !slices.ContainsFunc(before.Env, func(b corev1.EnvVar) bool { return reflect.DeepEqual(b, e) }) && e.ValueFrom != nil && (e.ValueFrom.SecretKeyRef != nil || e.ValueFrom.ConfigMapKeyRef != nil || e.ValueFrom.FileKeyRef != nil) {
			return fmt.Errorf(".env[%s].valueFrom %s", e.Name, classOnly)
		}
	}
	for field, probe := range map[string]*corev1.Probe{".livenessProbe": after.LivenessProbe, ".readinessProbe": after.ReadinessProbe, ".startupProbe": after.StartupProbe} {
		if err := boundedProbe(probe); err != nil {
			return fmt.Errorf("%s%w", field, err)
		}
	}
	if b, a := before.SecurityContext, after.SecurityContext; b != nil && a != nil {
		if a.RunAsUser != nil && *a.RunAsUser == 0 {
			return fmt.Errorf(".securityContext.runAsUser: root %s", classOnly)
		}
		a.RunAsUser, a.RunAsGroup = b.RunAsUser, b.RunAsGroup
	}
	after.Env, after.Resources, after.ResizePolicy, after.ImagePullPolicy = before.Env, before.Resources, before.ResizePolicy, before.ImagePullPolicy
	after.LivenessProbe, after.ReadinessProbe, after.StartupProbe = before.LivenessProbe, before.ReadinessProbe, before.StartupProbe
	return unchanged("", *before, *after)
}

// boundedProbe refuses probes that run something, or that have the kubelet call others.
func boundedProbe(p *corev1.Probe) error {
	switch {
	case p == nil:
	case p.Exec != nil:
		return fmt.Errorf(".exec %s", classOnly)
	case p.HTTPGet != nil && p.HTTPGet.Host != "", p.TCPSocket != nil && p.TCPSocket.Host != "":
		return fmt.Errorf(": a host %s", classOnly)
	}
	return nil
}

// unchanged names the first field that is another than it was.
func unchanged[T any](field string, before, after T) error {
	b, a := reflect.ValueOf(before), reflect.ValueOf(after)
	for i := range b.NumField() {
		if reflect.DeepEqual(b.Field(i).Interface(), a.Field(i).Interface()) {
			continue
		}
		f := b.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" { // embedded
			name = f.Name
		}
		return fmt.Errorf("%s.%s %s", field, name, classOnly)
	}
	return nil
}
