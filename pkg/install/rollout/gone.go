package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
)

// Gone waits until no pod in the namespace has the labels, but for those on nodes that
// are away: pods there do not go.
func Gone(ctx context.Context, c Cluster, namespace, labels string, away []string, timeout time.Duration) error {
	return until(ctx, timeout, func(ctx context.Context) (string, error) {
		pods, err := c.List(ctx, pod, namespace, labels)
		pods = slices.DeleteFunc(pods, func(p *unstructured.Unstructured) bool {
			node, _, _ := unstructured.NestedString(p.Object, "spec", "nodeName")
			return slices.Contains(away, node)
		})
		return list(pods), err
	})
}

// touchEvery is how often a definition that is stuck is touched.
const touchEvery = 5 * time.Second

// Removed waits until no definition of a kind has the labels. Where an API server could not
// delete a definition's objects, as one does that has just begun to serve them, it tries
// again when the definition changes, or in five minutes: touch changes it.
func Removed(ctx context.Context, c Cluster, labels string, timeout time.Duration, touch func(context.Context, *unstructured.Unstructured) error) error {
	touched := time.Now()
	return until(ctx, timeout, func(ctx context.Context) (string, error) {
		definitions, err := c.List(ctx, definition, "", labels)
		if err != nil || time.Since(touched) < touchEvery {
			return list(definitions), err
		}
		touched = time.Now()
		for _, d := range definitions {
			if stuck(d) {
				err = errors.Join(err, touch(ctx, d))
			}
		}
		return list(definitions), err
	})
}

// stuck tells whether the objects of a definition that goes could not be deleted.
func stuck(definition *unstructured.Unstructured) bool {
	return kube.Condition(definition, "Terminating").Reason == "InstanceDeletionFailed"
}

// Ended waits until an object is no more.
func Ended(ctx context.Context, c Cluster, o *unstructured.Unstructured, timeout time.Duration) error {
	return until(ctx, timeout, func(ctx context.Context) (string, error) {
		live, err := c.Get(ctx, o.GroupVersionKind().GroupKind(), o.GetNamespace(), o.GetName())
		if err != nil || live == nil {
			return "", err
		}
		return o.GetName(), nil
	})
}

func list(objects []*unstructured.Unstructured) string {
	var names []string
	for _, o := range objects {
		names = append(names, o.GetName()+where(o))
	}
	return strings.Join(names, ", ")
}

func until(ctx context.Context, timeout time.Duration, left func(context.Context) (string, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	end := time.After(timeout)
	for {
		asked, cancel := context.WithTimeout(ctx, oneQuestion)
		names, err := left(asked)
		cancel()
		if err == nil && names == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			if err != nil { // an API server may be away for a moment, and not for all of it
				return err
			}
			return fmt.Errorf("still there after %s: %s", timeout, names)
		case <-tick.C:
		}
	}
}
