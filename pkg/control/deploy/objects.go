package deploy

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func account(g *gatewayv1.Gateway) *corev1.ServiceAccount {
	meta := objectMeta(g)
	meta.Name = Account(g)
	return &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: meta}
}

func selector(g *gatewayv1.Gateway) map[string]string {
	return map[string]string{labelGatewayName: g.Name}
}

func deployment(g *gatewayv1.Gateway, replicas *int32, pod corev1.PodTemplateSpec) *appsv1.Deployment {
	return &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: objectMeta(g),
		Spec: appsv1.DeploymentSpec{
			Replicas: replicas, Selector: &metav1.LabelSelector{MatchLabels: selector(g)}, Template: pod,
			// A new pod is ready before an old one ends.
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: ptr(intstr.FromInt32(1)), MaxUnavailable: ptr(intstr.FromInt32(0))},
			},
		},
	}
}

func service(g *gatewayv1.Gateway) *corev1.Service {
	meta := objectMeta(g)
	meta.Annotations[trafficDistr] = orDefault(meta.Annotations[trafficDistr], "PreferClose")
	return &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: meta,
		Spec: corev1.ServiceSpec{
			Selector: selector(g), Type: corev1.ServiceType(orDefault(g.Annotations[serviceType], string(corev1.ServiceTypeClusterIP))),
			IPFamilyPolicy: ptr(corev1.IPFamilyPolicyPreferDualStack),
			Ports: []corev1.ServicePort{
				{Name: "status-port", Port: portStatus, TargetPort: intstr.FromInt32(portStatus), Protocol: corev1.ProtocolTCP, AppProtocol: ptr("http")},
				{Name: "mesh", Port: portHBONE, TargetPort: intstr.FromInt32(portHBONE), Protocol: corev1.ProtocolTCP},
			},
		},
	}
}

// autoscaler is what the parameters of a Gateway that asks for one are laid over.
func autoscaler(g *gatewayv1.Gateway) *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"}, ObjectMeta: objectMeta(g),
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name(g)}, MaxReplicas: 1,
		},
	}
}

func disruptionBudget(g *gatewayv1.Gateway) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		TypeMeta: metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}, ObjectMeta: objectMeta(g),
		Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: selector(g)}},
	}
}

// objectMeta is what a Gateway's objects have in common: its infrastructure's labels
// and annotations, and who manages them.
func objectMeta(g *gatewayv1.Gateway) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{Name: name(g), Namespace: g.Namespace, Labels: map[string]string{}, Annotations: map[string]string{}}
	if i := g.Spec.Infrastructure; i != nil {
		for k, v := range i.Labels {
			if !strings.HasPrefix(string(k), groupGateway+"/") { // those are whose the objects are
				meta.Labels[string(k)] = string(v)
			}
		}
		for k, v := range i.Annotations {
			if !strings.HasPrefix(string(k), groupGateway+"/") {
				meta.Annotations[string(k)] = string(v)
			}
		}
	}
	meta.Labels[labelGatewayName] = g.Name
	meta.Labels[labelGatewayClass] = string(g.Spec.GatewayClassName)
	meta.Labels[LabelManaged] = ManagedWaypoint
	meta.OwnerReferences = []metav1.OwnerReference{{APIVersion: "gateway.networking.k8s.io/v1", Kind: "Gateway", Name: g.Name, UID: g.UID}}
	return meta
}
