package report

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/fairlead-mesh/fairlead/pkg/control/deploy"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

type name struct{ namespace, name string }

// record is what is kept of an object: enough to tell what must be written.
type record struct {
	version    string // metadata.resourceVersion
	generation int64
	// class is a Gateway's class, controller a GatewayClass's controller.
	class, controller string
	refs              []status.ParentRef // a route's parents of the mesh
	status            []byte             // JSON, of the parts that the kind has; nil: empty
	claimed           bool               // it holds something of ours
	// tried is what was written last of all, with the version that came of it. The API
	// may drop a part that its schema lacks: it is not written again and again.
	tried        *wanted
	triedVersion string
}

// table holds the records of a kind. It is filled by a reflector.
type table struct {
	w    *Writer
	kind *kind

	// The Writer's mu guards below.
	started  bool
	resource schema.GroupVersionResource
	records  map[name]*record
	synced   bool
}

var _ cache.TransformingStore = (*table)(nil)

// retryMissing is how soon a kind is looked for again that the API server does not have.
const retryMissing = 15 * time.Second

// run follows the kind until ctx ends. A kind whose CRD is not there is waited for.
func (t *table) run(ctx context.Context) {
	resource, ok := t.find(ctx)
	if !ok {
		return
	}
	t.w.mu.Lock()
	t.resource = resource
	t.w.mu.Unlock()
	client := t.w.client.Resource(resource)
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, o)
		},
	}, t.w.client)
	reflector := cache.NewReflectorWithOptions(lw, &unstructured.Unstructured{}, t, cache.ReflectorOptions{Name: "status of " + t.kind.resource})
	reflector.RunWithContext(ctx)
}

// find is the kind's resource in the version that the API server has.
func (t *table) find(ctx context.Context) (schema.GroupVersionResource, bool) {
	for {
		for _, version := range t.kind.versions {
			resource := schema.GroupVersionResource{Group: t.kind.group, Version: version, Resource: t.kind.resource}
			_, err := t.w.client.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1})
			if err == nil {
				return resource, true
			}
			if !apierrors.IsNotFound(err) && ctx.Err() == nil {
				t.w.logger.Warn("statuses of a kind cannot be read, so none is written", "kind", t.kind.name, "err", err)
				break
			}
		}
		select {
		case <-ctx.Done():
			return schema.GroupVersionResource{}, false
		case <-time.After(retryMissing):
		}
	}
}

// Transformer keeps what a record is made of, so that a long list is not held whole.
func (t *table) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			return o, nil
		}
		out := &unstructured.Unstructured{Object: map[string]any{"apiVersion": u.GetAPIVersion(), "kind": u.GetKind()}}
		out.SetNamespace(u.GetNamespace())
		out.SetName(u.GetName())
		out.SetResourceVersion(u.GetResourceVersion())
		out.SetGeneration(u.GetGeneration())
		spec, _ := u.Object["spec"].(map[string]any)
		kept := map[string]any{}
		for _, field := range []string{"gatewayClassName", "controllerName"} {
			if v, ok := spec[field].(string); ok {
				kept[field] = v
			}
		}
		if refs, ok := spec["parentRefs"]; ok && t.kind.route() {
			kept["parentRefs"] = refs
		}
		if len(kept) > 0 {
			out.Object["spec"] = kept
		}
		have, _ := u.Object["status"].(map[string]any)
		left := map[string]any{}
		for _, field := range t.kind.fields {
			if v, ok := have[field]; ok {
				left[field] = v
			}
		}
		if len(left) > 0 {
			out.Object["status"] = left
		}
		// A Service's own bookmark of a list is in its annotations.
		if a := u.GetAnnotations()[metav1.InitialEventsAnnotationKey]; a != "" {
			out.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: a})
		}
		return out, nil
	}
}

func (t *table) record(o any) (name, *record, error) {
	o, err := t.Transformer()(o)
	if err != nil {
		return name{}, nil, err
	}
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return name{}, nil, fmt.Errorf("status of %s: an object of type %T", t.kind.resource, o)
	}
	r := &record{version: u.GetResourceVersion(), generation: u.GetGeneration()}
	spec := object(u.Object["spec"])
	r.refs = meshParents(list(spec["parentRefs"]))
	r.class, _ = spec["gatewayClassName"].(string)
	r.controller, _ = spec["controllerName"].(string)
	if have := object(u.Object["status"]); len(have) > 0 {
		if r.status, err = kjson.Marshal(have); err != nil {
			return name{}, nil, err
		}
		r.claimed = t.kind.claims(have)
	}
	return name{u.GetNamespace(), u.GetName()}, r, nil
}

// Add takes an object that came.
func (t *table) Add(o any) error { return t.Update(o) }

// Update takes an object that changed.
func (t *table) Update(o any) error {
	n, r, err := t.record(o)
	if err != nil {
		return err
	}
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	t.putLocked(n, r)
	return nil
}

func (t *table) putLocked(n name, r *record) {
	if before := t.records[n]; before != nil {
		r.tried, r.triedVersion = before.tried, before.triedVersion
	}
	t.records[n] = r
	t.w.enqueueLocked(t.kind, t.objectOf(n))
	if t.kind.name == "GatewayClass" {
		t.w.enqueueGatewaysLocked(n.name)
	}
}

// Delete forgets an object.
func (t *table) Delete(o any) error {
	n, _, err := t.record(o)
	if err != nil {
		return err
	}
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	delete(t.records, n)
	delete(t.w.failed, t.objectOf(n))
	return nil
}

// Replace takes all objects there are.
func (t *table) Replace(all []any, _ string) error {
	records := make(map[name]*record, len(all))
	for _, o := range all {
		n, r, err := t.record(o)
		if err != nil {
			return err
		}
		records[n] = r
	}
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	before := t.records
	t.records = make(map[name]*record, len(records))
	t.synced = true
	for n, r := range records {
		if old := before[n]; old != nil {
			r.tried, r.triedVersion = old.tried, old.triedVersion
		}
		t.putLocked(n, r)
	}
	if t.kind.name == "GatewayClass" {
		t.w.enqueueGatewaysLocked(deploy.Class) // of which there may be no object
	}
	return nil
}

// Resync is never asked for.
func (t *table) Resync() error { return nil }

// objectOf names an object as statuses do, whatever version the API server has.
func (t *table) objectOf(n name) status.Object {
	version := t.kind.versions[0]
	if t.kind.group != "" {
		version = t.kind.group + "/" + version
	}
	return status.Object{APIVersion: version, Kind: t.kind.name, Namespace: n.namespace, Name: n.name}
}
