package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
)

// manager is the name under which the mirror owns fields.
const manager = "lab"

// clients are the ways to the API server.
type clients struct {
	typed   kubernetes.Interface
	dynamic dynamic.Interface
	mapper  meta.ResettableRESTMapper
}

func newClients(kubeconfig string) (*clients, error) {
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	c.QPS, c.Burst = 500, 1000
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	typed, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, err
	}
	d, err := dynamic.NewForConfig(c)
	if err != nil {
		return nil, err
	}
	return &clients{typed, d, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(typed.Discovery()))}, nil
}

// ready waits until the API server is.
func (c *clients) ready(ctx context.Context, server *child) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for c.typed.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() != nil {
		select {
		case <-tick.C:
		case err := <-server.ended:
			return fmt.Errorf("the API server ended: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// of is the resource of an object's kind.
func (c *clients) of(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	gvk := o.GroupVersionKind()
	m, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, err
	}
	if m.Scope.Name() == meta.RESTScopeNameRoot {
		return c.dynamic.Resource(m.Resource), nil
	}
	return c.dynamic.Resource(m.Resource).Namespace(o.GetNamespace()), nil
}

// apply makes the API server's object say what o says, and returns it.
func (c *clients) apply(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	r, err := c.of(o)
	if err != nil {
		return nil, err
	}
	text, err := o.MarshalJSON()
	if err != nil {
		return nil, err
	}
	force := true
	return r.Patch(ctx, o.GetName(), types.ApplyPatchType, text, metav1.PatchOptions{FieldManager: manager, Force: &force})
}

// status writes an object's status. It is not applied: of a node's addresses two are of
// one type, which that does not allow.
func (c *clients) status(ctx context.Context, o *unstructured.Unstructured, status any) error {
	r, err := c.of(o)
	if err != nil {
		return err
	}
	text, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	_, err = r.Patch(ctx, o.GetName(), types.MergePatchType, text, metav1.PatchOptions{FieldManager: manager}, "status")
	return err
}

// remove deletes an object; one that is not there is no error.
func (c *clients) remove(ctx context.Context, o *unstructured.Unstructured, grace int64) error {
	r, err := c.of(o)
	if err != nil {
		return err
	}
	background := metav1.DeletePropagationBackground
	err = r.Delete(ctx, o.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &grace, PropagationPolicy: &background})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// install gives the API server the kinds of the files in dir, and waits until it
// serves them.
func (c *clients) install(ctx context.Context, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s holds no kinds: the parts are not complete", dir)
	}
	var all []*unstructured.Unstructured
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		docs, err := decode(text)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, docs...)
	}
	for _, o := range all {
		if _, err := c.apply(ctx, o); err != nil {
			return fmt.Errorf("install %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	crds := c.dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, o := range all {
		for o.GetKind() == "CustomResourceDefinition" {
			now, err := crds.Get(ctx, o.GetName(), metav1.GetOptions{})
			if err == nil && established(now) {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return errors.Join(err, ctx.Err())
			}
		}
	}
	c.mapper.Reset()
	return nil
}

func established(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == "Established" && m["status"] == "True" {
			return true
		}
	}
	return false
}
