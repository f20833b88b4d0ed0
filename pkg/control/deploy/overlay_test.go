package deploy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

func customised(ref string) *gatewayv1.Gateway {
	g := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "waypoint", UID: "u"}, Spec: gatewayv1.GatewaySpec{GatewayClassName: Class}}
	if ref != "" {
		g.Spec.Infrastructure = &gatewayv1.GatewayInfrastructure{ParametersRef: &gatewayv1.LocalParametersReference{Kind: "ConfigMap", Name: ref}}
	}
	return g
}

func with(class, own map[string]string) Options {
	o := options
	o.ClassParameters = class
	o.Parameters = func(namespace, name string) (map[string]string, bool) {
		return own, own != nil && namespace == "shop" && name == "own"
	}
	return o
}

func one[T runtime.Object](t *testing.T, all []runtime.Object) (out T) {
	t.Helper()
	for _, o := range all {
		if v, ok := o.(T); ok {
			return v
		}
	}
	t.Errorf("there is no %T", out)
	return out
}

// The class's parameters come first, the Gateway's own over them; an autoscaler and a
// disruption budget are there when they are asked for.
func TestParameters(t *testing.T) {
	class := map[string]string{
		"deployment":              "spec: {replicas: 2, template: {spec: {priorityClassName: high, nodeSelector: {pool: mesh}, containers: [{name: istio-proxy, resources: {limits: {memory: 1Gi}}}]}}}",
		"service":                 "metadata: {labels: {team: platform}}",
		"horizontalPodAutoscaler": "spec: {minReplicas: 2, maxReplicas: 3}",
	}
	own := map[string]string{
		"deployment":              "metadata: {labels: {gateway.istio.io/managed: mine}}\nspec: {template: {spec: {nodeSelector: null, priorityClassName: low, containers: [{name: istio-proxy, env: [{name: A, value: b}]}]}}}",
		"horizontalPodAutoscaler": "spec: {maxReplicas: 9}",
		"podDisruptionBudget":     "spec: {minAvailable: 1}",
	}
	all, problems := Objects([]*gatewayv1.Gateway{customised("own")}, with(class, own))
	if len(problems) > 0 || len(all) != 5 {
		t.Fatalf("%d objects, problems %v", len(all), problems)
	}
	d := one[*appsv1.Deployment](t, all)
	spec := d.Spec.Template.Spec
	if spec.PriorityClassName != "low" || spec.NodeSelector != nil || len(spec.Containers) != 1 {
		t.Errorf("pod %+v", spec)
	}
	c := spec.Containers[0]
	if c.Image != options.Image || c.Resources.Limits.Memory().String() != "1Gi" || c.Env[len(c.Env)-1].Name != "POD_NAME" && !has(c.Env, "A") || !has(c.Env, "POD_IP") {
		t.Errorf("container %+v", c)
	}
	if d.Labels[LabelManaged] != ManagedWaypoint {
		t.Errorf("parameters took the Deployment away: %v", d.Labels)
	}
	if s := one[*corev1.Service](t, all); s.Labels["team"] != "platform" || len(s.Spec.Ports) != 2 {
		t.Errorf("service %+v", s)
	}
	if h := one[*autoscalingv2.HorizontalPodAutoscaler](t, all); h.Spec.MaxReplicas != 9 || *h.Spec.MinReplicas != 2 || h.Spec.ScaleTargetRef.Name != "waypoint" {
		t.Errorf("autoscaler %+v", h.Spec)
	}
	if b := one[*policyv1.PodDisruptionBudget](t, all); b.Spec.MinAvailable.IntValue() != 1 || b.Spec.Selector.MatchLabels[labelGatewayName] != "waypoint" {
		t.Errorf("budget %+v", b.Spec)
	}
}

func has(env []corev1.EnvVar, name string) bool {
	for _, e := range env {
		if e.Name == name {
			return true
		}
	}
	return false
}

// With an autoscaler, or with nobody who says, the Deployment leaves open how many.
func TestReplicas(t *testing.T) {
	g := customised("")
	for name, c := range map[string]struct {
		annotation string
		class      map[string]string
		want       int32 // -1: open
	}{
		"nobody says":  {"", nil, -1},
		"annotation":   {"3", nil, 3},
		"autoscaler":   {"3", map[string]string{"horizontalPodAutoscaler": "{}"}, -1},
		"the class's":  {"", map[string]string{"deployment": "spec: {replicas: 2}"}, 2},
		"over the two": {"3", map[string]string{"deployment": "spec: {replicas: 2}"}, 2},
	} {
		g.Annotations = map[string]string{annotationReplicas: c.annotation}
		all, problems := Objects([]*gatewayv1.Gateway{g}, with(c.class, nil))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		got := int32(-1)
		if r := one[*appsv1.Deployment](t, all).Spec.Replicas; r != nil {
			got = *r
		}
		if got != c.want {
			t.Errorf("%s: %d replicas, want %d", name, got, c.want)
		}
	}
}

func TestBadParameters(t *testing.T) {
	for want, c := range map[string]struct {
		gateway *gatewayv1.Gateway
		data    map[string]string
	}{
		"there is no ConfigMap shop/lost":          {customised("lost"), nil},
		`has the key "deploy": it can have deploy`: {customised("own"), map[string]string{"deploy": "{}"}},
		`key deployment: line 1: not YAML`:         {customised("own"), map[string]string{"deployment": "a: b: c"}},
		`unknown field "spec.replica"`:             {customised("own"), map[string]string{"deployment": "spec: {replica: 2}"}},
		`metadata.name cannot be set`:              {customised("own"), map[string]string{"service": "metadata: {name: other}"}},
		`metadata.ownerReferences cannot be set`:   {customised("own"), map[string]string{"service": "metadata: {ownerReferences: null}"}},
		`not by a Secret of the group ""`: {func() *gatewayv1.Gateway {
			g := customised("own")
			g.Spec.Infrastructure.ParametersRef.Kind = "Secret"
			return g
		}(), nil},
	} {
		all, problems := Objects([]*gatewayv1.Gateway{c.gateway}, with(nil, c.data))
		err := problems["shop/waypoint"]
		var parameters *ParametersError
		if err == nil || !strings.Contains(err.Error(), want) || !errors.As(err, &parameters) || len(all) > 0 {
			t.Errorf("error %v and %d objects, want %q", err, len(all), want)
		}
	}
}

// A Gateway that goes, or that says by what name it is reached, gets nothing.
func TestUnmanaged(t *testing.T) {
	going, elsewhere, address := customised(""), customised(""), customised("")
	going.DeletionTimestamp = &metav1.Time{}
	hostname, ip := gatewayv1.HostnameAddressType, gatewayv1.IPAddressType
	elsewhere.Spec.Addresses = []gatewayv1.GatewaySpecAddress{{Type: &hostname, Value: "wp.shop.svc.cluster.local"}}
	address.Spec.Addresses = []gatewayv1.GatewaySpecAddress{{Type: &ip, Value: "10.0.0.1"}}
	for g, want := range map[*gatewayv1.Gateway]int{going: 0, elsewhere: 0, address: 3} {
		if all, problems := Objects([]*gatewayv1.Gateway{g}, options); len(all) != want || len(problems) > 0 {
			t.Errorf("%d objects and problems %v, want %d", len(all), problems, want)
		}
	}
}

// The parameters in the documentation are such.
func TestParametersOfTheDocumentation(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "waypoints.md"))
	if err != nil {
		t.Fatal(err)
	}
	var own map[string]string
	for block := range strings.SplitSeq(string(text), "```") {
		for doc := range strings.SplitSeq(strings.TrimPrefix(block, "yaml\n"), "---\n") {
			var m corev1.ConfigMap
			if strings.Contains(doc, "kind: ConfigMap\n") {
				if err := yaml.UnmarshalStrict([]byte(doc), &m); err != nil {
					t.Fatal(err)
				}
				own = m.Data
			}
		}
	}
	all, problems := Objects([]*gatewayv1.Gateway{customised("own")}, with(nil, own))
	if len(problems) > 0 || len(all) != 5 || len(own) != len(keys) {
		t.Errorf("%d objects of %d keys, problems %v", len(all), len(own), problems)
	}
}
