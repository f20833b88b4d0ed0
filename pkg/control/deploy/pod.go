package deploy

import (
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/rootcert"
	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// ContainerName is the proxy's in a waypoint's pod: Istio's, so that parameters that
// people have for it mean this one.
const ContainerName = "istio-proxy"

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
		// All that the Pod Security Standard "restricted" asks for is here and in the containers.
		SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: ptr(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
	}}
	switch engine := orDefault(g.Annotations[annotationEngine], "fairlead"); engine {
	case "fairlead":
		shown, err := statistics(meta.Annotations, o.Statistics)
		if err != nil {
			return t, err
		}
		t.Spec.Containers = []corev1.Container{fairlead(g, o)}
		t.Spec.Containers[0].Env = append(t.Spec.Containers[0].Env, shown...)
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
	// Go's collector keeps to nine tenths of it: without a limit it is the node's memory.
	return append(out, corev1.EnvVar{Name: "MEMORY_LIMIT", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}}})
}

func fairlead(g *gatewayv1.Gateway, o Options) corev1.Container {
	return corev1.Container{
		Name: ContainerName, Image: o.Image, ImagePullPolicy: o.PullPolicy, Args: append(identity(g, o), fmt.Sprintf("--drain=%ds", drainSeconds)), Env: environment(),
		Ports: ports(), VolumeMounts: mounts(), ReadinessProbe: ready(), SecurityContext: restricted(),
	}
}

// envoy are two containers: one that gives certificates and relays discovery, and the
// proxy.
func envoy(g *gatewayv1.Gateway, o Options) []corev1.Container {
	secrets := corev1.Container{
		Name: "sds", Image: o.Image, ImagePullPolicy: o.PullPolicy, Env: environment(), VolumeMounts: mounts(), SecurityContext: restricted(),
		Args: append([]string{"sds", "--socket=" + socket, "--bootstrap-out=" + bootstrap}, identity(g, o)...),
	}
	proxy := corev1.Container{
		Name: ContainerName, Image: o.EnvoyImage, ImagePullPolicy: o.PullPolicy, Args: []string{"--config-path", bootstrap, "--log-level", "warning", "--concurrency", "2"},
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
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: ptr(false), ReadOnlyRootFilesystem: ptr(true), RunAsNonRoot: ptr(true), RunAsUser: ptr(int64(1337)), RunAsGroup: ptr(int64(1337)),
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

func volumes() []corev1.Volume {
	expires := int64(43200)
	return []corev1.Volume{
		{Name: "istio-token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: token.Audience, ExpirationSeconds: &expires, Path: "istio-token"}},
		}}}},
		{Name: "istiod-ca-cert", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: rootcert.Name}}}},
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
