package informer

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

const (
	// perSecond is how often states are published while changes do not cease, and
	// atOnce how many may follow each other without a wait.
	perSecond, atOnce = 20, 4
	// patience is how long lists may take before that is said.
	patience = 10 * time.Second
)

// Options configure an Informer. All must be set.
type Options struct {
	// Kubernetes lists the core kinds; it should ask for protobuf.
	Kubernetes kubernetes.Interface
	// Metadata lists what is read of nodes and definitions.
	Metadata metadata.Interface
	// Dynamic lists the kinds that have definitions.
	Dynamic dynamic.Interface
	Logger  *slog.Logger
}

// Informer follows an API server and publishes a state per change, as
// [source.Directory] does. Its states are those of one moment per kind: the API server
// promises no more.
type Informer struct {
	opts Options
	// Constant after New.
	resources  []resource
	extensions map[string]*extension // by definition
	kinds      []kind                // but those three
	namespaces *kindOf[*corev1.Namespace]
	services   *kindOf[*corev1.Service]
	slices     *kindOf[*discoveryv1.EndpointSlice]
	stores     []*store
	mesh       *store
	dirty      chan struct{} // has room for one

	// mu guards below, and what the stores and kinds hold.
	mu sync.Mutex
	// defined: the definitions have been listed.
	defined bool
	// aside: what is said beside objects may have changed.
	aside   bool
	scope   scope
	current *source.Objects // or nil: no state is whole yet
	changed chan struct{}
}

// New returns an informer that has not begun.
func New(o Options) (*Informer, error) {
	if o.Kubernetes == nil || o.Metadata == nil || o.Dynamic == nil || o.Logger == nil {
		return nil, errors.New("informer: Kubernetes, Metadata, Dynamic and Logger must be set")
	}
	i := &Informer{opts: o, extensions: map[string]*extension{}, dirty: make(chan struct{}, 1), changed: make(chan struct{}), scope: scope{all: true}, aside: true}
	i.addCore()
	i.addExtensions()
	return i, nil
}

func (i *Informer) newStore(name string, k kind, read func(metav1.Object) *item) *store {
	s := &store{informer: i, name: name, kind: k, read: read, wrong: map[key]source.Reading{}, sums: map[key][32]byte{}}
	i.stores = append(i.stores, s)
	return s
}

// Objects is the latest state, or nil: not everything has been listed yet.
func (i *Informer) Objects() *source.Objects {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.current
}

// Changed is closed when a newer state than Objects was published. Take it before
// Objects, so that no change is missed.
func (i *Informer) Changed() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.changed
}

// Run follows the API server until ctx ends. Call it once.
func (i *Informer) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	for _, r := range i.resources {
		group.Go(func() { i.reflector(r.name, r.from, r.expected, r.store).RunWithContext(ctx) })
	}
	all := i.opts.Metadata.Resource(definitions)
	group.Go(func() {
		i.reflector(definitions.Resource, listWatch(i.opts.Metadata, all.List, all.Watch), &metav1.PartialObjectMetadata{}, definitionStore{i}).RunWithContext(ctx)
	})
	for _, e := range i.extensions {
		group.Go(func() { i.runExtension(ctx, e) })
	}
	return i.publishAll(ctx)
}

// reflector keeps a store as the API server has it.
func (i *Informer) reflector(name string, from cache.ListerWatcher, expected runtime.Object, to cache.ReflectorStore) *cache.Reflector {
	log := logr.FromSlogHandler(i.opts.Logger.Handler())
	return cache.NewReflectorWithOptions(from, expected, to, cache.ReflectorOptions{
		Name: name, TypeDescription: name, Logger: &log,
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 8, Cap: 15 * time.Second},
	})
}

// change does something to what the stores hold, which tells whether a new state
// follows.
func (i *Informer) change(how func() bool) {
	i.mu.Lock()
	changed := how()
	i.mu.Unlock()
	if !changed {
		return
	}
	select {
	case i.dirty <- struct{}{}:
	default: // it is
	}
}

// publishAll publishes a state whenever something has changed: a lone change at once.
func (i *Informer) publishAll(ctx context.Context) error {
	began, pace := time.Now(), rate.NewLimiter(perSecond, atOnce)
	late := time.NewTicker(patience)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-late.C:
			if missing := i.missing(); len(missing) > 0 {
				i.opts.Logger.Warn("objects are still being listed; nothing is served before", "resources", strings.Join(missing, ", "))
			} else {
				late.Stop()
			}
			continue
		case <-i.dirty:
		}
		if len(i.missing()) > 0 {
			continue
		}
		if i.Objects() == nil {
			i.opts.Logger.Info("all objects are listed", "took", time.Since(began).Round(time.Millisecond))
		}
		if err := pace.Wait(ctx); err != nil {
			return nil // ctx ended
		}
		i.publish()
	}
}

// missing are the resources that have not been listed yet.
func (i *Informer) missing() (names []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.current != nil {
		return nil // what comes later is added to what is there
	}
	if !i.defined {
		names = append(names, definitions.Resource)
	}
	for _, r := range i.resources {
		if !r.whole {
			names = append(names, r.name)
		}
	}
	for _, e := range i.extensions {
		if e.installed && !e.store.whole {
			names = append(names, e.definition())
		}
	}
	slices.Sort(names)
	return names
}

// publish makes a state of what the stores hold.
func (i *Informer) publish() {
	i.mu.Lock()
	next, before := &source.Objects{Mesh: source.DefaultMesh(), Settings: source.DefaultSettings()}, []source.Problem(nil)
	if i.current != nil {
		*next = *i.current
		before = next.Problems
	}
	aside := i.aside
	if aside {
		i.meshLocked(next)
	}
	scope, err := newScope(next.Mesh, i.namespaces.rows.latest())
	again := !scope.equal(i.scope)
	i.scope = scope
	namespacesChanged, servicesChanged := i.namespaces.settle(next, scope, again), i.services.settle(next, scope, again)
	changed := i.slices.settle(next, scope, again || servicesChanged) || namespacesChanged || servicesChanged || aside || again
	for _, k := range i.kinds {
		changed = k.settle(next, scope, again) || changed
	}
	if aside || again {
		i.asideLocked(next, err)
	}
	i.aside = false
	if !changed && i.current != nil { // of what is not shown
		i.mu.Unlock()
		return
	}
	next.Generation++
	i.current = next
	close(i.changed)
	i.changed = make(chan struct{})
	i.mu.Unlock()
	source.Report(i.opts.Logger, before, next.Problems)
}

// meshLocked fills in the mesh's configuration.
func (i *Informer) meshLocked(o *source.Objects) {
	r := i.mesh.wrong[key{source.RootNamespace, meshConfigMap}]
	switch {
	case r.Mesh == nil:
		o.Mesh, o.Settings = source.DefaultMesh(), source.DefaultSettings()
	case r.Mesh != o.Mesh:
		o.Mesh, o.Settings = r.Mesh, r.Settings
	}
}

// asideLocked fills in what is wrong with the objects in scope, and with the scope.
func (i *Informer) asideLocked(o *source.Objects, scopeError error) {
	o.Problems, o.Refused = nil, nil
	for _, s := range i.stores {
		for k, r := range s.wrong {
			if s != i.mesh && k.namespace != "" && !i.scope.has(k.namespace) {
				continue
			}
			o.Problems = append(o.Problems, r.Problems...)
			if r.Refused != nil {
				o.Refused = append(o.Refused, *r.Refused)
			}
		}
	}
	if scopeError != nil {
		o.Problems = append(o.Problems, source.Problem{
			Severity: source.Error, Ref: source.Ref{Kind: "ConfigMap", Namespace: source.RootNamespace, Name: meshConfigMap},
			Field: "data[mesh].discoverySelectors", Message: scopeError.Error() + "; until it is mended, all namespaces are discovered",
		})
	}
	source.SortAside(o)
}
