package main

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-mesh/fairlead/pkg/lab/objects"
)

// How soon what the API server did not take is tried again.
const minRetry, maxRetry = 100 * time.Millisecond, 5 * time.Second

// podGrace is how long a pod that ends stays on the API server at most, in seconds.
const podGrace = 600

// mirror keeps the API server's objects as the lab's are. Not safe for concurrent use.
type mirror struct {
	clients *clients
	log     *slog.Logger
	tokens  tokens
	own     directory
	derived directory

	held map[key]held
	said map[key]string // the last error of an object
}

// held is an object as the API server has it.
type held struct {
	object   *unstructured.Unstructured
	hash     uint64
	uid      string // of a pod, the lab's
	deleting bool
}

func newMirror(c config, clients *clients, log *slog.Logger) *mirror {
	return &mirror{
		clients: clients, log: log, tokens: tokens{clients, c.tokens},
		own: directory{root: c.configDir}, derived: directory{root: c.derivedDir},
		held: map[key]held{}, said: map[key]string{},
	}
}

// first takes over what an earlier mirror left, and brings all that there is.
func (m *mirror) first(ctx context.Context) error {
	if err := m.adopt(ctx); err != nil {
		return err
	}
	for range 5 {
		if m.sync(ctx) {
			return nil
		}
		select {
		case <-time.After(minRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil // what is wrong has been said, and is tried again
}

// run follows the directories until ctx ends.
func (m *mirror) run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	failed := make(chan error, 2)
	for _, dir := range []string{m.own.root, m.derived.root} {
		go func() {
			failed <- objects.Watch(ctx, dir, func([]string) {
				select {
				case changed <- struct{}{}:
				default:
				}
			})
		}()
	}
	retry, delay := time.NewTimer(maxRetry), minRetry
	for {
		select {
		case <-ctx.Done():
			return errors.Join(<-failed, <-failed)
		case err := <-failed:
			return err
		case <-changed:
			delay = minRetry
		case <-retry.C:
		}
		if m.sync(ctx) {
			retry.Reset(time.Hour)
			continue
		}
		retry.Reset(delay)
		delay = min(2*delay, maxRetry)
	}
}

// sync makes the API server hold what the lab says, and reports whether it does.
func (m *mirror) sync(ctx context.Context) bool {
	w, again, err := m.read()
	m.say(key{name: "the directories"}, err)
	done := !again
	for _, o := range w.sorted() {
		err := m.put(ctx, o)
		if m.say(keyOf(o), err); err != nil && !refused(err) {
			done = false
		}
	}
	for k, h := range m.held {
		if _, there := w[k]; there {
			continue
		}
		err := m.clients.remove(ctx, h.object, 0)
		if m.say(k, err); err != nil {
			done = false
			continue
		}
		delete(m.held, k)
	}
	return done
}

// put brings one object.
func (m *mirror) put(ctx context.Context, o *unstructured.Unstructured) error {
	k := keyOf(o)
	before, known := m.held[k]
	uid, deleting := o.GetAnnotations()[uidAnnotation], o.GetAnnotations()[deletingAnnotation] != ""
	sum := hash(o)
	switch {
	case known && before.uid != uid: // another pod of the same name
		if err := m.clients.remove(ctx, before.object, 0); err != nil {
			return err
		}
		delete(m.held, k)
	case known && deleting && !before.deleting:
		before.deleting = true
		m.held[k] = before
		return m.clients.remove(ctx, o, podGrace)
	case known && before.hash == sum, deleting:
		return nil
	}
	body := o.DeepCopy()
	status := body.Object["status"]
	delete(body.Object, "status")
	now, err := m.clients.apply(ctx, body)
	if err != nil {
		return err
	}
	if status != nil {
		if err := m.clients.status(ctx, body, status); err != nil {
			return err
		}
	}
	if k.GroupKind == kindPod && !known {
		if err := m.tokens.give(ctx, now); err != nil {
			return err
		}
	}
	m.held[k] = held{object: o, hash: sum, uid: uid}
	return nil
}

// refused reports whether an error is the API server's word on the object: it does not
// help to try again before the object changes.
func refused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || meta.IsNoMatchError(err)
}

// say logs what is wrong with an object, once.
func (m *mirror) say(k key, err error) {
	if err == nil {
		delete(m.said, k)
		return
	}
	if m.said[k] != err.Error() {
		m.said[k] = err.Error()
		m.log.Warn("not on the API server as it should be", "object", k.String(), "err", err)
	}
}

func hash(o *unstructured.Unstructured) uint64 {
	text, err := json.Marshal(o.Object)
	if err != nil {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write(text)
	return h.Sum64()
}
