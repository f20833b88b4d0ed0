// Package plan compares what is wanted with what a cluster has, and makes it so: by
// server-side apply, whose dry run says beforehand what would change, and refuses what
// the API server would refuse.
//
// For pkg/install.
package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// FieldManager owns what an installation sets.
const FieldManager = "fairlead-install"

// Label is on everything that is installed; its value names the part.
const Label = "fairlead.dev/component"

// Cluster is what a plan needs of an API server.
type Cluster interface {
	// Resource is the interface to a kind's objects; a kind that the server lacks is a
	// NoKindMatchError.
	Resource(gvk schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error)
}

// Action is what is done about an object.
type Action string

// The actions. Leave is for an object of someone else's that serves as well.
const (
	Create Action = "create"
	Change Action = "change"
	Keep   Action = "keep"
	Delete Action = "delete"
	Leave  Action = "leave"
)

// Step is one object and what is done about it.
type Step struct {
	Object *unstructured.Unstructured
	Action Action
	// Fields are what a change touches, the first few.
	Fields []string
	// Why an object is left.
	Why string
	// Release is whose the object is; a change takes it over.
	Release Release
}

// String is "kind namespace/name".
func (s Step) String() string { return Name(s.Object) }

// Name is "Kind namespace/name".
func Name(o *unstructured.Unstructured) string {
	if o.GetNamespace() == "" {
		return o.GetKind() + " " + o.GetName()
	}
	return o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
}

// Plan is what is done, in this order.
type Plan []Step

// Count is how many steps have the action.
func (p Plan) Count(a Action) int {
	n := 0
	for _, s := range p {
		if s.Action == a {
			n++
		}
	}
	return n
}

// Changes is whether anything is done at all.
func (p Plan) Changes() bool { return p.Count(Create)+p.Count(Change)+p.Count(Delete) > 0 }

// ForeignError are objects that are there and were installed by something else.
type ForeignError []string

func (e ForeignError) Error() string {
	return fmt.Sprintf("these are there already and were not installed by fairlead: %s. If that is Istio, uninstall it first; "+
		"with --force they are taken over", strings.Join(e, ", "))
}

// Make compares. Objects of others that are in the way are a [ForeignError], and those of
// a release of Helm a [HelmError], unless adopt; definitions of kinds by others are left as they are.
func Make(ctx context.Context, c Cluster, wanted []*unstructured.Unstructured, adopt bool) (Plan, error) {
	var plan Plan
	var foreign ForeignError
	var helm Release
	var errs []error
	absent := map[string]bool{} // namespaces that are yet to be made
	for _, o := range wanted {
		step, err := Compare(ctx, c, o, absent)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if step.Action == Leave && !mayLeave(o) {
			step.Action = Change
			switch {
			case adopt:
			case step.Release != Release{}:
				helm = step.Release
			default:
				foreign = append(foreign, Name(o))
			}
		}
		if step.Action == Create && o.GetKind() == "Namespace" {
			absent[o.GetName()] = true
		}
		plan = append(plan, step)
	}
	if len(foreign) > 0 {
		errs = append([]error{foreign}, errs...)
	}
	if helm != (Release{}) {
		errs = append([]error{fmt.Errorf("%w; with --force fairlead takes it over", &HelmError{helm})}, errs...)
	}
	return plan, errors.Join(errs...)
}

// mayLeave is whether an object serves as well when it is someone else's.
func mayLeave(o *unstructured.Unstructured) bool {
	return o.GetKind() == "CustomResourceDefinition" || o.GetKind() == "Namespace"
}

// Compare is what is to be done about one object. Nothing in the namespaces absent is there.
func Compare(ctx context.Context, c Cluster, o *unstructured.Unstructured, absent map[string]bool) (Step, error) {
	step := Step{Object: o, Action: Create}
	if absent[o.GetNamespace()] {
		return step, nil
	}
	resource, err := c.Resource(o.GroupVersionKind(), o.GetNamespace())
	if meta.IsNoMatchError(err) { // its definition is made first
		return step, nil
	} else if err != nil {
		return step, fmt.Errorf("look at %s: %w", Name(o), err)
	}
	live, err := resource.Get(ctx, o.GetName(), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		live = nil
	case err != nil:
		return step, fmt.Errorf("look at %s: %w", Name(o), err)
	case live.GetLabels()[Label] == "":
		step.Action, step.Why = Leave, "it is not fairlead's"
		if mayLeave(o) {
			return step, nil
		}
	case ReleaseOf(live) != Release{}:
		step.Release = ReleaseOf(live)
		step.Action, step.Why = Leave, "it is of the release "+step.Release.Name+" of Helm"
	}
	after, err := resource.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: FieldManager, Force: true, DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return step, refused(o, err)
	}
	if live == nil || step.Action == Leave {
		return step, nil
	}
	step.Fields = differences(live, after)
	if step.Action = Keep; len(step.Fields) > 0 {
		step.Action = Change
	}
	return step, nil
}

// refused says in a sentence what the API server does not take.
func refused(o *unstructured.Unstructured, err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%s may not be made by this user: %w", Name(o), err)
	}
	return fmt.Errorf("the API server does not take %s: %w", Name(o), err)
}

// Prune adds the removal of what was installed and is not wanted any more.
func (p Plan) Prune(installed []*unstructured.Unstructured) Plan {
	for _, o := range installed {
		wanted := slices.ContainsFunc(p, func(s Step) bool {
			return s.Object.GroupVersionKind().GroupKind() == o.GroupVersionKind().GroupKind() && s.Object.GetNamespace() == o.GetNamespace() && s.Object.GetName() == o.GetName()
		})
		if !wanted {
			p = append(p, Step{Object: o, Action: Delete})
		}
	}
	return p
}

// Do makes a step true.
func (s Step) Do(ctx context.Context, c Cluster) error {
	if s.Action == Keep || s.Action == Leave {
		return nil
	}
	resource, err := c.Resource(s.Object.GroupVersionKind(), s.Object.GetNamespace())
	if meta.IsNoMatchError(err) && s.Action == Delete {
		return nil
	} else if err != nil {
		return fmt.Errorf("%s %s: %w", s.Action, s, err)
	}
	if s.Action == Delete {
		background := metav1.DeletePropagationBackground
		err = resource.Delete(ctx, s.Object.GetName(), metav1.DeleteOptions{PropagationPolicy: &background})
		if apierrors.IsNotFound(err) {
			return nil
		}
	} else {
		if s.Release != (Release{}) {
			err = disown(ctx, resource, s.Object.GetName())
		}
		if err == nil {
			_, err = resource.Apply(ctx, s.Object.GetName(), s.Object, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", s.Action, s, err)
	}
	return nil
}
