package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/deploy"
)

// waypoints brings what istiod deploys for Gateways to the lab. The Deployment and the
// Service are istiod's; what its pods run is our waypoint.
type waypoints struct {
	clients *clients
	log     *slog.Logger
	dir     string
	options deploy.Options

	writer *deploy.Writer
}

func newWaypoints(c config, clients *clients, log *slog.Logger) *waypoints {
	return &waypoints{clients: clients, log: log, dir: c.deployDir, options: deploy.Options{
		XDSAddress: c.advertise, ServerName: c.advertiseName, ClusterID: c.clusterID, TrustDomain: "cluster.local", Image: "fairlead-waypoint", EnvoyImage: "envoyproxy/envoy",
	}}
}

// write has the lab run what there is for the Gateways that are there. What is there
// for others goes: there is no garbage collector here.
func (w *waypoints) write(ctx context.Context, all []*unstructured.Unstructured) error {
	if w.writer == nil {
		var err error
		if w.writer, err = deploy.NewWriter(w.dir); err != nil {
			return err
		}
	}
	gateways := map[string]*gatewayv1.Gateway{}
	for _, o := range all {
		if o.GroupVersionKind().GroupKind() == kindGateway {
			g := &gatewayv1.Gateway{}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, g); err != nil {
				return err
			}
			gateways[string(g.UID)] = g
		}
	}
	var out []runtime.Object
	var errs []error
	for _, o := range all {
		if !returned(o) {
			continue
		}
		g := gateways[string(o.GetOwnerReferences()[0].UID)]
		if g == nil {
			errs = append(errs, w.clients.remove(ctx, o, 0))
			continue
		}
		made, err := w.run(o, g)
		if err != nil {
			errs = append(errs, fmt.Errorf("the Gateway %s/%s: %w", g.Namespace, g.Name, err))
			continue
		}
		out = append(out, made)
	}
	return errors.Join(append(errs, w.writer.Write(out))...)
}

// run is an object of istiod's as the lab is to have it.
func (w *waypoints) run(o *unstructured.Unstructured, g *gatewayv1.Gateway) (runtime.Object, error) {
	o = o.DeepCopy()
	o.SetManagedFields(nil)
	o.SetResourceVersion("")
	o.SetGeneration(0)
	delete(o.Object, "status")
	if o.GetKind() != "Deployment" {
		s := &corev1.Service{}
		return s, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, s)
	}
	d := &appsv1.Deployment{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, d); err != nil {
		return nil, err
	}
	ours, problems := deploy.Objects([]*gatewayv1.Gateway{g}, w.options)
	for _, err := range problems {
		return nil, err
	}
	for _, made := range ours {
		if made, ok := made.(*appsv1.Deployment); ok {
			d.Spec.Template.Spec = made.Spec.Template.Spec
		}
	}
	return d, nil
}
