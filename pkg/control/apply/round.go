package apply

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/deploy"
)

// round is what one Run knows.
type round struct {
	*Applier
	children *children
	maps     *configMaps
	applied  map[types.NamespacedName]*applied
	// pending are the problems of Gateways that wait to be tried again.
	pending map[types.NamespacedName]error
}

// rendered is an object as it is applied.
type rendered struct {
	key  key
	text []byte
}

// all makes everything follow from the Gateways there are. It returns how long until
// something is to be tried again, or 0.
func (r *round) all(ctx context.Context) time.Duration {
	r.mu.Lock()
	gateways, options, set := r.gateways, r.options.Deploy, r.set
	options.TrustDomain, options.Statistics = r.mesh.GetTrustDomain(), r.mesh.GetDefaultConfig().GetProxyStatsMatcher()
	r.mu.Unlock()
	if !set || !r.maps.follow(gateways) || !r.children.synced() {
		return 0 // it wakes us
	}
	options.ClassParameters, options.Parameters = r.maps.class(), r.maps.get
	objects, refused := deploy.Objects(gateways, options)
	problems := map[types.NamespacedName]error{}
	for _, g := range gateways {
		if err := refused[g.Namespace+"/"+g.Name]; err != nil {
			problems[types.NamespacedName{Namespace: g.Namespace, Name: g.Name}] = err
		}
	}
	wanted := map[types.NamespacedName][]rendered{}
	for _, o := range objects {
		gateway, one, err := render(o)
		if err != nil {
			problems[gateway] = err
			continue
		}
		wanted[gateway] = append(wanted[gateway], one)
	}
	next := r.apply(ctx, gateways, wanted, problems)
	if ctx.Err() == nil {
		r.say(problems)
	}
	return next
}

// apply applies the Gateways of which something is another than it was, some at once.
func (r *round) apply(ctx context.Context, gateways []*gatewayv1.Gateway, wanted map[types.NamespacedName][]rendered, problems map[types.NamespacedName]error) time.Duration {
	var mu sync.Mutex
	var group sync.WaitGroup
	free := make(chan struct{}, atOnce)
	drifted := r.children.takeDrifted()
	now, next := time.Now(), time.Duration(0)
	later := func(d time.Duration) {
		if next == 0 || d < next {
			next = d
		}
	}
	failed := map[types.NamespacedName]error{}
	for _, g := range gateways {
		gateway := types.NamespacedName{Namespace: g.Namespace, Name: g.Name}
		objects, state := wanted[gateway], r.applied[gateway]
		if state != nil && drifted[gateway] {
			state.done = false
		}
		if len(objects) == 0 || problems[gateway] != nil {
			continue
		}
		sum := sumOf(g.UID, objects)
		if state == nil || state.sum != sum {
			state = &applied{sum: sum}
			r.applied[gateway] = state
		}
		if state.done {
			continue
		}
		if wait := state.again.Sub(now); wait > 0 {
			failed[gateway] = r.pending[gateway]
			later(wait)
			continue
		}
		free <- struct{}{}
		group.Go(func() {
			defer func() { <-free }()
			err := r.one(ctx, gateway, g.UID, objects)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				*state = applied{sum: sum, done: true}
				return
			}
			failed[gateway] = err
			state.wait = min(max(firstRetry, 2*state.wait), lastRetry)
			state.again = time.Now().Add(state.wait)
			later(state.wait)
		})
	}
	group.Wait()
	for gateway := range r.applied {
		if _, asked := wanted[gateway]; !asked && problems[gateway] == nil {
			delete(r.applied, gateway)
		}
	}
	r.pending = failed
	for gateway, err := range failed {
		if err != nil {
			problems[gateway] = err
		}
	}
	return next
}

// one applies a Gateway's objects, and takes away what it does not ask for any more.
func (r *round) one(ctx context.Context, gateway types.NamespacedName, uid types.UID, objects []rendered) error {
	ctx, cancel := context.WithTimeout(ctx, maxApply)
	defer cancel()
	keep := map[key]bool{}
	var errs []error
	for _, o := range objects {
		keep[o.key] = true
		if err := r.object(ctx, o); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for k, c := range r.children.of(uid) {
		if keep[k] {
			continue
		}
		err := r.options.Metadata.Resource(k.kind.resource).Namespace(k.namespace).Delete(ctx, k.name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &c.uid}})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("%s %s, which the Gateway does not ask for any more, stays: %w", k.kind.name, k.name, err))
			continue
		}
		r.logger.Info("deleted: its Gateway does not ask for it any more", "kind", k.kind.name, "namespace", k.namespace, "name", k.name, "gateway", gateway.Name)
	}
	return errors.Join(errs...)
}

// object applies one object, if it is ours.
func (r *round) object(ctx context.Context, o rendered) error {
	client := r.options.Metadata.Resource(o.key.kind.resource).Namespace(o.key.namespace)
	if !r.children.has(o.key) {
		m, err := client.Get(ctx, o.key.name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return fmt.Errorf("%s %s cannot be read: %w", o.key.kind.name, o.key.name, err)
		case m.Labels[labelManaged] == deploy.ManagedWaypoint: // the watch is on its way
		case o.key.kind.name == "ServiceAccount":
			return nil // it is used as it is
		default:
			return fmt.Errorf("there is a %s %s without the label %s=%s: it is someone else's, and in the way", o.key.kind.name, o.key.name, labelManaged, deploy.ManagedWaypoint)
		}
	}
	if err := r.handOver(ctx, o); err != nil {
		return err
	}
	force := true
	m, err := client.Patch(ctx, o.key.name, types.ApplyPatchType, o.text, metav1.PatchOptions{FieldManager: FieldManager, Force: &force})
	if err != nil {
		r.applies.WithLabelValues("error").Inc()
		return fmt.Errorf("%s %s cannot be applied: %w", o.key.kind.name, o.key.name, err)
	}
	r.applies.WithLabelValues("ok").Inc()
	r.children.wrote(o.key, m)
	return nil
}

// render is an object as it is applied, and its Gateway.
func render(o runtime.Object) (types.NamespacedName, rendered, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return types.NamespacedName{}, rendered{}, err
	}
	m := o.(metav1.Object)
	gateway := types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetOwnerReferences()[0].Name}
	k, known := kindOf(o.GetObjectKind().GroupVersionKind().Kind)
	if !known {
		return gateway, rendered{}, fmt.Errorf("a waypoint has no %T", o)
	}
	delete(content, "status") // others own it
	text, err := json.Marshal(content)
	return gateway, rendered{key{k, m.GetNamespace(), m.GetName()}, text}, err
}

func sumOf(uid types.UID, objects []rendered) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write([]byte(uid))
	for _, o := range objects {
		h.Write(o.text)
	}
	h.Sum(sum[:0])
	return sum
}
