package source

import (
	"reflect"
	"slices"

	extensionsv1alpha1 "istio.io/api/extensions/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingbeta "istio.io/api/networking/v1beta1"
	securityapi "istio.io/api/security/v1beta1"
	telemetryapi "istio.io/api/telemetry/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1alpha2 "sigs.k8s.io/gateway-api/apis/v1alpha2"
)

// The groups of security kinds and of Istio's networking.
const (
	groupSecurity   = "security.istio.io"
	groupNetworking = "networking.istio.io"
	groupTelemetry  = "telemetry.istio.io"
	groupGateway    = "gateway.networking.k8s.io"
)

// GroupInstall is the group of the installer's files.
const GroupInstall = "install.istio.io"

type groupKind struct{ group, kind string }

// kind is how objects of a kind are decoded.
type kind struct {
	versions    []string
	clusterWide bool
	// served kinds become part of a snapshot; others are checked and warned about.
	served bool
	// lenient kinds are Kubernetes' own: unknown fields are warnings.
	lenient bool
	// installer kinds are what the installer reads; they are no objects of a cluster.
	installer bool
	// spec is the protobuf of Istio's kinds, and object a Go type otherwise, or
	// of served kinds in any case. With neither, only the head is read.
	spec   protoreflect.MessageDescriptor
	object reflect.Type
}

// security kinds are never skipped in silence.
func (g groupKind) security() bool { return g.group == groupSecurity }

func core[T any](versions ...string) kind {
	return kind{versions: versions, served: true, lenient: true, object: reflect.TypeFor[T]()}
}

func istio[T any](spec proto.Message, versions ...string) kind {
	return kind{versions: versions, served: true, spec: spec.ProtoReflect().Descriptor(), object: reflect.TypeFor[T]()}
}

// unserved is a kind of Istio's that is checked and not served.
func unserved(spec proto.Message, versions ...string) kind {
	return kind{versions: versions, spec: spec.ProtoReflect().Descriptor()}
}

func gatewayAPI[T any](versions ...string) kind {
	return kind{versions: versions, served: true, object: reflect.TypeFor[T]()}
}

// route is a Gateway API kind that is checked and not served.
func route[T any](versions ...string) kind {
	return kind{versions: versions, object: reflect.TypeFor[T]()}
}

func (k kind) wide() kind { k.clusterWide = true; return k }

func headOnly(versions ...string) kind { return kind{versions: versions, lenient: true} }

var kinds = map[groupKind]kind{
	{"", "Namespace"}:                     core[corev1.Namespace]("v1").wide(),
	{"", "Node"}:                          core[corev1.Node]("v1").wide(),
	{"", "Pod"}:                           core[corev1.Pod]("v1"),
	{"", "ServiceAccount"}:                core[corev1.ServiceAccount]("v1"),
	{"", "Service"}:                       core[corev1.Service]("v1"),
	{"", "ConfigMap"}:                     core[corev1.ConfigMap]("v1"),
	{"discovery.k8s.io", "EndpointSlice"}: core[discoveryv1.EndpointSlice]("v1"),
	{"apps", "Deployment"}:                core[appsv1.Deployment]("v1"),
	{"apps", "ReplicaSet"}:                core[appsv1.ReplicaSet]("v1"),

	{groupNetworking, "ServiceEntry"}:      istio[networkingv1.ServiceEntry](&networkingapi.ServiceEntry{}, "v1", "v1beta1", "v1alpha3"),
	{groupNetworking, "WorkloadEntry"}:     istio[networkingv1.WorkloadEntry](&networkingapi.WorkloadEntry{}, "v1", "v1beta1", "v1alpha3"),
	{groupSecurity, "PeerAuthentication"}:  istio[securityv1.PeerAuthentication](&securityapi.PeerAuthentication{}, "v1", "v1beta1"),
	{groupSecurity, "AuthorizationPolicy"}: istio[securityv1.AuthorizationPolicy](&securityapi.AuthorizationPolicy{}, "v1", "v1beta1"),
	{groupNetworking, "VirtualService"}:    istio[networkingv1.VirtualService](&networkingapi.VirtualService{}, "v1", "v1beta1", "v1alpha3"),
	{groupNetworking, "DestinationRule"}:   istio[networkingv1.DestinationRule](&networkingapi.DestinationRule{}, "v1", "v1beta1", "v1alpha3"),
	{groupTelemetry, "Telemetry"}:          istio[telemetryv1.Telemetry](&telemetryapi.Telemetry{}, "v1", "v1alpha1"),
	{groupGateway, "Gateway"}:              gatewayAPI[gatewayv1.Gateway]("v1", "v1beta1"),
	{groupGateway, "HTTPRoute"}:            gatewayAPI[gatewayv1.HTTPRoute]("v1", "v1beta1"),
	{groupGateway, "GRPCRoute"}:            gatewayAPI[gatewayv1.GRPCRoute]("v1", "v1alpha2"),
	{groupGateway, "TCPRoute"}:             gatewayAPI[gatewayv1.TCPRoute]("v1", "v1alpha2"),
	{groupGateway, "TLSRoute"}:             gatewayAPI[gatewayv1.TLSRoute]("v1", "v1alpha2", "v1alpha3"),
	{groupGateway, "ReferenceGrant"}:       gatewayAPI[gatewayv1.ReferenceGrant]("v1", "v1beta1", "v1alpha2"),

	{groupSecurity, "RequestAuthentication"}:                 unserved(&securityapi.RequestAuthentication{}, "v1", "v1beta1"),
	{groupNetworking, "Gateway"}:                             unserved(&networkingapi.Gateway{}, "v1", "v1beta1", "v1alpha3"),
	{groupNetworking, "Sidecar"}:                             unserved(&networkingapi.Sidecar{}, "v1", "v1beta1", "v1alpha3"),
	{groupNetworking, "WorkloadGroup"}:                       unserved(&networkingapi.WorkloadGroup{}, "v1", "v1beta1", "v1alpha3"),
	{groupNetworking, "EnvoyFilter"}:                         unserved(&networkingapi.EnvoyFilter{}, "v1alpha3"),
	{groupNetworking, "ProxyConfig"}:                         unserved(&networkingbeta.ProxyConfig{}, "v1beta1"),
	{"extensions.istio.io", "WasmPlugin"}:                    unserved(&extensionsv1alpha1.WasmPlugin{}, "v1alpha1"),
	{"extensions.istio.io", "TrafficExtension"}:              unserved(&extensionsv1alpha1.TrafficExtension{}, "v1alpha1"),
	{groupGateway, "GatewayClass"}:                           route[gatewayv1.GatewayClass]("v1", "v1beta1").wide(),
	{groupGateway, "UDPRoute"}:                               route[gatewayv1alpha2.UDPRoute]("v1", "v1alpha2"),
	{groupGateway, "BackendTLSPolicy"}:                       route[gatewayv1.BackendTLSPolicy]("v1", "v1alpha3"),
	{groupGateway, "ListenerSet"}:                            route[gatewayv1.ListenerSet]("v1"),
	{"gateway.networking.x-k8s.io", "XBackendTrafficPolicy"}: headOnly("v1alpha1"),
	{"gateway.networking.x-k8s.io", "XListenerSet"}:          headOnly("v1alpha1"),

	{GroupInstall, "IstioOperator"}: {versions: []string{"v1alpha1"}, clusterWide: true, installer: true},

	// Kubernetes' kinds that are none of the mesh's business, so that a whole
	// application's YAML can lie in the directory.
	{"", "Secret"}:                                                     headOnly("v1"),
	{"", "PersistentVolume"}:                                           headOnly("v1").wide(),
	{"", "PersistentVolumeClaim"}:                                      headOnly("v1"),
	{"", "LimitRange"}:                                                 headOnly("v1"),
	{"", "ResourceQuota"}:                                              headOnly("v1"),
	{"", "Endpoints"}:                                                  headOnly("v1"),
	{"", "Event"}:                                                      headOnly("v1"),
	{"", "PodTemplate"}:                                                headOnly("v1"),
	{"", "ReplicationController"}:                                      headOnly("v1"),
	{"apps", "StatefulSet"}:                                            headOnly("v1"),
	{"apps", "DaemonSet"}:                                              headOnly("v1"),
	{"batch", "Job"}:                                                   headOnly("v1"),
	{"batch", "CronJob"}:                                               headOnly("v1"),
	{"networking.k8s.io", "Ingress"}:                                   headOnly("v1"),
	{"networking.k8s.io", "IngressClass"}:                              headOnly("v1").wide(),
	{"networking.k8s.io", "NetworkPolicy"}:                             headOnly("v1"),
	{"policy", "PodDisruptionBudget"}:                                  headOnly("v1"),
	{"autoscaling", "HorizontalPodAutoscaler"}:                         headOnly("v1", "v2"),
	{"rbac.authorization.k8s.io", "Role"}:                              headOnly("v1"),
	{"rbac.authorization.k8s.io", "RoleBinding"}:                       headOnly("v1"),
	{"rbac.authorization.k8s.io", "ClusterRole"}:                       headOnly("v1").wide(),
	{"rbac.authorization.k8s.io", "ClusterRoleBinding"}:                headOnly("v1").wide(),
	{"apiextensions.k8s.io", "CustomResourceDefinition"}:               headOnly("v1").wide(),
	{"storage.k8s.io", "StorageClass"}:                                 headOnly("v1").wide(),
	{"scheduling.k8s.io", "PriorityClass"}:                             headOnly("v1").wide(),
	{"coordination.k8s.io", "Lease"}:                                   headOnly("v1"),
	{"admissionregistration.k8s.io", "MutatingWebhookConfiguration"}:   headOnly("v1").wide(),
	{"admissionregistration.k8s.io", "ValidatingWebhookConfiguration"}: headOnly("v1").wide(),
}

// kindNames are all kinds, for suggestions.
func kindNames() (names []string) {
	for gk := range kinds {
		names = append(names, gk.kind)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// apiVersion joins a group and a version.
func apiVersion(group, version string) string {
	if group == "" {
		return version
	}
	return group + "/" + version
}

// object is one decoded object, before it is sorted into a snapshot.
type object struct {
	ref   Ref
	pos   Position
	value metav1.Object // a pointer to the kind's Go type; nil where not served
}
