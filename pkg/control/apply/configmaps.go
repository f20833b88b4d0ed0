package apply

import (
	"context"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/deploy"
)

var configMapResource = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// configMaps follows the ConfigMap of the class and those that Gateways name, each by a
// watch of its own: a cluster's other ConfigMaps are many, and none of our business.
type configMaps struct {
	a     *Applier
	ctx   context.Context
	group *sync.WaitGroup
	all   *mapStore // those of the class

	// mu guards below.
	mu    sync.Mutex
	named map[types.NamespacedName]*followed
}

// followed is a ConfigMap that some Gateway names.
type followed struct {
	*mapStore
	stop context.CancelFunc
}

// mapStore takes ConfigMaps from a reflector.
type mapStore struct {
	a *Applier

	// mu guards below.
	mu    sync.Mutex
	maps  map[types.NamespacedName]*configMap
	whole bool
}

type configMap struct {
	created metav1.Time
	data    map[string]string
}

func newConfigMaps(ctx context.Context, a *Applier, group *sync.WaitGroup) *configMaps {
	return &configMaps{a: a, ctx: ctx, group: group, all: &mapStore{a: a}, named: map[types.NamespacedName]*followed{}}
}

func (c *configMaps) start() {
	c.watch(c.ctx, c.all, c.a.options.SystemNamespace, func(o *metav1.ListOptions) { o.LabelSelector = deploy.ClassDefaults + "=" + deploy.Class })
}

func (c *configMaps) watch(ctx context.Context, to *mapStore, namespace string, choose func(*metav1.ListOptions)) {
	client := c.a.options.Dynamic.Resource(configMapResource).Namespace(namespace)
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			choose(&o)
			return client.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			choose(&o)
			return client.Watch(ctx, o)
		},
	}, c.a.options.Dynamic)
	reflector := cache.NewReflectorWithOptions(lw, &unstructured.Unstructured{}, to, cache.ReflectorOptions{Name: "waypoints' parameters in " + namespace})
	c.group.Go(func() { reflector.RunWithContext(ctx) })
}

// follow follows those that the Gateways name, and no others; false: some are not known
// yet.
func (c *configMaps) follow(gateways []*gatewayv1.Gateway) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.all.known()
	wanted := map[types.NamespacedName]bool{}
	for _, g := range gateways {
		ref, err := deploy.ParametersRef(g)
		if err != nil || ref == "" || string(g.Spec.GatewayClassName) != deploy.Class {
			continue
		}
		n := types.NamespacedName{Namespace: g.Namespace, Name: ref}
		wanted[n] = true
		f := c.named[n]
		if f == nil {
			ctx, cancel := context.WithCancel(c.ctx)
			f = &followed{&mapStore{a: c.a}, cancel}
			c.named[n] = f
			c.watch(ctx, f.mapStore, n.Namespace, func(o *metav1.ListOptions) { o.FieldSelector = "metadata.name=" + n.Name })
		}
		known = f.known() && known
	}
	for n, f := range c.named {
		if !wanted[n] {
			f.stop()
			delete(c.named, n)
		}
	}
	return known
}

// class is the oldest of those for the class; nil: there is none.
func (c *configMaps) class() map[string]string {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	var oldest types.NamespacedName
	var found *configMap
	for n, m := range c.all.maps {
		if found == nil || m.created.Before(&found.created) || m.created.Equal(&found.created) && n.Name < oldest.Name {
			oldest, found = n, m
		}
	}
	if found == nil {
		return nil
	}
	return found.data
}

// get is the data of one that a Gateway names.
func (c *configMaps) get(namespace, name string) (map[string]string, bool) {
	n := types.NamespacedName{Namespace: namespace, Name: name}
	c.mu.Lock()
	f := c.named[n]
	c.mu.Unlock()
	if f == nil {
		return nil, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.maps[n]
	if m == nil {
		return nil, false
	}
	return m.data, true
}

func (s *mapStore) known() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.whole
}

func (s *mapStore) read(o any) (types.NamespacedName, *configMap, error) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return types.NamespacedName{}, nil, fmt.Errorf("waypoints' parameters: an object of type %T", o)
	}
	data, _, err := unstructured.NestedStringMap(u.Object, "data")
	if err != nil {
		return types.NamespacedName{}, nil, fmt.Errorf("waypoints' parameters: ConfigMap %s/%s: %w", u.GetNamespace(), u.GetName(), err)
	}
	if data == nil {
		data = map[string]string{}
	}
	return types.NamespacedName{Namespace: u.GetNamespace(), Name: u.GetName()}, &configMap{u.GetCreationTimestamp(), data}, nil
}

func (s *mapStore) Add(o any) error { return s.Update(o) }

func (s *mapStore) Update(o any) error {
	n, m, err := s.read(o)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maps[n] = m
	s.a.wake()
	return nil
}

func (s *mapStore) Delete(o any) error {
	n, _, err := s.read(o)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.maps, n)
	s.a.wake()
	return nil
}

func (s *mapStore) Replace(all []any, _ string) error {
	maps := map[types.NamespacedName]*configMap{}
	for _, o := range all {
		n, m, err := s.read(o)
		if err != nil {
			return err
		}
		maps[n] = m
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maps, s.whole = maps, true
	s.a.wake()
	return nil
}

func (s *mapStore) Resync() error { return nil }
