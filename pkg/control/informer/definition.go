package informer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// definitions is the resource whose objects say which kinds are installed.
var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// definitionStore takes the names of the definitions from a reflector.
type definitionStore struct{ informer *Informer }

func (d definitionStore) Add(o any) error { return d.Update(o) }

func (d definitionStore) Update(o any) error {
	m, err := nameOf(o)
	if err == nil {
		d.informer.installed(m, true)
	}
	return err
}

func (d definitionStore) Delete(o any) error {
	m, err := nameOf(o)
	if err == nil {
		d.informer.installed(m, false)
	}
	return err
}

func (d definitionStore) Replace(all []any, _ string) error {
	there := map[string]bool{}
	for _, o := range all {
		name, err := nameOf(o)
		if err != nil {
			return err
		}
		there[name] = true
	}
	for name := range d.informer.extensions {
		d.informer.installed(name, there[name])
	}
	d.informer.change(func() bool {
		first := !d.informer.defined
		d.informer.defined = true
		return first
	})
	return nil
}

func (d definitionStore) Resync() error { return nil }

func nameOf(o any) (string, error) {
	m, ok := o.(metav1.Object)
	if !ok {
		return "", fmt.Errorf("%s: a %T is no object", definitions.Resource, o)
	}
	return m.GetName(), nil
}

// installed notes whether a definition is there, and has its kind looked at again.
func (i *Informer) installed(name string, there bool) {
	e := i.extensions[name]
	if e == nil {
		return
	}
	i.change(func() bool {
		changed := e.installed != there
		e.installed = there
		return changed
	})
	select {
	case e.changed <- struct{}{}:
	default: // it will be
	}
}

// version is which of a kind's versions the API server serves and we can read; "": none
// yet.
func (i *Informer) version(ctx context.Context, e *extension) (string, error) {
	type answer struct {
		version string
		err     error
	}
	answered := make(chan answer, 1)
	go func() { // ends with the client's time limit at the latest: it takes no context
		v, err := i.askVersion(e)
		answered <- answer{v, err}
	}()
	select {
	case a := <-answered:
		return a.version, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (i *Informer) askVersion(e *extension) (string, error) {
	var failures []error
	for _, v := range source.Versions(e.group, e.kind) {
		list, err := i.opts.Kubernetes.Discovery().ServerResourcesForGroupVersion(e.group + "/" + v)
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			failures = append(failures, err)
			continue
		}
		if slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == e.resource }) {
			return v, nil
		}
	}
	return "", errors.Join(failures...)
}

const (
	// soon is how long an API server is given to serve a kind whose definition it has,
	// before it is asked again; often doubles it up to late.
	soon, late = 100 * time.Millisecond, 10 * time.Second
)

// runExtension follows a kind while its definition is there.
func (i *Informer) runExtension(ctx context.Context, e *extension) {
	var following string // the version, or ""
	stop := func() {}
	defer func() { stop() }()
	again := time.NewTimer(late)
	defer again.Stop()
	again.Stop()
	wait := soon
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.changed:
			wait = soon
		case <-again.C:
			wait = min(2*wait, late)
		}
		if !i.has(e) {
			stop()
			stop, following = func() {}, ""
			e.store.clear()
			continue
		}
		v, err := i.version(ctx, e)
		if err != nil && ctx.Err() == nil {
			i.opts.Logger.Warn("versions of a kind cannot be told; asking again", "kind", e.definition(), "in", wait, "err", err)
		}
		if v == "" {
			again.Reset(wait)
			continue
		}
		if v == following {
			continue
		}
		stop()
		following, stop = v, i.followExtension(ctx, e, v)
	}
}

func (i *Informer) has(e *extension) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return e.installed
}

// followExtension follows one version of a kind; stop ends that and waits for it.
func (i *Informer) followExtension(ctx context.Context, e *extension, version string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	client := i.opts.Dynamic.Resource(schema.GroupVersionResource{Group: e.group, Version: version, Resource: e.resource})
	reflector := i.reflector(e.definition(), listWatch(i.opts.Dynamic, client.List, client.Watch), &unstructured.Unstructured{}, e.store)
	var done sync.WaitGroup
	done.Go(func() { reflector.RunWithContext(ctx) })
	return func() {
		cancel()
		done.Wait()
	}
}

var _ cache.ReflectorStore = definitionStore{}
