package chart

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// values of a release, as dotted paths.
func values(pairs ...any) map[string]any {
	out := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		_ = unstructured.SetNestedField(out, pairs[i+1], strings.Split(pairs[i].(string), ".")...)
	}
	return out
}

func render(t *testing.T, profile string, v map[string]any) map[string]*unstructured.Unstructured {
	t.Helper()
	objects, err := Release{Profile: profile, Values: v, Version: "v9"}.Render()
	if err != nil {
		t.Fatalf("profile %s: %v", profile, err)
	}
	out := map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		key := o.GetKind() + "/" + o.GetName()
		if out[key] != nil {
			t.Errorf("profile %s: %s is rendered twice", profile, key)
		}
		out[key] = o
	}
	return out
}

func into[T any](t *testing.T, o *unstructured.Unstructured) *T {
	t.Helper()
	out := new(T)
	if o == nil {
		t.Fatal("the object is not rendered")
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, out, true); err != nil {
		t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
	}
	return out
}

// Each profile is a set of objects.
func TestProfiles(t *testing.T) {
	account := []string{"ClusterRole/istiod-istio-system", "ClusterRoleBinding/istiod-istio-system", "Role/istiod", "RoleBinding/istiod", "ServiceAccount/istiod"}
	control := slices.Concat(account, []string{"Deployment/istiod", "Service/istiod", "ValidatingWebhookConfiguration/istio-validator-istio-system"})
	agent := []string{"ClusterRole/fairlead-cni-istio-system", "ClusterRole/ztunnel-istio-system", "ClusterRoleBinding/fairlead-cni-istio-system", "ClusterRoleBinding/ztunnel-istio-system",
		"DaemonSet/ztunnel", "Role/fairlead-cni", "Role/ztunnel", "RoleBinding/fairlead-cni", "RoleBinding/ztunnel", "ServiceAccount/fairlead-cni", "ServiceAccount/ztunnel",
		"ValidatingAdmissionPolicy/probe-hosts-istio-system", "ValidatingAdmissionPolicy/ztunnel-istio-system",
		"ValidatingAdmissionPolicyBinding/probe-hosts-istio-system", "ValidatingAdmissionPolicyBinding/ztunnel-istio-system"}
	base := []string{"ConfigMap/istio", "GatewayClass/istio-waypoint"}
	elastic := []string{"HorizontalPodAutoscaler/istiod", "PodDisruptionBudget/istiod"}
	for _, c := range []struct {
		profile string
		values  map[string]any
		want    []string
	}{
		{"default", nil, slices.Concat(base, control, agent, elastic)},
		{"production", nil, slices.Concat(base, control, agent, elastic)},
		{"demo", nil, slices.Concat(base, control, agent)},
		{"minimal", nil, slices.Concat(base, control)},
		{"remote", values("remote.address", "10.0.0.1"), slices.Concat(base, account, agent, []string{"EndpointSlice/istiod-remote", "Service/istiod"})},
		{"remote", values("remote.address", "mesh.example.com"), slices.Concat(base, account, agent, []string{"Service/istiod"})},
	} {
		objects := render(t, c.profile, c.values)
		slices.Sort(c.want)
		if d := cmp.Diff(c.want, slices.Sorted(maps.Keys(objects))); d != "" {
			t.Errorf("profile %s (-want +got):\n%s", c.profile, d)
		}
		for key, o := range objects {
			if o.GetLabels()["fairlead.dev/component"] == "" {
				t.Errorf("profile %s: %s has no label fairlead.dev/component: uninstall would leave it", c.profile, key)
			}
		}
	}
	if d := cmp.Diff([]string{"default", "demo", "minimal", "production", "remote"}, Profiles()); d != "" {
		t.Error(d)
	}
}

// The control plane of production stays when a node goes; that of default grows.
func TestReplicas(t *testing.T) {
	hpa := func(objects map[string]*unstructured.Unstructured) [2]int64 {
		o := objects["HorizontalPodAutoscaler/istiod"]
		if o == nil {
			return [2]int64{}
		}
		least, _, _ := unstructured.NestedInt64(o.Object, "spec", "minReplicas")
		most, _, _ := unstructured.NestedInt64(o.Object, "spec", "maxReplicas")
		return [2]int64{least, most}
	}
	for _, c := range []struct {
		profile string
		values  map[string]any
		want    [2]int64
		fixed   *int32
	}{
		{"default", nil, [2]int64{1, 5}, nil},
		{"production", nil, [2]int64{2, 5}, nil},
		{"default", values("controlPlane.autoscale.minReplicas", int64(3), "controlPlane.autoscale.maxReplicas", int64(9)), [2]int64{3, 9}, nil},
		{"demo", nil, [2]int64{}, new(int32(1))},
		{"default", values("controlPlane.autoscale.enabled", false, "controlPlane.replicas", int64(2)), [2]int64{}, new(int32(2))},
	} {
		objects := render(t, c.profile, c.values)
		if got := hpa(objects); got != c.want {
			t.Errorf("profile %s %v: the control plane has %v replicas, want %v", c.profile, c.values, got, c.want)
		}
		// Who scales the Deployment is one: the autoscaler, or the chart.
		if d := cmp.Diff(c.fixed, into[appsv1.Deployment](t, objects["Deployment/istiod"]).Spec.Replicas); d != "" {
			t.Errorf("profile %s %v: replicas of the Deployment (-want +got):\n%s", c.profile, c.values, d)
		}
	}
}

// Pods have what they need and no more.
func TestLeastPrivilege(t *testing.T) {
	objects := render(t, "default", nil)
	agent := into[appsv1.DaemonSet](t, objects["DaemonSet/ztunnel"])
	control := into[appsv1.Deployment](t, objects["Deployment/istiod"])
	for name, pod := range map[string]corev1.PodSpec{"agent": agent.Spec.Template.Spec, "control plane": control.Spec.Template.Spec} {
		if pod.HostNetwork || pod.HostPID || pod.HostIPC {
			t.Errorf("the %s shares the node's namespaces", name)
		}
	}
	r := agent.Spec.UpdateStrategy.RollingUpdate
	if r.MaxSurge.IntValue() != 1 || r.MaxUnavailable.IntValue() != 0 {
		t.Errorf("an agent must be there before the other goes: %+v", r)
	}
}

// limited are the variables that come from a container's limits.
func limited(env []corev1.EnvVar) (out []string) {
	for _, e := range env {
		if e.ValueFrom != nil && e.ValueFrom.ResourceFieldRef != nil {
			out = append(out, e.Name+"="+e.ValueFrom.ResourceFieldRef.Resource)
		}
	}
	return out
}

// Settings reach who reads them.
func TestValuesReachObjects(t *testing.T) {
	objects := render(t, "default", values("hub", "registry.example/mesh", "clusterID", "c7", "network", "n7", "meshConfig.accessLogFile", "/dev/stdout",
		"settings.injectionLabel", true, "controlPlane.env.GOMEMLIMIT", "1GiB", "nodeAgent.accessLog", "json"))
	control := into[appsv1.Deployment](t, objects["Deployment/istiod"]).Spec.Template.Spec.Containers[0]
	agent := into[appsv1.DaemonSet](t, objects["DaemonSet/ztunnel"]).Spec.Template.Spec.Containers[0]
	mesh := into[corev1.ConfigMap](t, objects["ConfigMap/istio"]).Data
	for _, c := range []struct{ what, in, want string }{
		{"the control plane's image", control.Image, "registry.example/mesh/control-plane:v9"},
		{"the agent's image", agent.Image, "registry.example/mesh/node-agent:v9"},
		{"the control plane's arguments", strings.Join(control.Args, "\n"), "--cluster-id=c7\n--network=n7"},
		{"the control plane's arguments", strings.Join(control.Args, "\n"), "--waypoint-image=registry.example/mesh/waypoint:v9"},
		{"the agent's arguments", strings.Join(agent.Args, "\n"), "--cluster-id=c7\n--network=n7"},
		{"the agent's arguments", strings.Join(agent.Args, "\n"), "--access-log=json"},
		{"the mesh configuration", mesh["mesh"], "accessLogFile: /dev/stdout\nrootNamespace: istio-system\ntrustDomain: cluster.local"},
		{"the settings", mesh["fairlead"], "injectionLabel: true"},
		{"the environment", control.Env[len(control.Env)-1].Name + "=" + control.Env[len(control.Env)-1].Value, "GOMEMLIMIT=1GiB"},
		{"what knows the control plane's limit", strings.Join(limited(control.Env), "\n"), "MEMORY_LIMIT=limits.memory"},
		{"what knows the agent's limit", strings.Join(limited(agent.Env), "\n"), "MEMORY_LIMIT=limits.memory"},
	} {
		if !strings.Contains(c.in, c.want) {
			t.Errorf("%s do not contain %q:\n%s", c.what, c.want, c.in)
		}
	}
}

// A wrong value is refused by its path, with what was meant.
func TestWrongValues(t *testing.T) {
	for _, c := range []struct {
		values map[string]any
		want   string
	}{
		{values("hubb", "x"), `hubb: no such value; did you mean "hub"?`},
		{values("controlPlane.replica", int64(1)), `controlPlane.replica: no such value; did you mean "replicas"?`},
		{values("controlPlane.replicas", "two"), `controlPlane.replicas: integer is wanted, and this is string`},
		{values("controlPlane.replicas", int64(-1)), `controlPlane.replicas: -1 is less than 0`},
		{values("webhook.failurePolicy", "ignore"), `webhook.failurePolicy: "ignore" is not one of Ignore, Fail; did you mean "Ignore"?`},
		{values("webhook.timeoutSeconds", int64(99)), `webhook.timeoutSeconds: 99 is more than 30`},
		{values("nodeAgent.resources.limits.cpu", "ten"), `nodeAgent.resources.limits.cpu: "ten" does not match `},
		{values("settings.injectionlabel", true), `settings.injectionlabel: no such value; did you mean "injectionLabel"?`},
		{values("nodeAgent.affinity.nodeAfinity.x", "y"), `the values make no right DaemonSet ztunnel: unknown field "spec.template.spec.affinity.nodeAfinity"`},
		{values("controlPlane.enabled", false), `remote.address: where controlPlane.enabled is false, the address`},
	} {
		_, err := Release{Profile: "default", Values: c.values, Version: "v9"}.Render()
		wrong := ValueErrors(nil)
		if !errors.As(err, &wrong) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v: got %v, want %s", c.values, err, c.want)
		}
	}
	if _, err := (Release{Profile: "nope"}).Render(); err == nil || !strings.Contains(err.Error(), `no profile "nope": default, demo, minimal, production, remote`) {
		t.Errorf("an unknown profile: %v", err)
	}
}

// The kinds that the mesh reads are defined, and described nowhere.
func TestDefinitions(t *testing.T) {
	definitions, err := Definitions()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range definitions {
		names = append(names, d.GetName())
	}
	for _, want := range []string{"authorizationpolicies.security.istio.io", "virtualservices.networking.istio.io", "telemetries.telemetry.istio.io",
		"gateways.gateway.networking.k8s.io", "httproutes.gateway.networking.k8s.io", "tcproutes.gateway.networking.k8s.io"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not defined", want)
		}
	}
	if len(names) != 25 {
		t.Errorf("%d kinds are defined, want Istio's 15 and the Gateway API's 10", len(names))
	}
}

// NetworkPolicies are there when they are asked for, and let in what each pod listens on and
// out what it calls.
func TestNetworkPolicies(t *testing.T) {
	for key := range render(t, "default", nil) {
		if strings.HasPrefix(key, "NetworkPolicy/") {
			t.Errorf("%s was not asked for", key)
		}
	}
	asked := values("networkPolicy.enabled", true, "networkPolicy.apiServerPorts", []any{int64(8443)})
	objects := render(t, "default", asked)
	template := map[string]corev1.PodTemplateSpec{
		"istiod": into[appsv1.Deployment](t, objects["Deployment/istiod"]).Spec.Template, "ztunnel": into[appsv1.DaemonSet](t, objects["DaemonSet/ztunnel"]).Spec.Template,
		"fairlead-withdraw": {ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"batch.kubernetes.io/job-name": "fairlead-withdraw"}}}, // by Kubernetes
	}
	for name, calls := range map[string][]int{"istiod": {53, 53, 8443}, "ztunnel": {53, 53, 8443, 15012}, "fairlead-withdraw": {53, 53, 8443}} {
		p := into[networkingv1.NetworkPolicy](t, objects["NetworkPolicy/"+name])
		if len(p.Spec.PodSelector.MatchLabels) == 0 {
			t.Errorf("%s: the policy selects whatever runs beside", name)
		}
		for k, v := range p.Spec.PodSelector.MatchLabels {
			if template[name].Labels[k] != v {
				t.Errorf("%s: the policy does not select its pods: %s=%s", name, k, v)
			}
		}
		if !slices.Equal(p.Spec.PolicyTypes, []networkingv1.PolicyType{"Ingress", "Egress"}) {
			t.Errorf("%s: %v", name, p.Spec.PolicyTypes)
		}
		var in, out, listens []int
		for _, r := range p.Spec.Ingress {
			for _, port := range r.Ports {
				in = append(in, port.Port.IntValue())
			}
		}
		for _, r := range p.Spec.Egress {
			for _, port := range r.Ports {
				out = append(out, port.Port.IntValue())
			}
		}
		for _, c := range template[name].Spec.Containers {
			for _, port := range c.Ports {
				listens = append(listens, int(port.ContainerPort))
			}
		}
		slices.Sort(in)
		slices.Sort(out)
		slices.Sort(listens)
		if !slices.Equal(in, listens) || !slices.Equal(out, calls) {
			t.Errorf("%s: may receive %v and listens on %v, may call %v and calls %v", name, in, listens, out, calls)
		}
	}
	// One without agents has no policy for them.
	if objects := render(t, "minimal", asked); objects["NetworkPolicy/istiod"] == nil || objects["NetworkPolicy/ztunnel"] != nil {
		t.Error("the policies are not those of the pods that there are")
	}
}

// Whatever runs gives up what it does not need.
func TestHardened(t *testing.T) {
	objects := render(t, "default", nil)
	adds := map[string][]corev1.Capability{"ztunnel": {"SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"}}
	for name, pod := range map[string]corev1.PodSpec{
		"istiod": into[appsv1.Deployment](t, objects["Deployment/istiod"]).Spec.Template.Spec, "ztunnel": into[appsv1.DaemonSet](t, objects["DaemonSet/ztunnel"]).Spec.Template.Spec,
	} {
		for _, c := range pod.Containers {
			s := c.SecurityContext
			profile := s.SeccompProfile
			if profile == nil && pod.SecurityContext != nil {
				profile = pod.SecurityContext.SeccompProfile
			}
			if profile == nil || profile.Type != corev1.SeccompProfileTypeRuntimeDefault || s.Privileged != nil && *s.Privileged || !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, adds[name]) {
				t.Errorf("%s: %+v", name, s)
			}
		}
	}
}
