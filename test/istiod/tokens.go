package main

import (
	"context"
	"fmt"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// tokenSeconds is how long tokens live: longer than any test.
const tokenSeconds = 12 * 3600

// tokens are files of tokens that the API server issues for pods: a node's agent's in a
// file of the node's name, others' below "pods", by namespace and name.
type tokens struct {
	clients *clients
	dir     string
}

// give writes a pod's token, where it has one.
func (t tokens) give(ctx context.Context, pod *unstructured.Unstructured) error {
	path := filepath.Join(t.dir, "pods", pod.GetNamespace(), pod.GetName())
	if node, ok := agentOf(pod); ok {
		path = filepath.Join(t.dir, node)
	} else if !projected(pod) {
		return nil
	}
	account, _, _ := unstructured.NestedString(pod.Object, "spec", "serviceAccountName")
	seconds := int64(tokenSeconds)
	got, err := t.clients.typed.CoreV1().ServiceAccounts(pod.GetNamespace()).CreateToken(ctx, account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			Audiences: []string{"istio-ca"}, ExpirationSeconds: &seconds,
			BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.GetName(), UID: pod.GetUID()},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("a token for pod %s/%s: %w", pod.GetNamespace(), pod.GetName(), err)
	}
	return write(path, []byte(got.Status.Token))
}

// agentOf is the node whose agent a pod stands for.
func agentOf(pod *unstructured.Unstructured) (string, bool) {
	node, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName")
	return node, pod.GetNamespace() == systemNamespace && pod.GetName() == agentAccount+"-"+node
}

// projected reports whether a pod is to have a token.
func projected(pod *unstructured.Unstructured) bool {
	volumes, _, _ := unstructured.NestedSlice(pod.Object, "spec", "volumes")
	for _, v := range volumes {
		volume, _ := v.(map[string]any)
		sources, _, _ := unstructured.NestedSlice(volume, "projected", "sources")
		for _, s := range sources {
			if source, _ := s.(map[string]any); source["serviceAccountToken"] != nil && volume["name"] == "istio-token" {
				return true
			}
		}
	}
	return false
}
