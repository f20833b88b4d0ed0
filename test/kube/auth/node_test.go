package auth

import (
	"encoding/json"
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/plane"
)

// Whoever has a node has what its agent has: its account's rights in the API, as a token of its
// pod. That must not lead to other nodes: no token of another node's agent or of any workload, no word on
// pods elsewhere, nothing on its own pods but the annotation, and no look at what proxies are told.
func TestAStolenNode(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{Name: "stolen"})
	if out, err := c.KubectlInput(t.Context(), world, "apply", "-f", "-"); err != nil {
		t.Fatal(err, out)
	}
	p := plane.Start(t, c)
	p.Node("n1", nil)
	p.Node("n2", nil)
	stolen := p.Pod("istio-system", "ztunnel-n1", "ztunnel", "n1", "10.1.0.1", nil, nil)
	other := p.Pod("istio-system", "ztunnel-n2", "ztunnel", "n2", "10.2.0.1", nil, nil)
	near := p.Pod("shop", "near-1", "near", "n1", "10.1.0.2", map[string]string{"app": "near"}, nil)
	far := p.Pod("shop", "far-1", "far", "n2", "10.2.0.2", map[string]string{"app": "far"}, nil)
	p.Until("the control plane", func() bool { return strings.HasPrefix(p.Get("/healthz/ready"), "200") })
	api := as(t, p, stolen)

	mint := func(account string, pod *corev1.Pod, audience string) (string, error) {
		r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}
		if pod != nil {
			r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
		}
		made, err := api.CoreV1().ServiceAccounts("istio-system").CreateToken(t.Context(), account, r, metav1.CreateOptions{})
		if err != nil {
			return "", err
		}
		return made.Status.Token, nil
	}
	t.Run("tokens", func(t *testing.T) {
		for _, account := range []string{"ztunnel", "istiod", "default"} {
			for _, pod := range []*corev1.Pod{nil, other, stolen} {
				token, err := mint(account, pod, "istio-ca")
				if apierrors.IsForbidden(err) {
					continue
				}
				t.Errorf("it has a token of %s made, bound to %v: %v", account, pod != nil, err)
				if pod == other && err == nil {
					got, err := plane.Sign(t, dialFrom(t, p, "127.0.0.9", file(t, token)), "shop/far")
					t.Errorf("with which the CA signs for a pod of another node: %s %v", got, err)
				}
			}
		}
		// The one that it may have made reads pods and namespaces, and proves nothing in the mesh.
		token, err := mint("fairlead-cni", nil, "istio-ca")
		if err != nil {
			t.Fatal(err)
		}
		conn := dialFrom(t, p, "127.0.0.10", file(t, token))
		if got, err := plane.Sign(t, conn, "shop/near"); err == nil {
			t.Errorf("the CNI plugin's token has the CA sign for %s", got)
		}
		if got, err := plane.Sign(t, conn, ""); err == nil {
			t.Errorf("the CNI plugin's token has the CA sign for %s", got)
		}
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&discovery.DiscoveryRequest{TypeUrl: "istio.io/debug/syncz"})
		if got, err := stream.Recv(); err == nil {
			t.Errorf("the CNI plugin's token sees who is connected: %v", got)
		}
	})
	t.Run("pods", func(t *testing.T) {
		patch := func(pod *corev1.Pod, subresource string, what map[string]any) error {
			b, err := json.Marshal(what)
			if err != nil {
				t.Fatal(err)
			}
			_, err = api.CoreV1().Pods(pod.Namespace).Patch(t.Context(), pod.Name, types.MergePatchType, b, metav1.PatchOptions{}, subresource)
			return err
		}
		annotation := func(name string, value any) map[string]any {
			return map[string]any{"metadata": map[string]any{"annotations": map[string]any{name: value}}}
		}
		// Policies come into force a little after they were written.
		p.Until("the API server's policy", func() bool { return patch(far, "status", annotation("ambient.istio.io/redirection", "enabled")) != nil })
		for _, value := range []any{"enabled", "pending", nil} {
			if err := patch(near, "status", annotation("ambient.istio.io/redirection", value)); err != nil {
				t.Errorf("an agent cannot say %v on a pod of its node: %v", value, err)
			}
		}
		for what, content := range map[string]map[string]any{
			"annotation": annotation("kubernetes.io/config.hash", "x"),
			"label":      {"metadata": map[string]any{"labels": map[string]any{"istio.io/dataplane-mode": "none"}}},
			"no label":   {"metadata": map[string]any{"labels": map[string]any{"app": nil}}},
			"finalizer":  {"metadata": map[string]any{"finalizers": []string{"example.com/x"}}},
			"address":    {"status": map[string]any{"podIP": "10.1.0.9", "podIPs": []any{map[string]any{"ip": "10.1.0.9"}}}},
			"phase":      {"status": map[string]any{"phase": "Failed"}},
		} {
			if err := patch(near, "status", content); err == nil {
				t.Errorf("it changes a pod of its node: %s", what)
			}
		}
		if err := patch(near, "", annotation("ambient.istio.io/redirection", "enabled")); !apierrors.IsForbidden(err) {
			t.Errorf("it may patch the pod itself: %v", err)
		}
	})
}

// as is a client with the token that a pod has for the API.
func as(t *testing.T, p *plane.Plane, pod *corev1.Pod) kubernetes.Interface {
	t.Helper()
	made, err := p.Kube.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(t.Context(), pod.Spec.ServiceAccountName, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := p.Cluster.Config()
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken = made.Status.Token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
