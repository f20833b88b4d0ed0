package rootcert

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

// world is what the publisher is told, and where it writes.
type world struct {
	*fake.Clientset

	mu         sync.Mutex
	namespaces []*corev1.Namespace
	roots      string
	changed    chan struct{}
}

func (w *world) set(roots string, namespaces ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.roots, w.namespaces = roots, nil
	for _, n := range namespaces {
		w.namespaces = append(w.namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n}})
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) wait() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func newWorld(objects ...runtime.Object) *world {
	return &world{Clientset: fake.NewClientset(objects...), changed: make(chan struct{})}
}

// start runs a publisher in the world.
func (w *world) start(t *testing.T) *Publisher {
	t.Helper()
	p, err := New(Options{
		Client: w, Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler), Namespaced: w.wait, Replaced: w.wait,
		Namespaces: func() []*corev1.Namespace { w.mu.Lock(); defer w.mu.Unlock(); return w.namespaces },
		Roots:      func() []byte { w.mu.Lock(); defer w.mu.Unlock(); return []byte(w.roots) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return p
}

// until waits for a namespace's ConfigMap to be as want says.
func (w *world) until(t *testing.T, namespace string, want func(*corev1.ConfigMap) bool) {
	t.Helper()
	var last *corev1.ConfigMap
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		got, err := w.CoreV1().ConfigMaps(namespace).Get(t.Context(), Name, metav1.GetOptions{})
		if err != nil {
			got = nil
		}
		if last = got; want(got) {
			return
		}
	}
	t.Fatalf("namespace %s: %+v", namespace, last)
}

func holds(roots string) func(*corev1.ConfigMap) bool {
	return func(c *corev1.ConfigMap) bool { return c != nil && c.Data[Key] == roots && c.Labels[label] == "true" }
}

func TestEveryNamespaceHasTheRoots(t *testing.T) {
	old := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "old", Name: Name}, Data: map[string]string{Key: "of another mesh", "mine": "kept"}}
	w := newWorld(old)
	p := w.start(t)
	w.set("first", "old", "shop", "kube-system")
	w.until(t, "shop", holds("first"))
	w.until(t, "old", func(c *corev1.ConfigMap) bool { return holds("first")(c) && c.Data["mine"] == "kept" })
	w.set("first", "old", "shop", "kube-system", "new")
	w.until(t, "new", holds("first"))
	w.set("second", "old", "shop", "kube-system")
	for _, n := range []string{"old", "shop"} {
		w.until(t, n, holds("second"))
	}
	if _, err := w.CoreV1().ConfigMaps("kube-system").Get(t.Context(), Name, metav1.GetOptions{}); err == nil {
		t.Error("Kubernetes' own namespace has one")
	}
	// It left the mesh, and keeps what it had, or had got by then.
	w.until(t, "new", func(c *corev1.ConfigMap) bool { return holds("first")(c) || holds("second")(c) })
	for testutil.ToFloat64(p.missing) != 0 {
		<-time.After(time.Millisecond)
	}
}

func TestWhatSomebodyEditsOrDeletesIsPutRight(t *testing.T) {
	w := newWorld()
	w.start(t)
	w.set("roots", "shop")
	w.until(t, "shop", holds("roots"))
	shop := w.CoreV1().ConfigMaps("shop")
	for range 3 {
		if err := shop.Delete(t.Context(), Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.until(t, "shop", holds("roots"))
		if _, err := shop.Update(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: Name}, Data: map[string]string{Key: "evil"}}, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.until(t, "shop", holds("roots"))
	}
}

// A namespace that cannot be written to does not keep the others from their roots, and
// is tried again.
func TestFailuresAreTriedAgain(t *testing.T) {
	w := newWorld()
	var fail atomic.Bool
	fail.Store(true)
	w.PrependReactor("create", "configmaps", func(a ktesting.Action) (bool, runtime.Object, error) {
		if fail.Load() && a.GetNamespace() == "closed" {
			return true, nil, errors.New("a quota forbids it")
		}
		return false, nil, nil
	})
	p := w.start(t)
	w.set("roots", "closed", "open")
	w.until(t, "open", holds("roots"))
	for testutil.ToFloat64(p.written.WithLabelValues("failed")) < 3 {
		<-time.After(time.Millisecond)
	}
	if got := testutil.ToFloat64(p.missing); got != 1 {
		t.Errorf("%v namespaces are said to be without roots", got)
	}
	fail.Store(false)
	w.until(t, "closed", holds("roots"))
}

func TestManyNamespaces(t *testing.T) {
	w := newWorld()
	w.start(t)
	var names []string
	for i := range atOnce {
		names = append(names, fmt.Sprint("n", i))
	}
	w.set("roots", names...)
	for _, n := range names {
		w.until(t, n, holds("roots"))
	}
}
