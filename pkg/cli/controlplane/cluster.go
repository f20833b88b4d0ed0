package controlplane

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/control/rootcert"
	"github.com/fairlead-mesh/fairlead/pkg/token"
)

const (
	// account is whose tokens a control plane takes for a person's; lifetime is the shortest
	// that the API server gives, in seconds.
	account  = "default"
	lifetime = 600
)

// storedRoots are the roots that the control plane has published in the cluster.
func storedRoots(ctx context.Context, c *kube.Client, istioNamespace string) ([]byte, error) {
	o, err := c.Get(ctx, schema.GroupKind{Kind: "ConfigMap"}, istioNamespace, rootcert.Name)
	if err != nil {
		return nil, err
	}
	if o == nil {
		return nil, fmt.Errorf("there is no ConfigMap %s/%s: no control plane has published the mesh's roots yet", istioNamespace, rootcert.Name)
	}
	text, _, _ := unstructured.NestedString(o.Object, "data", rootcert.Key)
	return []byte(text), nil
}

// newToken has the API server make a token for who runs the command.
func newToken(ctx context.Context, c *kube.Client, istioNamespace string) (string, error) {
	accounts, err := c.Resource(schema.GroupVersionKind{Version: "v1", Kind: "ServiceAccount"}, istioNamespace)
	if err != nil {
		return "", fmt.Errorf("token of service account %s/%s: %w", istioNamespace, account, err)
	}
	request := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": map[string]any{"name": account},
		"spec": map[string]any{"audiences": []any{token.Audience}, "expirationSeconds": int64(lifetime)},
	}}
	made, err := accounts.Create(ctx, request, metav1.CreateOptions{}, "token")
	if err != nil {
		return "", fmt.Errorf("token of service account %s/%s, which who asks a control plane needs: %w", istioNamespace, account, err)
	}
	text, _, _ := unstructured.NestedString(made.Object, "status", "token")
	return text, nil
}
