package rootcert

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// follow keeps what is known of the ConfigMaps of that name as the API server has them.
func (t *term) follow(ctx context.Context) {
	configMaps := t.o.Client.CoreV1().ConfigMaps(metav1.NamespaceAll)
	only := fields.OneTermEqualSelector(metav1.ObjectNameField, Name).String()
	log := logr.FromSlogHandler(t.o.Logger.Handler())
	from := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = only
			return configMaps.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = only
			return configMaps.Watch(ctx, o)
		},
	}
	cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(from, t.o.Client), &corev1.ConfigMap{}, followed{t}, cache.ReflectorOptions{
		Name: "root ConfigMaps", Logger: &log, Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 8, Cap: 15 * time.Second},
	}).RunWithContext(ctx)
}

// followed takes the ConfigMaps from the reflector.
type followed struct{ *term }

var _ cache.ReflectorStore = followed{}

func (f followed) Add(o any) error { return f.Update(o) }

func (f followed) Update(o any) error {
	c, err := configMap(o)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.there[c.Namespace] = c.Data[Key]
	f.seenLocked(c.Namespace)
	return nil
}

func (f followed) Delete(o any) error {
	c, err := configMap(o)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.there, c.Namespace)
	f.seenLocked(c.Namespace)
	return nil
}

func (f followed) Replace(all []any, _ string) error {
	there := make(map[string]string, len(all))
	for _, o := range all {
		c, err := configMap(o)
		if err != nil {
			return err
		}
		there[c.Namespace] = c.Data[Key]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.there, f.listed = there, true
	for name := range f.wanted {
		f.lookLocked(name)
	}
	return nil
}

func (f followed) Resync() error { return nil }

// seenLocked has a namespace looked at again.
func (f followed) seenLocked(namespace string) {
	if f.wanted[namespace] {
		f.lookLocked(namespace)
	}
}

func configMap(o any) (*corev1.ConfigMap, error) {
	c, ok := o.(*corev1.ConfigMap)
	if !ok {
		return nil, fmt.Errorf("a %T is no ConfigMap", o)
	}
	return c, nil
}
