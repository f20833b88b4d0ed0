package webhook

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// proofResource is of a kind that control planes may create for nothing but this.
var proofResource = schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"}

// Proof asks the API server, without storing anything, for a VirtualService that only a
// webhook refuses.
func Proof(client dynamic.Interface, namespace string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := client.Resource(proofResource).Namespace(namespace).Create(ctx, proof(namespace), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		switch {
		case err == nil:
			return errors.New("it takes what the webhook refuses")
		case apierrors.IsBadRequest(err) && apierrors.HasStatusCause(err, metav1.CauseTypeFieldValueInvalid):
			return nil
		}
		return fmt.Errorf("asked for what the webhook refuses, it said: %w", err)
	}
}

// proof is what the definitions of the kind allow, and its meaning does not: weights
// without a share.
func proof(namespace string) *unstructured.Unstructured {
	to := func(host string) map[string]any {
		return map[string]any{"destination": map[string]any{"host": host}, "weight": int64(0)}
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": proofResource.GroupVersion().String(), "kind": "VirtualService",
		"metadata": map[string]any{"name": "fairlead-webhook-proof", "namespace": namespace},
		"spec": map[string]any{
			"hosts": []any{"proof.fairlead.invalid"},
			"http":  []any{map[string]any{"route": []any{to("a.fairlead.invalid"), to("b.fairlead.invalid")}}},
		},
	}}
}
