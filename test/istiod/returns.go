package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"
)

// watched are the kinds whose status istiod writes, and those that it makes.
var watched = map[schema.GroupVersion][]string{
	{Version: "v1"}:                                     {"services"},
	{Group: "apps", Version: "v1"}:                      {"deployments"},
	{Group: "gateway.networking.k8s.io", Version: "v1"}: {"gateways", "httproutes", "grpcroutes", "tlsroutes", "tcproutes"},
	{Group: "networking.istio.io", Version: "v1"}:       {"serviceentries", "virtualservices", "destinationrules"},
	{Group: "security.istio.io", Version: "v1"}:         {"authorizationpolicies", "peerauthentications"},
}

// returns are what comes from istiod to the lab.
type returns struct {
	clients   *clients
	log       *slog.Logger
	statusDir string
	waypoints *waypoints
	rootOut   string

	stores  []cache.Store
	changed chan struct{}
	wrote   map[string]string // statuses by file
}

func newReturns(c config, clients *clients, log *slog.Logger) *returns {
	return &returns{
		clients: clients, log: log, statusDir: c.statusDir, rootOut: c.rootCertOut, waypoints: newWaypoints(c, clients, log),
		changed: make(chan struct{}, 1), wrote: map[string]string{},
	}
}

// run follows the API server until ctx ends.
func (r *returns) run(ctx context.Context) error {
	if err := r.roots(ctx); err != nil {
		return err
	}
	factory := dynamicinformer.NewDynamicSharedInformerFactory(r.clients.dynamic, 0)
	changed := func() {
		select {
		case r.changed <- struct{}{}:
		default:
		}
	}
	on := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() }, UpdateFunc: func(any, any) { changed() }, DeleteFunc: func(any) { changed() },
	}
	for gv, resources := range watched {
		for _, resource := range resources {
			informer := factory.ForResource(gv.WithResource(resource)).Informer()
			if _, err := informer.AddEventHandler(on); err != nil {
				return err
			}
			r.stores = append(r.stores, informer.GetStore())
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.changed:
		}
		if err := r.write(ctx); err != nil {
			r.log.Warn("what istiod says did not come back whole", "err", err)
			time.AfterFunc(time.Second, changed)
		}
	}
}

// roots writes the mesh's root certificates once istiod has published them.
func (r *returns) roots(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		m, err := r.clients.typed.CoreV1().ConfigMaps(systemNamespace).Get(ctx, "istio-ca-root-cert", metav1.GetOptions{})
		if err == nil && m.Data["root-cert.pem"] != "" {
			return write(r.rootOut, []byte(m.Data["root-cert.pem"]))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// write brings the statuses and the waypoints up to date.
func (r *returns) write(ctx context.Context) error {
	now := map[string]string{}
	var all []*unstructured.Unstructured
	for _, store := range r.stores {
		for _, item := range store.List() {
			o, ok := item.(*unstructured.Unstructured)
			if !ok {
				continue
			}
			all = append(all, o)
			if o.GetKind() == "Deployment" || len(statusOf(o)) == 0 {
				continue
			}
			document := object(o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName())
			document.Object["status"] = o.Object["status"]
			text, err := yaml.Marshal(document.Object)
			if err != nil {
				return err
			}
			now[statusFile(o)] = string(text)
		}
	}
	errs := []error{r.waypoints.write(ctx, all)}
	for name, text := range now {
		if r.wrote[name] != text {
			errs = append(errs, write(filepath.Join(r.statusDir, name), []byte(text)))
		}
	}
	for _, name := range slices.Collect(maps.Keys(r.wrote)) {
		if _, there := now[name]; !there {
			errs = append(errs, os.Remove(filepath.Join(r.statusDir, name)))
		}
	}
	r.wrote = now
	return errors.Join(errs...)
}

func statusOf(o *unstructured.Unstructured) map[string]any {
	status, _, _ := unstructured.NestedMap(o.Object, "status")
	return status
}

// statusFile is the name under which the product's control plane would write it.
func statusFile(o *unstructured.Unstructured) string {
	group := o.GroupVersionKind().Group
	if group == "" {
		group = "core"
	}
	parts := []string{strings.ToLower(o.GetKind()), group, o.GetNamespace(), o.GetName()}
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(url.PathEscape(p), "_", "%5F")
	}
	return fmt.Sprintf("%s.yaml", strings.Join(parts, "_"))
}
