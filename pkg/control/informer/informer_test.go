package informer

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	kubefake "k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// server is an API server of fakes. Its discovery is told apart, as a real one serves a
// kind some time after its definition came.
type server struct {
	t        *testing.T
	kube     *kubefake.Clientset
	metadata *metadatafake.FakeMetadataClient
	dynamic  *dynamicfake.FakeDynamicClient
	informer *Informer
}

func newServer(t *testing.T, objects ...runtime.Object) *server {
	t.Helper()
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	lists := map[schema.GroupVersionResource]string{}
	probe := &Informer{extensions: map[string]*extension{}}
	probe.addExtensions()
	for _, e := range probe.extensions {
		lists[schema.GroupVersionResource{Group: e.group, Version: "v1", Resource: e.resource}] = e.kind + "List"
		lists[schema.GroupVersionResource{Group: e.group, Version: "v1beta1", Resource: e.resource}] = e.kind + "List"
	}
	s := &server{t: t, kube: kubefake.NewClientset(objects...), metadata: metadatafake.NewSimpleMetadataClient(scheme), dynamic: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists)}
	var err error
	s.informer, err = New(Options{Kubernetes: s.kube, Metadata: s.metadata, Dynamic: s.dynamic, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = s.informer.Run(ctx) })
	s.t.Cleanup(func() { cancel(); done.Wait() })
}

// until waits for a state.
func (s *server) until(what string, is func(o *source.Objects) bool) *source.Objects {
	s.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		changed := s.informer.Changed()
		o := s.informer.Objects()
		if o != nil && is(o) {
			return o
		}
		select {
		case <-changed:
		case <-deadline:
			s.t.Fatalf("%s: not seen; missing %v, state %+v", what, s.informer.missing(), o)
		}
	}
}

// define installs the definition of a kind, and has it served in a version.
func (s *server) define(group, version, resource string) {
	s.t.Helper()
	s.kube.Lock()
	served := slices.IndexFunc(s.kube.Resources, func(l *metav1.APIResourceList) bool { return l.GroupVersion == group+"/"+version })
	if served < 0 {
		served = len(s.kube.Resources)
		s.kube.Resources = append(s.kube.Resources, &metav1.APIResourceList{GroupVersion: group + "/" + version})
	}
	s.kube.Resources[served].APIResources = append(s.kube.Resources[served].APIResources, metav1.APIResource{Name: resource})
	s.kube.Unlock()
	m := &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: resource + "." + group},
	}
	if err := s.metadata.Tracker().Create(definitions, m, ""); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) of(group, resource, namespace string) dynamic.ResourceInterface {
	return s.dynamic.Resource(schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}).Namespace(namespace)
}

func decode(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func podOf(namespace, name, ip string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "1", Labels: map[string]string{"app": "web"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet"}}},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "app", Image: "echo", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}},
		Status:     corev1.PodStatus{PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}, {Type: corev1.PodInitialized}}},
	}
}

func namespaceOf(name string, labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

func serviceOf(namespace, name string, selector map[string]string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", Selector: selector, Ports: []corev1.ServicePort{{Port: 80}}}}
}

func TestAStateFollowsEachChange(t *testing.T) {
	s := newServer(t, namespaceOf("shop", nil), serviceOf("shop", "web", map[string]string{"app": "web"}), podOf("shop", "b", "10.0.0.2"), podOf("shop", "a", "10.0.0.1"))
	s.run()
	first := s.until("the first state", func(*source.Objects) bool { return true })
	if len(first.Namespaces) != 1 || len(first.Services) != 1 || len(first.Pods) != 2 || first.Pods[0].Name != "a" || first.Mesh.GetTrustDomain() != "cluster.local" {
		t.Fatalf("%+v", first)
	}
	if p := first.Pods[0]; p.ManagedFields != nil || len(p.Spec.Containers) != 0 || len(p.Status.Conditions) != 1 {
		t.Errorf("not stripped: %+v", p)
	}
	pods := s.kube.CoreV1().Pods("shop")
	// What nothing depends on is no change, what something does is one.
	same := podOf("shop", "a", "10.0.0.1")
	same.Status.Conditions[1].Status, same.ResourceVersion = corev1.ConditionTrue, "7"
	must[*corev1.Pod](t)(pods.Update(t.Context(), same, metav1.UpdateOptions{}))
	other := podOf("shop", "b", "10.0.0.2")
	other.Status.Conditions[0].Status = corev1.ConditionFalse
	must[*corev1.Pod](t)(pods.Update(t.Context(), other, metav1.UpdateOptions{}))
	next := s.until("the pod that is not ready", func(o *source.Objects) bool { return o.Pods[1].Status.Conditions[0].Status == corev1.ConditionFalse })
	if next.Generation != first.Generation+1 {
		t.Errorf("generation %d after %d: a change of nothing was published", next.Generation, first.Generation)
	}
	if !source.Same(first.Services, next.Services) || source.Same(first.Pods, next.Pods) || first.Pods[0] != next.Pods[0] {
		t.Error("what has not changed must stay the same slice, and the same object")
	}
	if err := pods.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.until("one pod", func(o *source.Objects) bool { return len(o.Pods) == 1 && o.Pods[0].Name == "b" })
}

func TestKindsMayBeInstalledLater(t *testing.T) {
	s := newServer(t)
	s.run()
	s.until("a state without definitions", func(*source.Objects) bool { return true })
	policy := decode(t, `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, spec: {}}`)
	must[*unstructured.Unstructured](t)(s.of(groupSecurity, "authorizationpolicies", "shop").Create(t.Context(), policy, metav1.CreateOptions{}))
	s.define(groupSecurity, "v1", "authorizationpolicies")
	s.until("the policy", func(o *source.Objects) bool { return len(o.AuthorizationPolicies) == 1 })
	if err := s.metadata.Tracker().Delete(definitions, "", "authorizationpolicies."+groupSecurity); err != nil {
		t.Fatal(err)
	}
	s.until("no policy", func(o *source.Objects) bool { return len(o.AuthorizationPolicies) == 0 })
}

func TestAWrongSecurityObjectDeniesUnlessItWasRight(t *testing.T) {
	s := newServer(t)
	s.define(groupSecurity, "v1", "authorizationpolicies")
	s.define(groupSecurity, "v1", "requestauthentications")
	policies := s.of(groupSecurity, "authorizationpolicies", "shop")
	form := func(body string) *unstructured.Unstructured {
		return decode(t, "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, spec: "+body+"}")
	}
	wrong := `{selector: {matchLabels: {app: web}}, rules: [{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}]}`
	right := `{selector: {matchLabels: {app: web}}, rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]}`
	must[*unstructured.Unstructured](t)(policies.Create(t.Context(), form(wrong), metav1.CreateOptions{}))
	s.run()
	first := s.until("a state in spite of it", func(*source.Objects) bool { return true })
	if len(first.Refused) != 1 || first.Refused[0].Selector["app"] != "web" || len(first.AuthorizationPolicies) != 0 || len(first.Problems) == 0 {
		t.Fatalf("%+v", first)
	}
	if text := first.Problems[0].String(); strings.Contains(text, ":0:") || !strings.Contains(text, "AuthorizationPolicy shop/p") {
		t.Errorf("%q", text)
	}
	update := func(body string) {
		t.Helper()
		must[*unstructured.Unstructured](t)(policies.Update(t.Context(), form(body), metav1.UpdateOptions{}))
	}
	update(right)
	s.until("the policy in force", func(o *source.Objects) bool {
		return len(o.Refused) == 0 && len(o.Problems) == 0 && len(o.AuthorizationPolicies) == 1
	})
	update(wrong)
	s.until("its last good form", func(o *source.Objects) bool {
		return len(o.Refused) == 0 && len(o.Problems) == 1 && strings.Contains(o.Problems[0].Message, "stays in force") && len(o.AuthorizationPolicies) == 1
	})
	if err := policies.Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.until("nothing of it", func(o *source.Objects) bool {
		return len(o.Refused) == 0 && len(o.Problems) == 0 && len(o.AuthorizationPolicies) == 0
	})
	request := decode(t, `{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: r, namespace: shop}, spec: {selector: {matchLabels: {app: api}}, jwtRules: [{issuer: x, jwksUri: "https://x/keys"}]}}`)
	must[*unstructured.Unstructured](t)(s.of(groupSecurity, "requestauthentications", "shop").Create(t.Context(), request, metav1.CreateOptions{}))
	s.until("what it selects denied", func(o *source.Objects) bool {
		return len(o.Refused) == 1 && o.Refused[0].Ref.Kind == "RequestAuthentication" && o.Refused[0].Selector["app"] == "api"
	})
}

func TestDiscoverySelectors(t *testing.T) {
	config := func(mesh string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: source.RootNamespace, Name: "istio"}, Data: map[string]string{"mesh": mesh}}
	}
	s := newServer(t, config("discoverySelectors: [{matchLabels: {mesh: yes-please}}]"),
		namespaceOf("in", map[string]string{"mesh": "yes-please"}), namespaceOf("out", nil), namespaceOf(source.RootNamespace, nil),
		podOf("in", "p", "10.0.0.1"), podOf("out", "p", "10.0.0.2"), serviceOf("out", "s", nil), podOf(source.RootNamespace, "p", "10.0.0.3"))
	s.define(groupSecurity, "v1", "authorizationpolicies")
	for _, in := range []string{"in", "out"} {
		wrong := decode(t, fmt.Sprintf(`{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: %s}, spec: {action: NONE}}`, in))
		must[*unstructured.Unstructured](t)(s.of(groupSecurity, "authorizationpolicies", in).Create(t.Context(), wrong, metav1.CreateOptions{}))
	}
	s.run()
	names := func(o *source.Objects) (all string) {
		for _, p := range o.Pods {
			all += p.Namespace + " "
		}
		return fmt.Sprint(all, len(o.Namespaces), len(o.Services), len(o.Refused))
	}
	want := func(state string) {
		t.Helper()
		s.until(state, func(o *source.Objects) bool { return names(o) == state })
	}
	want("in istio-system 2 0 1")
	must[*corev1.Namespace](t)(s.kube.CoreV1().Namespaces().Update(t.Context(), namespaceOf("out", map[string]string{"mesh": "yes-please"}), metav1.UpdateOptions{}))
	want("in istio-system out 3 1 2")
	must[*corev1.ConfigMap](t)(s.kube.CoreV1().ConfigMaps(source.RootNamespace).Update(t.Context(), config("discoverySelectors: [{matchExpressions: [{key: mesh, operator: NotIn, values: [yes-please]}]}]"), metav1.UpdateOptions{}))
	want("istio-system 1 0 0")
	// A selector that cannot be read leaves nothing out.
	must[*corev1.ConfigMap](t)(s.kube.CoreV1().ConfigMaps(source.RootNamespace).Update(t.Context(), config("discoverySelectors: [{matchExpressions: [{key: mesh, operator: Without}]}]"), metav1.UpdateOptions{}))
	want("in istio-system out 3 1 2")
	if err := s.kube.CoreV1().ConfigMaps(source.RootNamespace).Delete(t.Context(), "istio", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.until("no problem of the mesh", func(o *source.Objects) bool { return names(o) == "in istio-system out 3 1 2" && len(o.Problems) == 2 })
}

func TestSlicesTellOfWhatIsNoSelectedPod(t *testing.T) {
	sliceOf := func(service, target string) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: service + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
			AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}},
		}
		if target != "" {
			s.Endpoints[0].TargetRef = &corev1.ObjectReference{Kind: target, Name: "p"}
		}
		return s
	}
	selector := map[string]string{"app": "web"}
	s := newServer(t, serviceOf("shop", "selected", selector), serviceOf("shop", "mixed", selector), serviceOf("shop", "manual", nil),
		sliceOf("selected", "Pod"), sliceOf("mixed", ""), sliceOf("manual", "Pod"), sliceOf("nobody", ""))
	s.run()
	shown := func(want ...string) {
		t.Helper()
		s.until(strings.Join(want, " "), func(o *source.Objects) bool {
			if len(o.EndpointSlices) != len(want) {
				return false
			}
			for i, slice := range o.EndpointSlices {
				if slice.Name != want[i]+"-1" {
					return false
				}
			}
			return true
		})
	}
	shown("manual", "mixed")
	must[*corev1.Service](t)(s.kube.CoreV1().Services("shop").Update(t.Context(), serviceOf("shop", "selected", nil), metav1.UpdateOptions{}))
	shown("manual", "mixed", "selected")
	must[*discoveryv1.EndpointSlice](t)(s.kube.DiscoveryV1().EndpointSlices("shop").Update(t.Context(), sliceOf("mixed", "Pod"), metav1.UpdateOptions{}))
	shown("manual", "selected")
}
