// Package deploy makes the objects that run a waypoint: what a Gateway of the class
// istio-waypoint asks for. It is pure; who runs them is Kubernetes, or the lab.
//
// For cmd/control-plane and tests.
package deploy

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Class is the GatewayClass of waypoints.
const Class = "istio-waypoint"

// Labels and annotations, of Istio's and the Gateway API's names, and ours.
const (
	labelGatewayName  = "gateway.networking.k8s.io/gateway-name"
	labelGatewayClass = "gateway.networking.k8s.io/gateway-class-name"
	labelManaged      = "gateway.istio.io/managed"
	managedWaypoint   = "istio.io-mesh-controller"
	labelMode         = "istio.io/dataplane-mode"
	labelInject       = "sidecar.istio.io/inject"
	nameOverride      = "gateway.istio.io/name-override"
	accountOverride   = "gateway.istio.io/service-account"
	serviceType       = "networking.istio.io/service-type"
	trafficDistr      = "networking.istio.io/traffic-distribution"
	// annotationEngine says which proxy runs the waypoint: "fairlead" or "envoy".
	annotationEngine = "fairlead.dev/waypoint-engine"
	// annotationReplicas is how many pods there are; one, where it is not set.
	annotationReplicas = "fairlead.dev/waypoint-replicas"
)

// Where a waypoint's pod finds what it needs to prove who it is.
const (
	Directory = "/run/fairlead"
	tokenFile = Directory + "/tokens/istio-token"
	rootFile  = Directory + "/istio/root-cert.pem"
	socket    = Directory + "/sds/socket"
	bootstrap = Directory + "/sds/envoy.json"
	rootMap   = "istio-ca-root-cert"
)

// The ports of a waypoint's pod.
const (
	portHBONE, portStatus, portMetrics = 15008, 15021, 15020
	// drainSeconds is how long connections may go on when a pod ends.
	drainSeconds = 30
	// lameDuckSeconds is how long an Envoy that is to end still serves.
	lameDuckSeconds = 8
)

// Options is what Gateways do not say.
type Options struct {
	// XDSAddress is where waypoints reach the control plane, host:port, ServerName the
	// name in its certificate.
	XDSAddress, ServerName string
	ClusterID, TrustDomain string
	Network                string
	// Image and EnvoyImage are what pods run.
	Image, EnvoyImage string
}

// Objects are those of all waypoints that Gateways ask for, and what was wrong with
// the others.
func Objects(gateways []*gatewayv1.Gateway, o Options) (out []runtime.Object, problems map[string]error) {
	problems = map[string]error{}
	taken := map[string]string{} // Gateways by namespace and name of their objects
	for _, g := range gateways {
		if string(g.Spec.GatewayClassName) != Class {
			continue
		}
		made, err := waypoint(g, o)
		key := g.Namespace + "/" + name(g)
		if other := taken[key]; err == nil && other != "" {
			err = fmt.Errorf("the Gateway %s has objects of the name %s already", other, name(g))
		}
		if err != nil {
			problems[g.Namespace+"/"+g.Name] = err
			continue
		}
		taken[key] = g.Name
		out = append(out, made...)
	}
	return out, problems
}

// Account is the service account that a Gateway's pods run as.
func Account(g *gatewayv1.Gateway) string {
	if name := g.Annotations[accountOverride]; name != "" {
		return name
	}
	return name(g)
}

func name(g *gatewayv1.Gateway) string {
	if n := g.Annotations[nameOverride]; n != "" {
		return n
	}
	return g.Name
}

// checkNames refuses names that the API server would refuse: who writes Gateways has no
// other check between them and the objects' files.
func checkNames(g *gatewayv1.Gateway) error {
	for _, c := range []struct {
		what, name string
		wrong      []string
	}{
		{"the waypoint's name (metadata.name, or the annotation " + nameOverride + ")", name(g), validation.IsDNS1035Label(name(g))},
		{"the service account (the annotation " + accountOverride + ")", Account(g), validation.IsDNS1123Subdomain(Account(g))},
		{"the namespace", g.Namespace, validation.IsDNS1123Label(g.Namespace)},
	} {
		if len(c.wrong) > 0 {
			return fmt.Errorf("%s cannot be %q: %s", c.what, c.name, strings.Join(c.wrong, "; "))
		}
	}
	return nil
}

func waypoint(g *gatewayv1.Gateway, o Options) ([]runtime.Object, error) {
	replicas := int32(1)
	if v := g.Annotations[annotationReplicas]; v != "" {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %q is not a number of pods", annotationReplicas, v)
		}
		replicas = int32(n)
	}
	if err := checkNames(g); err != nil {
		return nil, err
	}
	pod, err := template(g, o)
	if err != nil {
		return nil, err
	}
	meta := objectMeta(g)
	account := &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: *meta.DeepCopy()}
	account.Name = Account(g)
	selector := map[string]string{labelGatewayName: g.Name}
	surge, unavailable := intstr.FromInt32(1), intstr.FromInt32(0)
	deployment := &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: *meta.DeepCopy(),
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: selector}, Template: pod,
			// A new pod is ready before an old one ends.
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}},
		},
	}
	http := "http"
	service := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: *meta.DeepCopy(),
		Spec: corev1.ServiceSpec{
			Selector: selector, Type: corev1.ServiceType(orDefault(g.Annotations[serviceType], string(corev1.ServiceTypeClusterIP))),
			Ports: []corev1.ServicePort{
				{Name: "status-port", Port: portStatus, TargetPort: intstr.FromInt32(portStatus), Protocol: corev1.ProtocolTCP, AppProtocol: &http},
				{Name: "mesh", Port: portHBONE, TargetPort: intstr.FromInt32(portHBONE), Protocol: corev1.ProtocolTCP},
			},
		},
	}
	service.Annotations = maps.Clone(service.Annotations)
	if service.Annotations == nil {
		service.Annotations = map[string]string{}
	}
	service.Annotations[trafficDistr] = orDefault(service.Annotations[trafficDistr], "PreferClose")
	return []runtime.Object{account, deployment, service}, nil
}

// objectMeta is what a Gateway's objects have in common: its infrastructure's labels
// and annotations, and who manages them.
func objectMeta(g *gatewayv1.Gateway) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{Name: name(g), Namespace: g.Namespace, Labels: map[string]string{}, Annotations: map[string]string{}}
	if i := g.Spec.Infrastructure; i != nil {
		for k, v := range i.Labels {
			meta.Labels[string(k)] = string(v)
		}
		for k, v := range i.Annotations {
			meta.Annotations[string(k)] = string(v)
		}
	}
	meta.Labels[labelGatewayName] = g.Name
	meta.Labels[labelGatewayClass] = string(g.Spec.GatewayClassName)
	meta.Labels[labelManaged] = managedWaypoint
	meta.OwnerReferences = []metav1.OwnerReference{{APIVersion: "gateway.networking.k8s.io/v1", Kind: "Gateway", Name: g.Name, UID: g.UID}}
	return meta
}

func template(g *gatewayv1.Gateway, o Options) (corev1.PodTemplateSpec, error) {
	meta := objectMeta(g)
	meta.Name, meta.Namespace, meta.OwnerReferences = "", "", nil
	meta.Labels[labelMode] = "none" // a waypoint is its own tunnel's end
	meta.Labels[labelInject] = "false"
	meta.Labels["service.istio.io/canonical-name"] = orDefault(meta.Labels["service.istio.io/canonical-name"], name(g))
	meta.Labels["service.istio.io/canonical-revision"] = orDefault(meta.Labels["service.istio.io/canonical-revision"], "latest")
	for k, v := range map[string]string{"prometheus.io/scrape": "true", "prometheus.io/port": strconv.Itoa(portMetrics), "prometheus.io/path": "/stats/prometheus"} {
		meta.Annotations[k] = orDefault(meta.Annotations[k], v)
	}
	grace := int64(drainSeconds + 10)
	t := corev1.PodTemplateSpec{ObjectMeta: meta, Spec: corev1.PodSpec{
		ServiceAccountName: Account(g), TerminationGracePeriodSeconds: &grace, Volumes: volumes(),
		SecurityContext: &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}}},
	}}
	switch engine := orDefault(g.Annotations[annotationEngine], "fairlead"); engine {
	case "fairlead":
		t.Spec.Containers = []corev1.Container{fairlead(g, o)}
	case "envoy":
		if o.EnvoyImage == "" {
			return t, errors.New("no image for Envoy is configured")
		}
		t.Spec.Containers = envoy(g, o)
	default:
		return t, fmt.Errorf("annotation %s: %q is no engine: want fairlead or envoy", annotationEngine, engine)
	}
	return t, nil
}

// identity are the arguments that say who the waypoint is and where the control plane.
func identity(g *gatewayv1.Gateway, o Options) []string {
	args := []string{
		"--xds-address=" + o.XDSAddress, "--xds-server-name=" + o.ServerName, "--cluster-id=" + o.ClusterID, "--trust-domain=" + o.TrustDomain,
		"--root-cert=" + rootFile, "--token-file=" + tokenFile, "--gateway=" + g.Name, "--service-account=" + Account(g),
		"--pod-name=$(POD_NAME)", "--pod-namespace=$(POD_NAMESPACE)", "--pod-ip=$(POD_IP)", "--node=$(NODE_NAME)",
	}
	if o.Network != "" {
		args = append(args, "--network="+o.Network)
	}
	return args
}

func environment() []corev1.EnvVar {
	var out []corev1.EnvVar
	for _, e := range [][2]string{{"POD_NAME", "metadata.name"}, {"POD_NAMESPACE", "metadata.namespace"}, {"POD_IP", "status.podIP"}, {"NODE_NAME", "spec.nodeName"}} {
		out = append(out, corev1.EnvVar{Name: e[0], ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: e[1]}}})
	}
	return out
}

func fairlead(g *gatewayv1.Gateway, o Options) corev1.Container {
	return corev1.Container{
		Name: "waypoint", Image: o.Image, Args: append(identity(g, o), fmt.Sprintf("--drain=%ds", drainSeconds)), Env: environment(),
		Ports: ports(), VolumeMounts: mounts(), ReadinessProbe: ready(), SecurityContext: restricted(),
	}
}

// envoy are two containers: one that gives certificates and relays discovery, and the
// proxy.
func envoy(g *gatewayv1.Gateway, o Options) []corev1.Container {
	secrets := corev1.Container{
		Name: "sds", Image: o.Image, Env: environment(), VolumeMounts: mounts(), SecurityContext: restricted(),
		Args: append([]string{"sds", "--socket=" + socket, "--bootstrap-out=" + bootstrap}, identity(g, o)...),
	}
	proxy := corev1.Container{
		Name: "envoy", Image: o.EnvoyImage, Args: []string{"--config-path", bootstrap, "--log-level", "warning", "--concurrency", "2"},
		Ports: ports(), VolumeMounts: mounts(), ReadinessProbe: ready(), SecurityContext: restricted(),
		// Envoy ends at once when it is told to. Meanwhile the container beside it has it
		// ask its clients to leave.
		Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: lameDuckSeconds}}},
	}
	return []corev1.Container{secrets, proxy}
}

func ports() []corev1.ContainerPort {
	return []corev1.ContainerPort{
		{Name: "metrics", ContainerPort: portMetrics, Protocol: corev1.ProtocolTCP}, {Name: "status-port", ContainerPort: portStatus, Protocol: corev1.ProtocolTCP},
		{Name: "mesh", ContainerPort: portHBONE, Protocol: corev1.ProtocolTCP},
	}
}

func ready() *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz/ready", Port: intstr.FromInt32(portStatus)}},
		PeriodSeconds: 2, TimeoutSeconds: 1, FailureThreshold: 4, SuccessThreshold: 1,
	}
}

func restricted() *corev1.SecurityContext {
	no, yes, user := false, true, int64(1337)
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

func volumes() []corev1.Volume {
	expires := int64(43200)
	return []corev1.Volume{
		{Name: "istio-token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "istio-ca", ExpirationSeconds: &expires, Path: "istio-token"}},
		}}}},
		{Name: "istiod-ca-cert", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: rootMap}}}},
		{Name: "sds", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
	}
}

func mounts() []corev1.VolumeMount {
	return []corev1.VolumeMount{
		{Name: "istio-token", MountPath: Directory + "/tokens", ReadOnly: true}, {Name: "istiod-ca-cert", MountPath: Directory + "/istio", ReadOnly: true},
		{Name: "sds", MountPath: Directory + "/sds"},
	}
}

func orDefault(v, def string) string {
	if v == "" {
		return def
	}
	return v
}
