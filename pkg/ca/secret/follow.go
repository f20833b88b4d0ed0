package secret

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
)

// Run follows the Secrets until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	var watches sync.WaitGroup
	defer watches.Wait()
	for _, name := range []string{PluggedIn, Own} {
		watches.Go(func() { s.watch(ctx, name, tell) })
	}
	// A watch may have missed what came after Open.
	tell()
	look := time.NewTicker(s.look)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-look.C:
		}
		s.read(ctx)
	}
}

// watch calls tell when the Secret of that name changes, and after each gap in which it
// may have.
func (s *Store) watch(ctx context.Context, name string, tell func()) {
	said := ""
	for ctx.Err() == nil {
		w, err := s.o.Secrets.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
		switch {
		case err == nil:
			said = ""
			tell()
			drain(ctx, w, tell)
			w.Stop()
		case ctx.Err() == nil && said != err.Error():
			said = err.Error()
			s.o.Logger.Warn("changes of the CA's Secret are seen late", "secret", s.name(name), "every", s.look, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(s.retry):
		}
	}
}

func drain(ctx context.Context, w watch.Interface, tell func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, more := <-w.ResultChan():
			if !more || e.Type == watch.Error {
				return
			}
			tell()
		}
	}
}

// read gives the holder what the Secrets hold now. What is wrong, gone or out of reach
// changes nothing, and is said once.
func (s *Store) read(ctx context.Context) {
	a, name, err := s.now(ctx)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		s.said = ""
		s.o.Holder.Set(a, s.name(name))
	case s.said != err.Error():
		s.said = err.Error()
		s.o.Holder.Refuse(s.name(name), err)
	}
}

// now is the authority of the Secret in force.
func (s *Store) now(ctx context.Context) (*ca.Authority, string, error) {
	found, err := s.o.Secrets.Get(ctx, PluggedIn, metav1.GetOptions{})
	switch {
	case err == nil:
		return s.take(found)
	case !apierrors.IsNotFound(err):
		return nil, PluggedIn, err
	case s.last.Name == PluggedIn:
		return nil, PluggedIn, errors.New("it is gone: put it back; a control plane that starts without it uses " + s.name(Own))
	}
	found, err = s.o.Secrets.Get(ctx, Own, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		s.o.Logger.Warn("the Secret of the mesh's root is gone: it is put back as it was", "secret", s.name(Own))
		found, err = s.o.Secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: Own, Annotations: s.last.Annotations, Labels: s.last.Labels}, Type: s.last.Type, Data: s.last.Data,
		}, metav1.CreateOptions{})
	}
	if err != nil {
		return nil, Own, err
	}
	return s.take(found)
}

func (s *Store) take(found *corev1.Secret) (*ca.Authority, string, error) {
	a, err := authority(found)
	if err != nil {
		return nil, found.Name, fmt.Errorf("it is wrong: %w", err)
	}
	s.last = found
	return a, found.Name, nil
}
