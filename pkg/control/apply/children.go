package apply

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/fairlead-mesh/fairlead/pkg/control/deploy"
)

// labelManaged marks what a control plane runs for a Gateway.
const labelManaged = deploy.LabelManaged

// kind is one of those that a waypoint is made of.
type kind struct {
	name     string
	resource schema.GroupVersionResource
}

var kinds = []*kind{
	{"ServiceAccount", schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}},
	{"Deployment", schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}},
	{"Service", schema.GroupVersionResource{Version: "v1", Resource: "services"}},
	{"HorizontalPodAutoscaler", schema.GroupVersionResource{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"}},
	{"PodDisruptionBudget", schema.GroupVersionResource{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}},
}

func kindOf(name string) (*kind, bool) {
	for _, k := range kinds {
		if k.name == name {
			return k, true
		}
	}
	return nil, false
}

// key names a child.
type key struct {
	kind            *kind
	namespace, name string
}

// child is an object that is there for a Gateway.
type child struct {
	uid, owner types.UID
	gateway    types.NamespacedName
	meta       *metav1.PartialObjectMetadata
}

// children are the waypoints' objects that the cluster has, and the Gateways of which one
// is another than it was applied.
type children struct {
	a *Applier

	// mu guards below.
	mu      sync.Mutex
	all     map[key]*child
	whole   map[*kind]bool
	drifted map[types.NamespacedName]bool
	// versions are those that came of what was applied, whose events are no drift.
	versions map[key]string
}

func newChildren(a *Applier) *children {
	return &children{a: a, all: map[key]*child{}, whole: map[*kind]bool{}, drifted: map[types.NamespacedName]bool{}, versions: map[key]string{}}
}

func (c *children) start(ctx context.Context, group *sync.WaitGroup) {
	for _, k := range kinds {
		client := c.a.options.Metadata.Resource(k.resource)
		selected := func(o metav1.ListOptions) metav1.ListOptions {
			o.LabelSelector = labelManaged + "=" + deploy.ManagedWaypoint
			return o
		}
		lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return client.List(ctx, selected(o))
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return client.Watch(ctx, selected(o))
			},
		}, c.a.options.Metadata)
		reflector := cache.NewReflectorWithOptions(lw, &metav1.PartialObjectMetadata{}, &childStore{c, k}, cache.ReflectorOptions{Name: "waypoints' " + k.resource.Resource})
		group.Go(func() { reflector.RunWithContext(ctx) })
	}
}

// childStore takes the objects of a kind from a reflector.
type childStore struct {
	*children
	kind *kind
}

var _ cache.ReflectorStore = (*childStore)(nil)

func (s *childStore) Add(o any) error { return s.Update(o) }

func (s *childStore) Update(o any) error {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return fmt.Errorf("waypoints' %s: an object of type %T", s.kind.resource.Resource, o)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putLocked(key{s.kind, m.Namespace, m.Name}, m)
	return nil
}

func (s *childStore) Delete(o any) error {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return fmt.Errorf("waypoints' %s: an object of type %T", s.kind.resource.Resource, o)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(key{s.kind, m.Namespace, m.Name})
	return nil
}

func (s *childStore) Replace(all []any, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := map[key]bool{}
	for _, o := range all {
		m, ok := o.(*metav1.PartialObjectMetadata)
		if !ok {
			return fmt.Errorf("waypoints' %s: an object of type %T", s.kind.resource.Resource, o)
		}
		k := key{s.kind, m.Namespace, m.Name}
		there[k] = true
		s.putLocked(k, m)
	}
	for k := range s.all {
		if k.kind == s.kind && !there[k] {
			s.dropLocked(k)
		}
	}
	s.whole[s.kind] = true
	s.a.wake()
	return nil
}

func (s *childStore) Resync() error { return nil }

func (c *children) putLocked(k key, m *metav1.PartialObjectMetadata) {
	one := &child{uid: m.UID, meta: m}
	for _, o := range m.OwnerReferences {
		if o.Kind == "Gateway" {
			one.owner, one.gateway = o.UID, types.NamespacedName{Namespace: m.Namespace, Name: o.Name}
		}
	}
	before := c.all[k]
	c.all[k] = one
	if c.versions[k] == m.ResourceVersion || before != nil && unchanged(before.meta, m) {
		return
	}
	c.driftLocked(one)
	if before != nil && before.gateway != one.gateway {
		c.driftLocked(before)
	}
}

// unchanged tells whether only the status of an object can have changed.
func unchanged(a, b *metav1.PartialObjectMetadata) bool {
	return a.UID == b.UID && a.Generation == b.Generation && a.Generation != 0 && (a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) && reflect.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}

func (c *children) dropLocked(k key) {
	if one := c.all[k]; one != nil {
		delete(c.all, k)
		delete(c.versions, k)
		c.driftLocked(one)
	}
}

func (c *children) driftLocked(one *child) {
	c.drifted[one.gateway] = true
	c.a.wake()
}

func (c *children) synced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.whole) == len(kinds)
}

func (c *children) has(k key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[k] != nil
}

// of are the children of a Gateway.
func (c *children) of(owner types.UID) map[key]*child {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[key]*child{}
	for k, one := range c.all {
		if one.owner == owner && owner != "" {
			out[k] = one
		}
	}
	return out
}

// wrote notes the version that came of an apply.
func (c *children) wrote(k key, m *metav1.PartialObjectMetadata) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.versions[k] = m.ResourceVersion
}

// takeDrifted are the Gateways to be applied again.
func (c *children) takeDrifted() map[types.NamespacedName]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.drifted
	c.drifted = map[types.NamespacedName]bool{}
	return out
}
