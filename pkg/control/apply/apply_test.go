package apply

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	ktesting "k8s.io/client-go/testing"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/deploy"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// world is an API server's stand-in. It keeps what is applied, without merging.
type world struct {
	t       *testing.T
	client  *metadatafake.FakeMetadataClient
	maps    *dynamicfake.FakeDynamicClient
	applier *Applier

	mu      sync.Mutex
	applied []string // kind/name, in order
	texts   map[string]string
}

var serviceResource = schema.GroupVersionResource{Version: "v1", Resource: "services"}

func newWorld(t *testing.T, objects ...runtime.Object) *world {
	t.Helper()
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, client: metadatafake.NewSimpleMetadataClient(scheme, objects...), texts: map[string]string{}}
	core := runtime.NewScheme()
	if err := corev1.AddToScheme(core); err != nil {
		t.Fatal(err)
	}
	w.maps = dynamicfake.NewSimpleDynamicClient(core)
	w.client.PrependReactor("patch", "*", w.patch)
	var err error
	w.applier, err = New(Options{
		Metadata: w.client, Dynamic: w.maps, SystemNamespace: "istio-system", Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
		Deploy: deploy.Options{XDSAddress: "istiod.istio-system.svc:15012", ServerName: "istiod.istio-system.svc", Image: "waypoint:1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.applier.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	// What comes between a list and its watch, the stand-in loses.
	w.until("watches", func() bool {
		n := 0
		for _, a := range append(w.client.Actions(), w.maps.Actions()...) {
			if a.GetVerb() == "watch" {
				n++
			}
		}
		return n == len(kinds)+1
	})
	return w
}

func (w *world) patch(action ktesting.Action) (bool, runtime.Object, error) {
	p := action.(ktesting.PatchActionImpl)
	if p.PatchType != types.ApplyPatchType {
		w.t.Errorf("%s is patched as %s", p.Name, p.PatchType)
	}
	m := &metav1.PartialObjectMetadata{}
	if err := json.Unmarshal(p.Patch, m); err != nil {
		return true, nil, err
	}
	w.mu.Lock()
	w.applied = append(w.applied, m.Kind+"/"+m.Name)
	w.texts[m.Kind+"/"+m.Name] = string(p.Patch)
	version := len(w.applied)
	w.mu.Unlock()
	m.UID, m.ResourceVersion, m.Generation = types.UID(m.Kind+"/"+m.Name), string(rune('0'+version%10)), 1
	if err := w.client.Tracker().Create(p.Resource, m, m.Namespace); err != nil {
		if err := w.client.Tracker().Update(p.Resource, m, m.Namespace); err != nil {
			return true, nil, err
		}
	}
	return true, m, nil
}

func (w *world) until(what string, condition func() bool) {
	w.t.Helper()
	for deadline := time.After(20 * time.Second); !condition(); {
		select {
		case <-deadline:
			w.t.Fatalf("waited in vain: %s; applied %v, statuses %+v", what, w.count(), w.applier.Statuses())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (w *world) count() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]int{}
	for _, a := range w.applied {
		out[a]++
	}
	return out
}

func (w *world) text(what string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.texts[what]
}

func (w *world) deleted(resource, name string) bool {
	return slices.ContainsFunc(w.client.Actions(), func(a ktesting.Action) bool {
		d, ok := a.(ktesting.DeleteActionImpl)
		return ok && d.Resource.Resource == resource && d.Name == name && d.DeleteOptions.Preconditions != nil
	})
}

func gateway(name string, ref string) *gatewayv1.Gateway {
	g := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)}, Spec: gatewayv1.GatewaySpec{GatewayClassName: deploy.Class}}
	if ref != "" {
		g.Spec.Infrastructure = &gatewayv1.GatewayInfrastructure{ParametersRef: &gatewayv1.LocalParametersReference{Kind: "ConfigMap", Name: ref}}
	}
	return g
}

func TestApplies(t *testing.T) {
	w := newWorld(t)
	w.applier.Set([]*gatewayv1.Gateway{gateway("waypoint", "")}, &meshv1alpha1.MeshConfig{TrustDomain: "td"})
	w.until("its objects", func() bool { return len(w.count()) == 3 })
	text := w.text("Deployment/waypoint")
	for _, part := range []string{`--trust-domain=td`, `"image":"waypoint:1"`, `"ownerReferences":[{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","name":"waypoint","uid":"waypoint"}]`} {
		if !strings.Contains(text, part) {
			t.Errorf("%s is not in %s", part, text)
		}
	}
	for _, part := range []string{`"status"`, `null`, `"replicas"`} {
		if strings.Contains(text, part) {
			t.Errorf("%s is applied: %s", part, text)
		}
	}
	// The same Gateway, read again, changes nothing; another one's objects come alone.
	w.applier.Set([]*gatewayv1.Gateway{gateway("other", ""), gateway("waypoint", "")}, &meshv1alpha1.MeshConfig{TrustDomain: "td"})
	w.until("the other's objects", func() bool { return len(w.count()) == 6 })
	if n := w.count()["Deployment/waypoint"]; n > 2 { // one more for an event that came before the answer
		t.Errorf("applied %d times", n)
	}
	// What somebody takes away comes back.
	before := w.count()["Service/waypoint"]
	if err := w.client.Tracker().Delete(serviceResource, "shop", "waypoint"); err != nil {
		t.Fatal(err)
	}
	w.until("the Service again", func() bool { return w.count()["Service/waypoint"] > before })
	if len(w.applier.Statuses()) > 0 {
		t.Errorf("said %+v", w.applier.Statuses())
	}
}

func (w *world) configMap(namespace, name string, labels, data map[string]any) {
	w.t.Helper()
	m := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{}}
	for k, v := range data {
		m.Data[k] = v.(string)
	}
	for k, v := range labels {
		m.Labels = map[string]string{k: v.(string)}
	}
	u, err := runtime.DefaultUnstructuredConverter.ToUnstructured(m)
	if err != nil {
		w.t.Fatal(err)
	}
	client := w.maps.Resource(configMapResource).Namespace(namespace)
	if _, err := client.Create(w.t.Context(), &unstructured.Unstructured{Object: u}, metav1.CreateOptions{}); err != nil {
		if _, err := client.Update(w.t.Context(), &unstructured.Unstructured{Object: u}, metav1.UpdateOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func said(all []status.Status, kind string) string {
	for _, s := range all {
		for _, c := range s.Conditions {
			if c.Type == kind {
				return c.Reason + ": " + c.Message
			}
		}
	}
	return ""
}

func TestParametersComeAndGo(t *testing.T) {
	w := newWorld(t)
	w.applier.Set([]*gatewayv1.Gateway{gateway("waypoint", "own")}, &meshv1alpha1.MeshConfig{TrustDomain: "td"})
	w.until("what is missing", func() bool {
		return strings.HasPrefix(said(w.applier.Statuses(), status.RouteAccepted), "InvalidParameters: spec.infrastructure.parametersRef: there is no ConfigMap shop/own")
	})
	if len(w.count()) > 0 {
		t.Errorf("applied %v", w.count())
	}
	w.until("the watch", func() bool {
		return slices.ContainsFunc(w.maps.Actions(), func(a ktesting.Action) bool { return a.GetVerb() == "watch" && a.GetNamespace() == "shop" })
	})
	w.configMap("shop", "own", nil, map[string]any{"horizontalPodAutoscaler": "spec: {maxReplicas: 4}"})
	w.until("an autoscaler", func() bool {
		return w.count()["HorizontalPodAutoscaler/waypoint"] > 0 && len(w.applier.Statuses()) == 0
	})
	w.configMap("istio-system", "defaults", map[string]any{deploy.ClassDefaults: deploy.Class}, map[string]any{"deployment": "spec: {minReadySeconds: 7}"})
	w.until("the class's defaults", func() bool { return strings.Contains(w.text("Deployment/waypoint"), `"minReadySeconds":7`) })
	w.configMap("shop", "own", nil, map[string]any{"deploymnt": "{}"})
	w.until("what is wrong", func() bool {
		return strings.Contains(said(w.applier.Statuses(), status.Programmed), `the key "deploymnt"`)
	})
	if w.deleted("horizontalpodautoscalers", "waypoint") {
		t.Error("what was deployed is gone with wrong parameters")
	}
	w.configMap("shop", "own", nil, map[string]any{})
	w.until("no autoscaler", func() bool { return w.deleted("horizontalpodautoscalers", "waypoint") })
}

// What is there and is not ours is not touched.
func TestLeavesWhatIsOthers(t *testing.T) {
	foreign := func(version, kind string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: version, Kind: kind}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "waypoint", UID: "f"}}
	}
	w := newWorld(t)
	// Of another controller, such as the Deployment of Istio's ingress.
	ingress := foreign("apps/v1", "Deployment")
	ingress.Labels = map[string]string{deploy.LabelManaged: "istio.io-gateway-controller"}
	for resource, m := range map[schema.GroupVersionResource]*metav1.PartialObjectMetadata{kinds[1].resource: ingress, serviceResource: foreign("v1", "Service"), kinds[0].resource: foreign("v1", "ServiceAccount")} {
		// Only where it is asked for by name: the watch is for ours.
		w.client.PrependReactor("get", resource.Resource, func(ktesting.Action) (bool, runtime.Object, error) { return true, m, nil })
	}
	w.applier.Set([]*gatewayv1.Gateway{gateway("waypoint", "")}, &meshv1alpha1.MeshConfig{TrustDomain: "td"})
	w.until("what is in the way", func() bool {
		text := said(w.applier.Statuses(), status.Programmed)
		return strings.Contains(text, "there is a Service waypoint without the label gateway.istio.io/managed") && strings.Contains(text, "there is a Deployment waypoint without")
	})
	if got := w.count(); got["Service/waypoint"]+got["ServiceAccount/waypoint"]+got["Deployment/waypoint"] > 0 {
		t.Errorf("applied %v", got)
	}
}
