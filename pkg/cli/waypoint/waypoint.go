// Package waypoint makes, lists and deletes waypoints: Gateways of the class
// istio-waypoint, out of which the control plane makes the rest.
//
// For cmd/fairlead and tests.
package waypoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
)

// Labels and names that Istio's users know.
const (
	class          = "istio-waypoint"
	labelFor       = "istio.io/waypoint-for"
	labelRevision  = "istio.io/rev"
	labelUse       = "istio.io/use-waypoint"
	labelDataplane = "istio.io/dataplane-mode"
	// DefaultName is a waypoint's that is given none.
	DefaultName = "waypoint"
)

// traffic are what a waypoint can be for.
var traffic = []string{"all", "none", "service", "workload"}

// Spec is what a waypoint is made of.
type Spec struct {
	// Name is DefaultName if empty. Namespace is the waypoint's; empty: left out.
	Name, Namespace string
	// For is one of all, none, service, workload; empty: left to the control plane.
	For string
	// Revision is the control plane's that makes it; empty: any.
	Revision string
}

// Gateway is the object of a waypoint.
func (s Spec) Gateway() (*unstructured.Unstructured, error) {
	name := cmp.Or(s.Name, DefaultName)
	if name == "none" {
		return nil, errors.New("invalid name provided for waypoint, 'none' is a reserved value")
	}
	if s.For != "" && !slices.Contains(traffic, s.For) {
		return nil, fmt.Errorf("invalid traffic type: %s. Valid options are: %v", s.For, traffic)
	}
	meta := map[string]any{"name": name}
	if s.Namespace != "" {
		meta["namespace"] = s.Namespace
	}
	labels := map[string]any{}
	if s.For != "" {
		labels[labelFor] = s.For
	}
	if s.Revision != "" {
		labels[labelRevision] = s.Revision
	}
	if len(labels) > 0 {
		meta["labels"] = labels
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": meta,
		"spec": map[string]any{
			"gatewayClassName": class,
			"listeners":        []any{map[string]any{"name": "mesh", "port": int64(15008), "protocol": "HBONE"}},
		},
	}}, nil
}

// Generate writes a waypoint as YAML.
func Generate(out io.Writer, s Spec) error {
	gateway, err := s.Gateway()
	if err != nil {
		return fmt.Errorf("failed to create gateway: %w", err)
	}
	text, err := yaml.Marshal(gateway.Object)
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// waypoints are a namespace's, or all with "", by namespace and name.
func waypoints(ctx context.Context, c *kube.Client, namespace, labels string) ([]*unstructured.Unstructured, error) {
	all, err := c.List(ctx, kube.Gateway, namespace, labels)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(g *unstructured.Unstructured) bool {
		name, _, _ := unstructured.NestedString(g.Object, "spec", "gatewayClassName")
		return name != class
	})
	slices.SortFunc(all, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(strings.Compare(a.GetNamespace(), b.GetNamespace()), strings.Compare(a.GetName(), b.GetName()))
	})
	return all, nil
}

const programmed = "Programmed"
