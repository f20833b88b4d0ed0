package apply

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// replicasManager owns how many pods there are where the Gateway does not say any more.
const replicasManager = "fairlead-waypoint-replicas"

// handOver keeps a Deployment at as many pods as it has, where it is about to be applied
// without a number after it had one: the field would go back to one pod, while an
// autoscaler that was asked for has yet to look at it.
func (r *round) handOver(ctx context.Context, o rendered) error {
	if o.key.kind.name != "Deployment" || o.sets("replicas") || !r.children.owns(o.key, "replicas") {
		return nil
	}
	client := r.options.Dynamic.Resource(o.key.kind.resource).Namespace(o.key.namespace)
	live, err := client.Get(ctx, o.key.name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("Deployment %s: how many pods it has: %w", o.key.name, err) //nolint:staticcheck // a kind
	}
	n, found, err := unstructured.NestedInt64(live.Object, "spec", "replicas")
	if err != nil || !found {
		return nil // nobody said
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"namespace": o.key.namespace, "name": o.key.name},
		"spec": map[string]any{"replicas": n},
	})
	if err != nil {
		return err
	}
	// Without force: whoever has another number by now has it.
	_, err = r.options.Metadata.Resource(o.key.kind.resource).Namespace(o.key.namespace).
		Patch(ctx, o.key.name, types.ApplyPatchType, text, metav1.PatchOptions{FieldManager: replicasManager})
	if err != nil {
		return fmt.Errorf("Deployment %s: keep %d pods: %w", o.key.name, n, err) //nolint:staticcheck // a kind
	}
	return nil
}

// sets tells whether a field of the spec is applied.
func (o rendered) sets(field string) bool {
	var content struct {
		Spec map[string]json.RawMessage `json:"spec"`
	}
	return json.Unmarshal(o.text, &content) == nil && content.Spec[field] != nil
}

// owns tells whether a field of the spec was applied by us.
func (c *children) owns(k key, field string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.all[k]
	if one == nil {
		return false
	}
	for _, m := range one.meta.ManagedFields {
		if m.Manager != FieldManager || m.Operation != metav1.ManagedFieldsOperationApply || m.FieldsV1 == nil {
			continue
		}
		var fields struct {
			Spec map[string]json.RawMessage `json:"f:spec"`
		}
		if json.Unmarshal(m.FieldsV1.GetRawBytes(), &fields) == nil && fields.Spec["f:"+field] != nil {
			return true
		}
	}
	return false
}
