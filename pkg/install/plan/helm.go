package plan

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// What Helm writes on the objects of a release, and reads before it changes one.
const (
	helmName      = "meta.helm.sh/release-name"
	helmNamespace = "meta.helm.sh/release-namespace"
	helmManager   = "app.kubernetes.io/managed-by"
)

// Release is a release of Helm; zero is none.
type Release struct{ Name, Namespace string }

// ReleaseOf is the release that an object is part of.
func ReleaseOf(o *unstructured.Unstructured) Release {
	a := o.GetAnnotations()
	return Release{Name: a[helmName], Namespace: a[helmNamespace]}
}

// HelmError is a mesh that Helm has installed.
type HelmError struct{ Release Release }

// Error says whose the mesh is, and how it is changed.
func (e *HelmError) Error() string {
	r := e.Release
	return fmt.Sprintf("the mesh in this cluster is the release %s of Helm: `helm upgrade %s CHART -n %s` changes it, `helm uninstall %s -n %s` takes it out", r.Name, r.Name, r.Namespace, r.Name, r.Namespace)
}

// Forget is the command that has Helm forget a release without touching its objects.
func (r Release) Forget() string {
	return fmt.Sprintf("kubectl delete secret -n %s -l owner=helm,name=%s", r.Namespace, r.Name)
}

// disown takes off an object what makes it a release's.
func disown(ctx context.Context, resource dynamic.ResourceInterface, name string) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:null,%q:null},"labels":{%q:null}}}`, helmName, helmNamespace, helmManager)
	_, err := resource.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: FieldManager})
	return err
}
