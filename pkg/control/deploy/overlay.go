package deploy

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// ClassDefaults is the label of the ConfigMap that is for all Gateways of the class that
// it names.
const ClassDefaults = "gateway.istio.io/defaults-for-class"

// The keys of a ConfigMap of parameters. The last two make their objects be there.
const (
	keyDeployment = "deployment"
	keyService    = "service"
	keyAccount    = "serviceAccount"
	keyAutoscaler = "horizontalPodAutoscaler"
	keyDisruption = "podDisruptionBudget"
)

var keys = []string{keyDeployment, keyAutoscaler, keyDisruption, keyService, keyAccount}

// ParametersError is an error in the ConfigMaps that a Gateway is customised by.
type ParametersError struct{ Err error }

func (e *ParametersError) Error() string { return e.Err.Error() }

func (e *ParametersError) Unwrap() error { return e.Err }

func parametersError(format string, args ...any) error {
	return &ParametersError{fmt.Errorf(format, args...)}
}

// overlay is one ConfigMap.
type overlay struct {
	from string // as an operator calls it
	data map[string]string
	own  bool // a Gateway's, not the class's
}

// overlays are laid one over the other: the class's, then the Gateway's own.
type overlays []overlay

// ParametersRef is the ConfigMap that a Gateway is customised by; "": none.
func ParametersRef(g *gatewayv1.Gateway) (string, error) {
	if g.Spec.Infrastructure == nil || g.Spec.Infrastructure.ParametersRef == nil {
		return "", nil
	}
	r := g.Spec.Infrastructure.ParametersRef
	if r.Group != "" || r.Kind != "ConfigMap" {
		return "", parametersError("spec.infrastructure.parametersRef: a waypoint is customised by a ConfigMap (group \"\"), not by a %s of the group %q", r.Kind, r.Group)
	}
	return r.Name, nil
}

func (o Options) overlays(g *gatewayv1.Gateway) (overlays, error) {
	var out overlays
	if o.ClassParameters != nil {
		out = append(out, overlay{"the ConfigMap labelled " + ClassDefaults + "=" + Class, o.ClassParameters, false})
	}
	ref, err := ParametersRef(g)
	switch {
	case err != nil:
		return nil, err
	case ref == "":
	case o.Parameters == nil:
		return nil, parametersError("spec.infrastructure.parametersRef: this control plane has no ConfigMaps to read %q from", ref)
	default:
		data, there := o.Parameters(g.Namespace, ref)
		if !there {
			return nil, parametersError("spec.infrastructure.parametersRef: there is no ConfigMap %s/%s", g.Namespace, ref)
		}
		size := 0
		for key, text := range data {
			size += len(key) + len(text)
		}
		if size > maxParameters {
			return nil, parametersError("the ConfigMap %s/%s has %d bytes: parameters have %d at most", g.Namespace, ref, size, maxParameters)
		}
		out = append(out, overlay{"the ConfigMap " + g.Namespace + "/" + ref, data, true})
	}
	for _, o := range out {
		for key := range o.data {
			if !slices.Contains(keys, key) {
				return nil, parametersError("%s has the key %q: it can have %s", o.from, key, strings.Join(keys, ", "))
			}
		}
	}
	return out, nil
}

func (all overlays) has(key string) bool {
	return slices.ContainsFunc(all, func(o overlay) bool { _, has := o.data[key]; return has })
}

// over is an object with what the overlays say of it, merged as Kubernetes merges
// strategically: lists by their keys, the rest in place.
func (all overlays) over(key string, object metav1.Object) (runtime.Object, error) {
	out := object.(runtime.Object)
	for _, o := range all {
		text, has := o.data[key]
		if !has {
			continue
		}
		next, err := merge(out, text)
		if err != nil {
			return nil, parametersError("%s, key %s: %w", o.from, key, err)
		}
		if err := unmoved(object, next.(metav1.Object)); err != nil {
			return nil, parametersError("%s, key %s: %w", o.from, key, err)
		}
		if o.own {
			if err := bounded(out.(metav1.Object), next.(metav1.Object)); err != nil {
				return nil, parametersError("%s, key %s: %w", o.from, key, err)
			}
		}
		out = next
	}
	return out, nil
}

func merge(object runtime.Object, text string) (runtime.Object, error) {
	// Aliases may make much of little: they are looked at before anything is made of them.
	if _, problems := source.Trees(source.File{Data: []byte(text)}); len(problems) > 0 {
		return nil, fmt.Errorf("line %d: %s", problems[0].Line, problems[0].Message)
	}
	patch, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	original, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	merged, err := strategicpatch.StrategicMergePatch(original, patch, object)
	if err != nil {
		return nil, fmt.Errorf("cannot be merged: %w", err)
	}
	next := reflect.New(reflect.TypeOf(object).Elem()).Interface().(runtime.Object)
	strict, err := kjson.UnmarshalStrict(merged, next)
	if err := errors.Join(append(strict, err)...); err != nil {
		return nil, fmt.Errorf("what comes of it is not valid: %w", err)
	}
	return next, nil
}

// unmoved refuses overlays that would make an object another, or someone else's; the
// labels that say whose it is are put back.
func unmoved(before, after metav1.Object) error {
	for field, same := range map[string]bool{
		"metadata.name": before.GetName() == after.GetName(), "metadata.namespace": before.GetNamespace() == after.GetNamespace(),
		"metadata.uid": before.GetUID() == after.GetUID(), "metadata.resourceVersion": before.GetResourceVersion() == after.GetResourceVersion(),
		"metadata.ownerReferences": reflect.DeepEqual(before.GetOwnerReferences(), after.GetOwnerReferences()),
		"metadata.finalizers":      slices.Equal(before.GetFinalizers(), after.GetFinalizers()),
		"metadata.managedFields":   len(after.GetManagedFields()) == 0,
	} {
		if !same {
			return fmt.Errorf("%s cannot be set", field)
		}
	}
	labels := after.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	for _, l := range []string{labelGatewayName, labelGatewayClass, LabelManaged} {
		labels[l] = before.GetLabels()[l]
	}
	after.SetLabels(labels)
	return nil
}
