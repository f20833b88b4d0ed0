package main

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

const (
	systemNamespace = "istio-system"
	agentAccount    = "ztunnel"
)

var (
	kindNamespace = schema.GroupKind{Kind: "Namespace"}
	kindNode      = schema.GroupKind{Kind: "Node"}
	kindPod       = schema.GroupKind{Kind: "Pod"}
	kindService   = schema.GroupKind{Kind: "Service"}
	kindAccount   = schema.GroupKind{Kind: "ServiceAccount"}
	kindConfig    = schema.GroupKind{Kind: "ConfigMap"}
	kindGateway   = schema.GroupKind{Group: "gateway.networking.k8s.io", Kind: "Gateway"}
)

// order is which kinds must be there before which; those that are not named are last
// but for pods.
var order = map[schema.GroupKind]int{kindNamespace: 1, kindAccount: 2, kindNode: 3, kindConfig: 4, kindService: 5, kindPod: 7}

// world is what the API server is to hold, by what it is.
type world map[key]*unstructured.Unstructured

// read takes the world of the lab's directories. again says that it may not be whole.
func (m *mirror) read() (w world, again bool, problems error) {
	own, again1, err1 := m.own.read()
	derived, again2, err2 := m.derived.read()
	w = world{}
	for _, o := range own {
		switch gk := o.GroupVersionKind().GroupKind(); {
		case gk.Group == "apps" || gk.Group == "batch", gk == kindPod, gk == kindNode:
			// The lab runs them, and says what came of it.
		default:
			delete(o.Object, "status")
			w.add(o)
		}
	}
	for _, o := range derived {
		switch o.GroupVersionKind().GroupKind() {
		case kindService:
			delete(o.Object, "status")
			if returned(o) {
				continue // istiod's own
			}
		case kindPod:
			complete(o)
		}
		w.add(o)
	}
	w.add(account(systemNamespace, agentAccount))
	w.meshConfig()
	for _, o := range slices.Collect(maps.Values(w)) {
		switch o.GroupVersionKind().GroupKind() {
		case kindNode:
			w.add(agent(o.GetName()))
		case kindPod:
			name, _, _ := unstructured.NestedString(o.Object, "spec", "serviceAccountName")
			w.add(account(o.GetNamespace(), name))
		}
	}
	for _, o := range slices.Collect(maps.Values(w)) {
		if n := (key{kindNamespace, "", o.GetNamespace()}); o.GetNamespace() != "" && w[n] == nil {
			w.add(object("v1", "Namespace", "", o.GetNamespace()))
		}
	}
	return w, again1 || again2, errors.Join(err1, err2)
}

// add takes an object in, without what only an API server says of it. Of two of one
// name the first counts, but the lab's own word goes before the directory's.
func (w world) add(o *unstructured.Unstructured) {
	k := keyOf(o)
	if before := w[k]; before != nil && k.GroupKind == kindAccount {
		return
	}
	for _, field := range []string{"uid", "creationTimestamp", "deletionTimestamp", "resourceVersion", "generation", "managedFields", "generateName"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	w[k] = o
}

// What the lab says of a pod and an API server would not take from it.
const (
	uidAnnotation      = "lab.fairlead.dev/uid"
	deletingAnnotation = "lab.fairlead.dev/deleting"
)

// complete gives a pod what an API server insists on, and notes which pod of its name
// it is and whether it is on its way out.
func complete(pod *unstructured.Unstructured) {
	annotations := pod.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[uidAnnotation] = string(pod.GetUID())
	if pod.GetDeletionTimestamp() != nil {
		annotations[deletingAnnotation] = "true"
	}
	pod.SetAnnotations(annotations)
	owners := pod.GetOwnerReferences()
	for i := range owners {
		owners[i].UID = types.UID(uid(owners[i].Name))
	}
	pod.SetOwnerReferences(owners)
	for _, list := range []string{"containers", "initContainers"} {
		all, _, _ := unstructured.NestedSlice(pod.Object, "spec", list)
		for _, c := range all {
			if container, _ := c.(map[string]any); container["image"] == nil || container["image"] == "" {
				container["image"] = "command" // the lab runs commands without one
			}
		}
		if len(all) > 0 {
			_ = unstructured.SetNestedSlice(pod.Object, all, "spec", list)
		}
	}
}

// sorted are the objects in the order in which they must come.
func (w world) sorted() []*unstructured.Unstructured {
	rank := func(o *unstructured.Unstructured) int {
		return cmp.Or(order[o.GroupVersionKind().GroupKind()], 6)
	}
	return slices.SortedFunc(maps.Values(w), func(a, b *unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(keyOf(a).String(), keyOf(b).String()))
	})
}

// returned reports whether an object came from istiod: its owner is a Gateway.
func returned(o *unstructured.Unstructured) bool {
	return slices.ContainsFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.Kind == kindGateway.Kind })
}

func object(version, kind, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetAPIVersion(version)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

func account(namespace, name string) *unstructured.Unstructured {
	return object("v1", "ServiceAccount", namespace, cmp.Or(name, "default"))
}

// agent is the pod of a node's agent, to which its token is bound.
func agent(node string) *unstructured.Unstructured {
	o := object("v1", "Pod", systemNamespace, agentAccount+"-"+node)
	o.SetLabels(map[string]string{"app": agentAccount})
	o.Object["spec"] = map[string]any{
		"serviceAccountName": agentAccount, "nodeName": node,
		"containers": []any{map[string]any{"name": "istio-proxy", "image": "fairlead-node-agent"}},
	}
	o.Object["status"] = map[string]any{"phase": string(corev1.PodRunning)}
	return o
}

// chart is the mesh's configuration as Istio's chart installs it for ambient.
const chart = `
trustDomain: cluster.local
rootNamespace: istio-system
defaultProviders: {metrics: [prometheus]}
enablePrometheusMerge: true
defaultConfig:
  discoveryAddress: istiod.istio-system.svc:15012
  proxyMetadata: {ISTIO_META_ENABLE_HBONE: "true"}
`

// meshConfig is the lab's, on top of the chart's.
func (w world) meshConfig() {
	o := w[key{kindConfig, systemNamespace, "istio"}]
	if o == nil {
		o = object("v1", "ConfigMap", systemNamespace, "istio")
		w.add(o)
	}
	given, _, _ := unstructured.NestedString(o.Object, "data", "mesh")
	var all, over map[string]any
	if yaml.Unmarshal([]byte(chart), &all) != nil || yaml.Unmarshal([]byte(given), &over) != nil {
		return // istiod says what is wrong with it
	}
	maps.Copy(all, over)
	text, err := yaml.Marshal(all)
	if err != nil {
		return
	}
	_ = unstructured.SetNestedField(o.Object, string(text), "data", "mesh")
}
