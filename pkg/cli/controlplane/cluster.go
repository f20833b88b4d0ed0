package controlplane

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
)

const (
	// rootConfigMap and rootKey are where the control plane publishes the mesh's roots.
	rootConfigMap = "istio-ca-root-cert"
	rootKey       = "root-cert.pem"
	// account is whose tokens a control plane takes for a person's, and audience what they
	// are for; lifetime is the shortest that the API server gives, in seconds.
	account  = "default"
	audience = "istio-ca"
	lifetime = 600
)

// storedRoots are the roots that the control plane has published in the cluster.
func storedRoots(ctx context.Context, c *kube.Client, istioNamespace string) ([]byte, error) {
	o, err := c.Get(ctx, schema.GroupKind{Kind: "ConfigMap"}, istioNamespace, rootConfigMap)
	if err != nil {
		return nil, err
	}
	if o == nil {
		return nil, fmt.Errorf("there is no ConfigMap %s/%s: no control plane has published the mesh's roots yet", istioNamespace, rootConfigMap)
	}
	text, _, _ := unstructured.NestedString(o.Object, "data", rootKey)
	return []byte(text), nil
}

// token has the API server make a token for who runs the command.
func token(ctx context.Context, c *kube.Client, istioNamespace string) (string, error) {
	accounts, err := c.Resource(schema.GroupVersionKind{Version: "v1", Kind: "ServiceAccount"}, istioNamespace)
	if err != nil {
		return "", fmt.Errorf("token of service account %s/%s: %w", istioNamespace, account, err)
	}
	request := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": map[string]any{"name": account},
		"spec": map[string]any{"audiences": []any{audience}, "expirationSeconds": int64(lifetime)},
	}}
	made, err := accounts.Create(ctx, request, metav1.CreateOptions{}, "token")
	if err != nil {
		return "", fmt.Errorf("token of service account %s/%s, which who asks a control plane needs: %w", istioNamespace, account, err)
	}
	text, _, _ := unstructured.NestedString(made.Object, "status", "token")
	return text, nil
}
