package report

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/workqueue"

	"github.com/fairlead-mesh/fairlead/pkg/control/deploy"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// FieldManager owns what is written of statuses.
const FieldManager = "fairlead-status"

const (
	// workers write at once; how fast is the client's rate limit.
	workers = 8
	// firstRetry and lastRetry bound the time between two tries of a write that failed.
	firstRetry, lastRetry = 200 * time.Millisecond, 2 * time.Minute
	// maxWrite bounds one write.
	maxWrite = 30 * time.Second
)

// Options of a Writer. All are needed.
type Options struct {
	// Client reads and writes; its rate limit is that of the writes.
	Client   dynamic.Interface
	Registry prometheus.Registerer
	Logger   *slog.Logger
}

// Writer keeps the statuses of objects in the API equal to those that are wanted, while
// it runs.
type Writer struct {
	client dynamic.Interface
	logger *slog.Logger
	writes *prometheus.CounterVec
	now    func() time.Time

	// mu guards below.
	mu     sync.Mutex
	want   map[status.Object]*wanted // nil before the first Set
	tables map[schema.GroupKind]*table
	run    *running // or nil: it does not run
	failed map[status.Object]bool
}

// wanted is one object's status, and the generation that it was made from, or 0.
type wanted struct {
	status     status.Status
	generation int64
}

// running is what lives as long as a Run.
type running struct {
	ctx            context.Context
	group          sync.WaitGroup
	urgent, normal workqueue.TypedRateLimitingInterface[status.Object]
}

// New makes a Writer that writes nothing yet.
func New(o Options) (*Writer, error) {
	if o.Client == nil || o.Registry == nil || o.Logger == nil {
		return nil, errors.New("statuses: a writer needs a client, a registry and a logger")
	}
	w := &Writer{
		client: o.Client, logger: o.Logger, now: time.Now, tables: map[schema.GroupKind]*table{}, failed: map[status.Object]bool{},
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fairlead_status_writes_total", Help: "Statuses written to the Kubernetes API, by kind and result: ok, conflict or error.",
		}, []string{"kind", "result"}),
	}
	for _, k := range kinds {
		w.tables[k.groupKind()] = &table{w: w, kind: k}
	}
	return w, o.Registry.Register(w.writes)
}

// Set makes all what the API is to say, and takes back what was said of other objects.
// generation is that of the object which a status was made from, or 0 where it is not
// known. It does not wait for writes.
func (w *Writer) Set(all []status.Status, generation func(status.Object) int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := w.want == nil
	want := make(map[status.Object]*wanted, len(all))
	for _, s := range all {
		t := w.tables[groupKindOf(s.Object)]
		if t == nil {
			continue // it cannot hold one
		}
		key := t.objectOf(name{s.Object.Namespace, s.Object.Name})
		next := &wanted{s, generation(s.Object)}
		if before := w.want[key]; before != nil && before.generation == next.generation && before.status.Equal(s) {
			want[key] = before
			continue
		}
		want[key] = next
		w.startLocked(t)
		w.enqueueLocked(t.kind, key)
	}
	before := w.want
	w.want = want
	for key := range before {
		if want[key] == nil {
			w.enqueueLocked(w.tables[groupKindOf(key)].kind, key)
		}
	}
	if !first {
		return
	}
	for _, t := range w.tables { // what an earlier process said, and what holds no longer
		for n := range t.records {
			w.enqueueLocked(t.kind, t.objectOf(n))
		}
	}
}

// Run writes until ctx ends. It may be run again, by one caller at a time.
func (w *Writer) Run(ctx context.Context) error {
	limiter := func() workqueue.TypedRateLimiter[status.Object] {
		return workqueue.NewTypedItemExponentialFailureRateLimiter[status.Object](firstRetry, lastRetry)
	}
	r := &running{
		ctx: ctx, urgent: workqueue.NewTypedRateLimitingQueue(limiter()), normal: workqueue.NewTypedRateLimitingQueue(limiter()),
	}
	w.mu.Lock()
	if w.run != nil {
		w.mu.Unlock()
		return errors.New("statuses: the writer runs already")
	}
	w.run = r
	for _, t := range w.tables {
		t.started, t.synced, t.records = false, false, map[name]*record{}
		if !t.kind.lazy {
			w.startLocked(t)
		}
	}
	for key := range w.want { // of lazy kinds too
		w.startLocked(w.tables[groupKindOf(key)])
	}
	w.mu.Unlock()

	for range workers {
		r.group.Go(func() { w.work(r.normal) })
	}
	r.group.Go(func() { w.work(r.urgent) })
	<-ctx.Done()
	r.urgent.ShutDown()
	r.normal.ShutDown()
	w.mu.Lock()
	w.run = nil // no more tables start
	w.mu.Unlock()
	r.group.Wait()
	return nil
}

func (w *Writer) startLocked(t *table) {
	r := w.run
	if r == nil || t.started {
		return
	}
	t.started = true
	r.group.Go(func() { t.run(r.ctx) })
}

func (w *Writer) enqueueLocked(k *kind, o status.Object) {
	switch {
	case w.run == nil:
	case k.urgent:
		w.run.urgent.Add(o)
	default:
		w.run.normal.Add(o)
	}
}

func (w *Writer) work(queue workqueue.TypedRateLimitingInterface[status.Object]) {
	for {
		key, end := queue.Get()
		if end {
			return
		}
		if err := w.write(key); err != nil {
			queue.AddRateLimited(key)
		} else {
			queue.Forget(key)
		}
		queue.Done(key)
	}
}

// wantedLocked is what an object is to say; nil where what it says is not ours.
func (w *Writer) wantedLocked(t *table, key status.Object, r *record) *wanted {
	gateway := t.kind.group == groupGateway && t.kind.name == "Gateway"
	switch {
	case t.kind.name == "GatewayClass":
		if r.controller != ClassController {
			return nil
		}
		s := status.Status{Object: key}
		s.Set(status.Condition{Type: status.RouteAccepted, Status: "True", Reason: "Accepted", Message: "Handled by Fairlead's control plane"})
		return &wanted{status: s}
	case gateway && !w.servesLocked(r.class):
		return nil
	case w.want[key] != nil:
		return w.want[key]
	case r.claimed && !gateway:
		return &wanted{status: status.Status{Object: key}}
	}
	return nil
}

// enqueueGatewaysLocked looks again at the Gateways of a class.
func (w *Writer) enqueueGatewaysLocked(class string) {
	t := w.tables[schema.GroupKind{Group: groupGateway, Kind: "Gateway"}]
	for n, r := range t.records {
		if r.class == class {
			w.enqueueLocked(t.kind, t.objectOf(n))
		}
	}
}

// servesLocked tells whether Gateways of a class are ours: its GatewayClass names our
// controller, or there is none and the class has the name of waypoints'.
func (w *Writer) servesLocked(class string) bool {
	classes := w.tables[schema.GroupKind{Group: groupGateway, Kind: "GatewayClass"}]
	r := classes.records[name{"", class}]
	if r == nil {
		return classes.synced && class == deploy.Class
	}
	return r.controller == ClassController
}

// write makes one object's status what is wanted.
func (w *Writer) write(key status.Object) error {
	w.mu.Lock()
	t := w.tables[groupKindOf(key)]
	n := name{key.Namespace, key.Name}
	r := t.records[n]
	if w.run == nil || w.want == nil || !t.synced || r == nil {
		w.mu.Unlock()
		return nil
	}
	want := w.wantedLocked(t, key, r)
	if want == nil || r.tried != nil && r.tried.generation == want.generation && r.tried.status.Equal(want.status) && r.triedVersion == r.version {
		w.mu.Unlock()
		return nil
	}
	before, resource, ctx := *r, t.resource, w.run.ctx
	w.mu.Unlock()

	patch, err := t.kind.patch(&before, n, want, w.now())
	if err != nil || patch == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, maxWrite)
	defer cancel()
	after, err := w.client.Resource(resource).Namespace(key.Namespace).Patch(ctx, key.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldManager}, "status")
	switch {
	case apierrors.IsNotFound(err):
		return nil // it was deleted meanwhile
	case apierrors.IsConflict(err):
		w.writes.WithLabelValues(key.Kind, "conflict").Inc()
		return err // what changed it is on its way to us
	case err != nil:
		w.writes.WithLabelValues(key.Kind, "error").Inc()
		w.complain(ctx, key, err)
		return err
	}
	w.writes.WithLabelValues(key.Kind, "ok").Inc()
	w.logger.Debug("status written", "kind", key.Kind, "namespace", key.Namespace, "name", key.Name, "patch", string(patch))
	w.wrote(t, n, r, want, after)
	return nil
}

// patch is the JSON that makes a record say what is wanted, or nil where it does.
func (k *kind) patch(r *record, n name, want *wanted, now time.Time) ([]byte, error) {
	have := map[string]any{}
	if len(r.status) > 0 {
		if err := kjson.Unmarshal(r.status, &have); err != nil {
			return nil, fmt.Errorf("status of %s %s/%s: %w", k.name, n.namespace, n.name, err)
		}
	}
	generation := want.generation
	if generation == 0 {
		generation = r.generation
	}
	said := k.refused(want.status, r)
	next := k.next(have, n.namespace, &said, generation, now)
	if next == nil {
		return nil, nil
	}
	return kjson.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": r.version}, "status": next})
}

// wrote keeps what came of a write, unless something newer came meanwhile.
func (w *Writer) wrote(t *table, n name, before *record, want *wanted, after *unstructured.Unstructured) {
	_, r, err := t.record(after)
	if err != nil {
		return // the watch brings it
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.failed, t.objectOf(n))
	r.tried, r.triedVersion = want, r.version
	now := t.records[n]
	switch {
	case now == before:
		t.records[n] = r
	case now != nil:
		now.tried, now.triedVersion = r.tried, r.triedVersion
	}
}

// complain says once per object that it cannot be written.
func (w *Writer) complain(ctx context.Context, key status.Object, err error) {
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	again := w.failed[key]
	w.failed[key] = true
	w.mu.Unlock()
	if !again {
		w.logger.Warn("status not written; it is tried again", "kind", key.Kind, "namespace", key.Namespace, "name", key.Name, "err", err)
	}
}
