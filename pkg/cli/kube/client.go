package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// Client is a cluster.
type Client struct {
	// Config, Dynamic and Mapper are there for commands that need more than the methods.
	Config  *rest.Config
	Dynamic dynamic.Interface
	// Mapper knows the kinds that the API server has; call its Reset after CRDs have come.
	Mapper *restmapper.DeferredDiscoveryRESTMapper

	discovery discovery.DiscoveryInterface
}

// Connect makes a client; the API server is asked when something is needed of it.
func (f *Flags) Connect() (*Client, error) {
	config, err := f.Config()
	if err != nil {
		return nil, err
	}
	return NewClient(config)
}

// NewClient makes a client of a configuration.
func NewClient(config *rest.Config) (*Client, error) {
	http, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	dyn, err := dynamic.NewForConfigAndClient(config, http)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	disco, err := discovery.NewDiscoveryClientForConfigAndClient(config, http)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))
	return &Client{Config: config, Dynamic: dyn, Mapper: mapper, discovery: disco}, nil
}

// ServerVersion is the API server's, like "v1.36.3".
func (c *Client) ServerVersion() (string, error) {
	v, err := c.discovery.ServerVersion()
	if err != nil {
		return "", fmt.Errorf("ask the API server: %w", err)
	}
	return v.GitVersion, nil
}

// Resource is the interface to a kind's objects in a namespace ("" for those of all,
// and for kinds outside namespaces). A kind that the server lacks is a NoKindMatchError.
func (c *Client) Resource(gvk schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	mapping, err := c.Mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, err
	}
	all := c.Dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace || namespace == "" {
		return all, nil
	}
	return all.Namespace(namespace), nil
}

// pageSize bounds an answer of the API server.
const pageSize = 500

// List is all objects of a kind in a namespace, or of all with "". A kind that the
// server lacks has none.
func (c *Client) List(ctx context.Context, gk schema.GroupKind, namespace, labels string) ([]*unstructured.Unstructured, error) {
	resource, err := c.Resource(gk.WithVersion(""), namespace)
	if meta.IsNoMatchError(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("list %s: %w", gk.Kind, err)
	}
	var out []*unstructured.Unstructured
	options := metav1.ListOptions{Limit: pageSize, LabelSelector: labels}
	for {
		page, err := resource.List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", gk.Kind, err)
		}
		for i := range page.Items {
			out = append(out, &page.Items[i])
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return out, nil
		}
	}
}

// Get is one object, or nil if there is none.
func (c *Client) Get(ctx context.Context, gk schema.GroupKind, namespace, name string) (*unstructured.Unstructured, error) {
	resource, err := c.Resource(gk.WithVersion(""), namespace)
	if meta.IsNoMatchError(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("get %s %s: %w", gk.Kind, name, err)
	}
	o, err := resource.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("get %s %s: %w", gk.Kind, name, err)
	}
	return o, nil
}

// Apply makes what an object says true, as the field manager "fairlead".
func (c *Client) Apply(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	resource, err := c.Resource(o.GroupVersionKind(), o.GetNamespace())
	if err != nil {
		return nil, fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	got, err := resource.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: "fairlead", Force: true})
	if err != nil {
		return nil, fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return got, nil
}

// Kinds of the core group that commands ask for.
var (
	Pod        = schema.GroupKind{Kind: "Pod"}
	Service    = schema.GroupKind{Kind: "Service"}
	Namespace  = schema.GroupKind{Kind: "Namespace"}
	Deployment = schema.GroupKind{Group: "apps", Kind: "Deployment"}
	Gateway    = schema.GroupKind{Group: "gateway.networking.k8s.io", Kind: "Gateway"}
)

// PodOf is the pod that text of a command line names: itself, or a running one of
// the workload that it is part of.
func (c *Client) PodOf(ctx context.Context, kind, name, namespace string) (*unstructured.Unstructured, error) {
	switch kind {
	case "", "pod", "pods", "po":
		pod, err := c.Get(ctx, Pod, namespace, name)
		if err == nil && pod == nil {
			err = fmt.Errorf("no pod %s in namespace %s", name, namespace)
		}
		return pod, err
	}
	gk, ok := workloads[kind]
	if !ok {
		return nil, fmt.Errorf("%q is no kind of workload: pod, deployment, daemonset, statefulset, replicaset or service", kind)
	}
	owner, err := c.Get(ctx, gk, namespace, name)
	if err != nil {
		return nil, err
	}
	if owner == nil {
		return nil, fmt.Errorf("no %s %s in namespace %s", strings.ToLower(gk.Kind), name, namespace)
	}
	path := []string{"spec", "selector", "matchLabels"}
	if gk == Service {
		path = path[:2]
	}
	labels, _, err := unstructured.NestedStringMap(owner.Object, path...)
	if err != nil || len(labels) == 0 {
		return nil, fmt.Errorf("%s %s/%s selects no pods by labels", strings.ToLower(gk.Kind), namespace, name)
	}
	pods, err := c.List(ctx, Pod, namespace, selector(labels))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(pods, func(a, b *unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	for _, p := range pods {
		if phase, _, _ := unstructured.NestedString(p.Object, "status", "phase"); phase == "Running" && p.GetDeletionTimestamp() == nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no pod of %s %s/%s runs", strings.ToLower(gk.Kind), namespace, name)
}

var workloads = map[string]schema.GroupKind{
	"deploy": Deployment, "deployment": Deployment, "deployments": Deployment,
	"ds": {Group: "apps", Kind: "DaemonSet"}, "daemonset": {Group: "apps", Kind: "DaemonSet"},
	"sts": {Group: "apps", Kind: "StatefulSet"}, "statefulset": {Group: "apps", Kind: "StatefulSet"},
	"rs": {Group: "apps", Kind: "ReplicaSet"}, "replicaset": {Group: "apps", Kind: "ReplicaSet"},
	"svc": Service, "service": Service,
}

func selector(labels map[string]string) string {
	var all []string
	for k, v := range labels {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}
