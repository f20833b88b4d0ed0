package rootcert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
)

const (
	// Name is the ConfigMap's.
	Name = "istio-ca-root-cert"
	// Key is that of the roots in it.
	Key = "root-cert.pem"
	// label marks it as configuration of the mesh, as istiod does.
	label = "istio.io/config"

	// workers write at a time; perSecond and atOnce bound the writes, also where
	// somebody else writes the same ConfigMaps over and over.
	workers           = 8
	perSecond, atOnce = 100, 200
	// A write that failed is tried again after soon, then later and later, up to late.
	soon, late = 50 * time.Millisecond, time.Minute
	// longestWrite bounds one write.
	longestWrite = 10 * time.Second
)

// ignored are Kubernetes' own namespaces, which have no pods of a mesh; istiod leaves
// them out, too.
var ignored = []string{"kube-system", "kube-public", "kube-node-lease"}

// Options of a [Publisher]. All must be set.
type Options struct {
	Client kubernetes.Interface
	// Namespaces are the mesh's now, and Namespaced closes when they may be others. It
	// is taken first.
	Namespaces func() []*corev1.Namespace
	Namespaced func() <-chan struct{}
	// Roots are what is to be trusted now, in PEM, or empty: not known yet. Replaced closes when they may be
	// others. It is taken first.
	Roots    func() []byte
	Replaced func() <-chan struct{}
	Registry prometheus.Registerer
	Logger   *slog.Logger
}

// Publisher keeps the ConfigMaps.
type Publisher struct {
	o       Options
	pace    *rate.Limiter
	written *prometheus.CounterVec
	missing prometheus.Gauge
}

// New registers its metrics.
func New(o Options) (*Publisher, error) {
	if o.Client == nil || o.Namespaces == nil || o.Namespaced == nil || o.Roots == nil || o.Replaced == nil || o.Registry == nil || o.Logger == nil {
		return nil, errors.New("rootcert: all options must be set")
	}
	p := &Publisher{
		o: o, pace: rate.NewLimiter(perSecond, atOnce),
		written: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_root_configmaps_written_total", Help: "Writes of ConfigMaps istio-ca-root-cert, by result."}, []string{"result"}),
		missing: prometheus.NewGauge(prometheus.GaugeOpts{Name: "fairlead_root_configmaps_pending", Help: "Namespaces whose istio-ca-root-cert is not known to be right, while this replica is the leader."}),
	}
	for _, c := range []prometheus.Collector{p.written, p.missing} {
		if err := o.Registry.Register(c); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// term is one run of the publisher.
type term struct {
	*Publisher
	queue workqueue.TypedRateLimitingInterface[string] // of namespaces

	// mu guards below.
	mu     sync.Mutex
	wanted map[string]bool
	there  map[string]string // the roots in the ConfigMap, by namespace
	listed bool
	right  map[string]bool // namespaces looked at and found right
}

// Run publishes until ctx ends.
func (p *Publisher) Run(ctx context.Context) error {
	t := &term{
		Publisher: p, wanted: map[string]bool{}, there: map[string]string{}, right: map[string]bool{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](soon, late)),
	}
	var all sync.WaitGroup
	defer all.Wait()
	defer t.queue.ShutDown()
	all.Go(func() { t.follow(ctx) })
	for range workers {
		all.Go(func() { t.work(ctx) })
	}
	var roots []byte
	for {
		namespaced, replaced := p.o.Namespaced(), p.o.Replaced()
		t.want(p.o.Namespaces())
		if now := p.o.Roots(); !bytes.Equal(now, roots) {
			roots = now
			t.all()
		}
		select {
		case <-ctx.Done():
			p.missing.Set(0)
			return nil
		case <-namespaced:
		case <-replaced:
		}
	}
}

// want looks at the namespaces that are new.
func (t *term) want(namespaces []*corev1.Namespace) {
	wanted := make(map[string]bool, len(namespaces))
	for _, n := range namespaces {
		if n.DeletionTimestamp == nil && !slices.Contains(ignored, n.Name) {
			wanted[n.Name] = true
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range wanted {
		if !t.wanted[name] {
			t.lookLocked(name)
		}
	}
	t.wanted = wanted
	for name := range t.right {
		if !wanted[name] {
			delete(t.right, name)
		}
	}
	t.countLocked()
}

// all looks at every namespace again.
func (t *term) all() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range t.wanted {
		t.lookLocked(name)
	}
}

func (t *term) lookLocked(namespace string) {
	delete(t.right, namespace)
	t.queue.Add(namespace)
	t.countLocked()
}

func (t *term) countLocked() { t.missing.Set(float64(len(t.wanted) - len(t.right))) }

func (t *term) work(ctx context.Context) {
	for {
		namespace, shutdown := t.queue.Get()
		if shutdown {
			return
		}
		err := t.put(ctx, namespace)
		t.queue.Done(namespace)
		if err == nil || ctx.Err() != nil {
			t.queue.Forget(namespace)
			continue
		}
		t.o.Logger.Warn("the mesh's roots are not published; trying again", "namespace", namespace, "failures", t.queue.NumRequeues(namespace)+1, "err", err)
		t.queue.AddRateLimited(namespace)
	}
}

// put makes the ConfigMap of a namespace right.
func (t *term) put(ctx context.Context, namespace string) error {
	roots := string(t.o.Roots())
	t.mu.Lock()
	listed, wanted := t.listed, t.wanted[namespace]
	there, found := t.there[namespace]
	t.mu.Unlock()
	if !listed || !wanted || roots == "" {
		return nil // when they are there, all are looked at
	}
	if !found || there != roots {
		if err := t.pace.Wait(ctx); err != nil {
			return err
		}
		if err := t.write(ctx, namespace, roots, found); err != nil {
			t.written.WithLabelValues("failed").Inc()
			return err
		}
		t.written.WithLabelValues("written").Inc()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wanted[namespace] {
		t.right[namespace] = true
		t.countLocked()
	}
	return nil
}

func (t *term) write(ctx context.Context, namespace, roots string, found bool) error {
	ctx, cancel := context.WithTimeout(ctx, longestWrite)
	defer cancel()
	configMaps := t.o.Client.CoreV1().ConfigMaps(namespace)
	if !found {
		_, err := configMaps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: Name, Labels: map[string]string{label: "true"}}, Data: map[string]string{Key: roots},
		}, metav1.CreateOptions{})
		switch {
		case err == nil:
			t.note(namespace, roots)
			t.o.Logger.Debug("the mesh's roots are published", "namespace", namespace)
			return nil
		case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), apierrors.IsNotFound(err):
			return nil // the namespace goes
		case !apierrors.IsAlreadyExists(err):
			return fmt.Errorf("create ConfigMap %s/%s: %w", namespace, Name, err)
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]string{label: "true"}}, "data": map[string]string{Key: roots}})
	if err != nil {
		return err
	}
	_, err = configMaps.Patch(ctx, Name, types.MergePatchType, patch, metav1.PatchOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("ConfigMap %s/%s went while it was written", namespace, Name)
	case err != nil:
		return fmt.Errorf("patch ConfigMap %s/%s: %w", namespace, Name, err)
	}
	t.note(namespace, roots)
	t.o.Logger.Info("the roots in a ConfigMap were others: replaced", "configmap", namespace+"/"+Name)
	return nil
}

// note takes what was written for what is there, until the watch says so.
func (t *term) note(namespace, roots string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.there[namespace] = roots
}
