package informer

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// meshConfigMap is the name of the ConfigMap that holds the mesh's configuration, in
// source.RootNamespace.
const meshConfigMap = "istio"

// resource is a store with where its objects come from.
type resource struct {
	*store
	from     cache.ListerWatcher
	expected runtime.Object
}

// addCore adds the kinds that every API server has.
func (i *Informer) addCore() {
	kube, all := i.opts.Kubernetes, metav1.NamespaceAll
	i.namespaces = &kindOf[*corev1.Namespace]{field: func(o *source.Objects) *[]*corev1.Namespace { return &o.Namespaces }, within: (*corev1.Namespace).GetName}
	i.services = &kindOf[*corev1.Service]{field: func(o *source.Objects) *[]*corev1.Service { return &o.Services }, within: (*corev1.Service).GetNamespace}
	i.slices = &kindOf[*discoveryv1.EndpointSlice]{
		field: func(o *source.Objects) *[]*discoveryv1.EndpointSlice { return &o.EndpointSlices }, within: (*discoveryv1.EndpointSlice).GetNamespace, also: i.tellsMore,
	}
	pods := &kindOf[*corev1.Pod]{field: func(o *source.Objects) *[]*corev1.Pod { return &o.Pods }, within: (*corev1.Pod).GetNamespace}
	nodes := &kindOf[*corev1.Node]{field: func(o *source.Objects) *[]*corev1.Node { return &o.Nodes }}
	i.kinds = append(i.kinds, nodes, pods)

	namespaces, services, podsOf := kube.CoreV1().Namespaces(), kube.CoreV1().Services(all), kube.CoreV1().Pods(all)
	endpoints := kube.DiscoveryV1().EndpointSlices(all)
	i.follow("namespaces", i.namespaces, core("", "Namespace", namespace), &corev1.Namespace{}, listWatch(kube, namespaces.List, namespaces.Watch))
	i.follow("services", i.services, core("", "Service", service), &corev1.Service{}, listWatch(kube, services.List, services.Watch))
	i.follow("pods", pods, core("", "Pod", newPools().pod), &corev1.Pod{}, listWatch(kube, podsOf.List, podsOf.Watch))
	i.follow("endpointslices", i.slices, core(discoveryv1.GroupName, "EndpointSlice", newPools().endpointSlice), &discoveryv1.EndpointSlice{}, listWatch(kube, endpoints.List, endpoints.Watch))

	metadata := i.opts.Metadata.Resource(schema.GroupVersionResource{Version: "v1", Resource: "nodes"})
	i.follow("nodes", nodes, core("", "Node", node), &metav1.PartialObjectMetadata{}, listWatch(i.opts.Metadata, metadata.List, metadata.Watch))

	maps := kube.CoreV1().ConfigMaps(source.RootNamespace)
	one := fields.OneTermEqualSelector(metav1.ObjectNameField, meshConfigMap).String()
	i.mesh = i.follow("the ConfigMap istio", nil, text("", "ConfigMap"), &corev1.ConfigMap{}, listWatch(kube,
		func(ctx context.Context, o metav1.ListOptions) (*corev1.ConfigMapList, error) {
			o.FieldSelector = one
			return maps.List(ctx, o)
		},
		func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = one
			return maps.Watch(ctx, o)
		}))
}

// listWatch lists and follows the objects of a resource.
func listWatch[L runtime.Object](client any, list func(context.Context, metav1.ListOptions) (L, error), follow func(context.Context, metav1.ListOptions) (watch.Interface, error)) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return list(ctx, o) },
		WatchFuncWithContext: follow,
	}, client)
}

// follow adds a resource that is there from the start.
func (i *Informer) follow(name string, k kind, read func(metav1.Object) *item, expected runtime.Object, from cache.ListerWatcher) *store {
	s := i.newStore(name, k, read)
	i.resources = append(i.resources, resource{s, from, expected})
	return s
}

// core reads objects that the API server's schema has checked.
func core[S any, P interface {
	*S
	metav1.Object
}, T metav1.Object](group, kindName string, strip func(P) T) func(metav1.Object) *item {
	return func(sent metav1.Object) *item {
		stripped := strip(sent.(P))
		r := source.Reading{Problems: source.Check(group, kindName, stripped)}
		if !source.Failed(r.Problems) {
			r.Object = stripped
		}
		return &item{reading: r}
	}
}

// tellsMore tells whether a slice has endpoints that its service's pods do not tell of:
// those that a selector finds are known by themselves.
func (i *Informer) tellsMore(s *discoveryv1.EndpointSlice) bool {
	of, _ := find(i.services.rows.all, key{s.Namespace, s.Labels[discoveryv1.LabelServiceName]})
	return of != nil && (len(of.Spec.Selector) == 0 || !ofPods(s))
}
