package objects

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Key names an object of a kind. Namespace is empty for cluster-wide kinds.
type Key struct{ Namespace, Name string }

func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// KeyOf is an object's key.
func KeyOf(o metav1.Object) Key { return Key{o.GetNamespace(), o.GetName()} }

// Set is all that a directory says, decoded. It is not changed once made.
type Set struct {
	Namespaces     map[Key]*corev1.Namespace
	Nodes          map[Key]*corev1.Node
	Services       map[Key]*corev1.Service
	Pods           map[Key]*corev1.Pod
	Deployments    map[Key]*appsv1.Deployment
	EndpointSlices map[Key]*discoveryv1.EndpointSlice
	ServiceEntries map[Key]*ServiceEntry
}

// ServiceEntry is what the lab's resolvers want of Istio's kind of this name.
type ServiceEntry struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Hosts     []string `json:"hosts"`
		Addresses []string `json:"addresses"`
		Endpoints []struct {
			Address string `json:"address"`
		} `json:"endpoints"`
	} `json:"spec"`
	Status struct {
		Addresses []struct {
			Value string `json:"value"`
			Host  string `json:"host"`
		} `json:"addresses"`
	} `json:"status"`
}

// NewSet is empty.
func NewSet() *Set {
	return &Set{
		Namespaces:     map[Key]*corev1.Namespace{},
		Nodes:          map[Key]*corev1.Node{},
		Services:       map[Key]*corev1.Service{},
		Pods:           map[Key]*corev1.Pod{},
		Deployments:    map[Key]*appsv1.Deployment{},
		EndpointSlices: map[Key]*discoveryv1.EndpointSlice{},
		ServiceEntries: map[Key]*ServiceEntry{},
	}
}

// With is s and what other has beside it: of an object that both have, s's counts.
func (s *Set) With(other *Set) *Set {
	return &Set{
		Namespaces: joined(s.Namespaces, other.Namespaces), Nodes: joined(s.Nodes, other.Nodes), Services: joined(s.Services, other.Services),
		Pods: joined(s.Pods, other.Pods), Deployments: joined(s.Deployments, other.Deployments),
		EndpointSlices: joined(s.EndpointSlices, other.EndpointSlices), ServiceEntries: joined(s.ServiceEntries, other.ServiceEntries),
	}
}

func joined[T any](mine, theirs map[Key]T) map[Key]T {
	if len(theirs) == 0 {
		return mine
	}
	out := maps.Clone(theirs)
	maps.Copy(out, mine)
	return out
}

// kind says how to decode a kind that the lab acts on and where it goes.
type kind struct {
	clusterWide bool
	make        func() metav1.Object
	put         func(*Set, Key, metav1.Object)
}

func typed[T metav1.Object](fresh func() T, in func(*Set) map[Key]T) kind {
	return kind{
		make: func() metav1.Object { return fresh() },
		put:  func(s *Set, k Key, o metav1.Object) { in(s)[k] = o.(T) },
	}
}

func clusterWide(k kind) kind { k.clusterWide = true; return k }

// kinds are keyed by API group and kind: versions of a group do not differ in what
// the lab reads.
var kinds = map[[2]string]kind{
	{"", "Namespace"}: clusterWide(typed(func() *corev1.Namespace { return new(corev1.Namespace) }, func(s *Set) map[Key]*corev1.Namespace { return s.Namespaces })),
	{"", "Node"}:      clusterWide(typed(func() *corev1.Node { return new(corev1.Node) }, func(s *Set) map[Key]*corev1.Node { return s.Nodes })),
	{"", "Service"}:   typed(func() *corev1.Service { return new(corev1.Service) }, func(s *Set) map[Key]*corev1.Service { return s.Services }),
	{"", "Pod"}:       typed(func() *corev1.Pod { return new(corev1.Pod) }, func(s *Set) map[Key]*corev1.Pod { return s.Pods }),
	{"apps", "Deployment"}: typed(func() *appsv1.Deployment { return new(appsv1.Deployment) }, func(s *Set) map[Key]*appsv1.Deployment {
		return s.Deployments
	}),
	{"discovery.k8s.io", "EndpointSlice"}: typed(func() *discoveryv1.EndpointSlice { return new(discoveryv1.EndpointSlice) }, func(s *Set) map[Key]*discoveryv1.EndpointSlice {
		return s.EndpointSlices
	}),
	{"networking.istio.io", "ServiceEntry"}: typed(func() *ServiceEntry { return new(ServiceEntry) }, func(s *Set) map[Key]*ServiceEntry {
		return s.ServiceEntries
	}),
}

// notRun are kinds that make pods on a cluster and make none here: silence about
// them would look like a bug.
var notRun = map[[2]string]bool{
	{"apps", "StatefulSet"}: true, {"apps", "DaemonSet"}: true, {"apps", "ReplicaSet"}: true,
	{"batch", "Job"}: true, {"batch", "CronJob"}: true,
}
