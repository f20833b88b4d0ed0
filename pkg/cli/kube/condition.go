package kube

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Condition is an object's status condition of a type, or an empty one. Times are left out.
func Condition(o *unstructured.Unstructured, kind string) metav1.Condition {
	all, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, one := range all {
		c, _ := one.(map[string]any)
		text := func(key string) string { s, _ := c[key].(string); return s }
		if text("type") == kind {
			return metav1.Condition{Type: kind, Status: metav1.ConditionStatus(text("status")), Reason: text("reason"), Message: text("message")}
		}
	}
	return metav1.Condition{}
}
