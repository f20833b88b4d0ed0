package lab

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-mesh/fairlead/pkg/lab/network"
)

// pods reads "new:ready new old:ready old:deleting": template and state of each.
func podsOf(s string) (out []*pod) {
	for i, word := range strings.Fields(s) {
		hash, state, _ := strings.Cut(word, ":")
		p := &pod{uid: string(rune('a' + i)), hash: hash, ready: state == "ready", deleting: state == "deleting", phase: corev1.PodRunning}
		if state == "failed" {
			p.phase = corev1.PodFailed
		}
		p.created = metav1.NewTime(time.Unix(int64(i), 0))
		out = append(out, p)
	}
	return out
}

func TestRollout(t *testing.T) {
	one, none := intstr.FromInt32(1), intstr.FromInt32(0)
	careful := &appsv1.RollingUpdateDeployment{MaxSurge: &one, MaxUnavailable: &none}
	for _, tc := range []struct {
		name     string
		replicas int32
		strategy appsv1.DeploymentStrategy
		pods     string
		create   int
		remove   string // uids
	}{
		{"from nothing", 3, appsv1.DeploymentStrategy{}, "", 3, ""},
		{"to nothing", 0, appsv1.DeploymentStrategy{}, "new:ready new", 0, "a b"},
		{"enough", 2, appsv1.DeploymentStrategy{}, "new:ready new", 0, ""},
		{"too many: the unready goes first", 1, appsv1.DeploymentStrategy{}, "new new:ready", 0, "a"},
		{"too many: then the youngest", 1, appsv1.DeploymentStrategy{}, "new:ready new:ready", 0, "b"},
		{"one that goes is replaced", 2, appsv1.DeploymentStrategy{}, "new:ready new:deleting", 1, ""},
		{"one that ended is replaced", 2, appsv1.DeploymentStrategy{}, "new:ready new:failed", 1, "b"},
		{"a new template surges", 2, appsv1.DeploymentStrategy{}, "old:ready old:ready", 1, ""},
		{"and waits until it serves", 2, appsv1.DeploymentStrategy{}, "old:ready old:ready new", 0, ""},
		{"then an old one goes", 2, appsv1.DeploymentStrategy{}, "old:ready old:ready new:ready", 0, "b"},
		{"an old one that does not serve goes at once", 2, appsv1.DeploymentStrategy{}, "old:ready old", 1, "b"},
		{"a quarter of four at a time", 4, appsv1.DeploymentStrategy{}, "old:ready old:ready old:ready old:ready", 1, "d"},
		{"never one too few", 4, appsv1.DeploymentStrategy{RollingUpdate: careful}, "old:ready old:ready old:ready old:ready", 1, ""},
		{"recreate ends all first", 2, appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}, "old:ready old:ready", 0, "a b"},
		{"recreate makes new ones then", 2, appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}, "old:deleting", 2, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Replicas: &tc.replicas, Strategy: tc.strategy}}
			create, remove := rollout(d, "new", podsOf(tc.pods))
			var uids []string
			for _, p := range remove {
				uids = append(uids, p.uid)
			}
			slices.Sort(uids)
			if got := strings.Join(uids, " "); create != tc.create || got != tc.remove {
				t.Errorf("makes %d and ends %q, want %d and %q", create, got, tc.create, tc.remove)
			}
		})
	}
}

func TestExpand(t *testing.T) {
	env := map[string]string{"A": "1", "B": "$(A)"}
	for in, want := range map[string]string{
		"":              "",
		"plain":         "plain",
		"$(A)-$(A)":     "1-1",
		"$(B)":          "$(A)", // once only
		"$(NONE)":       "$(NONE)",
		"$$(A)":         "$(A)",
		"cost: 5$":      "cost: 5$",
		"$A ${A} $(A":   "$A ${A} $(A",
		"$(NONE) $(A)!": "$(NONE) 1!",
	} {
		if got := expand(in, env); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestOptionsSayAllThatIsWrong(t *testing.T) {
	o := Options{Dir: "/nonexistent", Name: "a--b", ControlPlane: "nohost", NoMesh: true}
	err := o.complete()
	for _, want := range []string{"/nonexistent", `"a--b"`, "host:port", "--control-plane-root", "exclude each other", "Logger"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: says nothing of %s", err, want)
		}
	}
	for dir, want := range map[string]string{"/x/My Cluster": "my-cluster", "/": "lab", "/a/..b--": "b", "/e/under_score": "under_score"} {
		if got := DefaultName(dir); got != want || checkName(got) != nil {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}

func TestServicesChooseFamiliesAsKubernetes(t *testing.T) {
	prefer, v6 := corev1.IPFamilyPolicyPreferDualStack, corev1.IPv6Protocol
	for _, tc := range []struct {
		lab    network.Family
		policy *corev1.IPFamilyPolicy
		asked  []corev1.IPFamily
		want   string
	}{
		{network.Dual, nil, nil, "IPv4"},
		{network.Dual, &prefer, nil, "IPv4 IPv6"},
		{network.Dual, nil, []corev1.IPFamily{v6}, "IPv6"},
		{network.Dual, &prefer, []corev1.IPFamily{v6}, "IPv6 IPv4"},
		{network.IPv6, nil, nil, "IPv6"},
		{network.IPv6, &prefer, nil, "IPv6"},
		{network.IPv4, nil, []corev1.IPFamily{v6}, ""},
	} {
		l := &Lab{opts: Options{Family: tc.lab}}
		var got []string
		for _, f := range l.familiesOf(&corev1.Service{Spec: corev1.ServiceSpec{IPFamilyPolicy: tc.policy, IPFamilies: tc.asked}}) {
			got = append(got, string(f))
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%v in a lab of %s: %v, want %s", tc.asked, tc.lab, got, tc.want)
		}
	}
}
