package report

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/test/condition"
)

var (
	services = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	gateways = schema.GroupVersionResource{Group: groupGateway, Version: "v1", Resource: "gateways"}
	classes  = schema.GroupVersionResource{Group: groupGateway, Version: "v1", Resource: "gatewayclasses"}
)

// api is a client whose patches are counted.
type api struct {
	*fake.FakeDynamicClient
	t *testing.T

	mu      sync.Mutex
	patches []string
}

func newAPI(t *testing.T, objects ...runtime.Object) *api {
	t.Helper()
	lists := map[schema.GroupVersionResource]string{}
	for _, k := range kinds {
		for _, v := range k.versions {
			lists[schema.GroupVersionResource{Group: k.group, Version: v, Resource: k.resource}] = k.name + "List"
		}
	}
	a := &api{FakeDynamicClient: fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists, objects...), t: t}
	a.PrependReactor("patch", "*", func(action ktesting.Action) (bool, runtime.Object, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		p := action.(ktesting.PatchAction)
		if action.GetSubresource() != "status" {
			t.Errorf("%s is patched beside its status", p.GetName())
		}
		a.patches = append(a.patches, action.GetResource().Resource+"/"+p.GetName())
		return false, nil, nil
	})
	return a
}

func (a *api) count(what string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.patches {
		if p == what {
			n++
		}
	}
	return n
}

func (a *api) conditions(resource schema.GroupVersionResource, namespace, name string) (types []string) {
	u, err := a.Resource(resource).Namespace(namespace).Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	have, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, c := range have {
		types = append(types, object(c)["type"].(string)+"="+object(c)["status"].(string))
	}
	return types
}

func thing(version, kind, namespace, name string, spec, status map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": version, "kind": kind}}
	u.SetNamespace(namespace)
	u.SetName(name)
	u.SetGeneration(1)
	if spec != nil {
		u.Object["spec"] = spec
	}
	if status != nil {
		u.Object["status"] = status
	}
	return u
}

// start runs a writer until the test ends or stop is called.
func start(t *testing.T, a *api, w *Writer) (stop func()) {
	t.Helper()
	if w.now == nil {
		t.Fatal("no clock")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func newWriter(t *testing.T, a *api) *Writer {
	t.Helper()
	w, err := New(Options{Client: a, Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func unknown(status.Object) int64 { return 0 }

func service(name string, conditions ...status.Condition) status.Status {
	return status.Status{Object: status.Object{APIVersion: "v1", Kind: "Service", Namespace: "shop", Name: name}, Conditions: conditions}
}

func TestWriterFollowsWhatIsWanted(t *testing.T) {
	stale := map[string]any{"conditions": []any{map[string]any{"type": status.WaypointBound, "status": "True"}, map[string]any{"type": "Other", "status": "True"}}}
	a := newAPI(t,
		thing("v1", "Service", "shop", "a", nil, nil), thing("v1", "Service", "shop", "b", nil, nil), thing("v1", "Service", "shop", "stale", nil, stale))
	w := newWriter(t, a)
	stop := start(t, a, w)
	w.Set([]status.Status{service("a", bound("True", "R")), service("b", bound("True", "R")), service("gone", bound("True", "R"))}, unknown)
	condition.Await(t, "the conditions", func() bool {
		return slices.Equal(a.conditions(services, "shop", "a"), []string{status.WaypointBound + "=True"}) && len(a.conditions(services, "shop", "b")) == 1
	})
	condition.Await(t, "the stale condition gone and the other's kept", func() bool {
		return slices.Equal(a.conditions(services, "shop", "stale"), []string{"Other=True"})
	})

	// One changes; the other, the same again, is left alone.
	w.Set([]status.Status{service("a", bound("False", "R")), service("b", bound("True", "R"))}, unknown)
	condition.Await(t, "the change", func() bool {
		return slices.Equal(a.conditions(services, "shop", "a"), []string{status.WaypointBound + "=False"})
	})
	// One that came later gets what is wanted of it.
	if _, err := a.Resource(services).Namespace("shop").Create(t.Context(), thing("v1", "Service", "shop", "late", nil, nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Set([]status.Status{service("b", bound("True", "R")), service("late", bound("True", "R"))}, unknown)
	condition.Await(t, "the late one", func() bool { return len(a.conditions(services, "shop", "late")) == 1 })
	condition.Await(t, "a's taken back", func() bool { return len(a.conditions(services, "shop", "a")) == 0 })
	if n := a.count("services/b"); n != 1 {
		t.Errorf("b was written %d times", n)
	}

	// Whoever does not run writes nothing; who runs again writes only what changed.
	stop()
	w.Set([]status.Status{service("b", bound("True", "R")), service("late", bound("False", "R"))}, unknown)
	if got := a.conditions(services, "shop", "late"); got[0] != status.WaypointBound+"=True" {
		t.Errorf("written while not running: %v", got)
	}
	start(t, a, w)
	condition.Await(t, "the change", func() bool {
		return slices.Equal(a.conditions(services, "shop", "late"), []string{status.WaypointBound + "=False"})
	})
	if n := a.count("services/b"); n != 1 {
		t.Errorf("b was written %d times", n)
	}
}

// Gateways are ours by the controller of their class.
func TestWriterServesItsClass(t *testing.T) {
	gateway := func(name, class string) *unstructured.Unstructured {
		return thing(groupGateway+"/v1", "Gateway", "shop", name, map[string]any{"gatewayClassName": class}, map[string]any{"conditions": []any{map[string]any{"type": "Accepted", "status": "Unknown"}}})
	}
	class := func(name, controller string) *unstructured.Unstructured {
		return thing(groupGateway+"/v1", "GatewayClass", "", name, map[string]any{"controllerName": controller}, nil)
	}
	a := newAPI(t, class("other", "example.com/c"))
	for _, g := range []*unstructured.Unstructured{gateway("ours", "mesh"), gateway("theirs", "other"), gateway("named", "istio-waypoint")} {
		if _, err := a.Resource(gateways).Namespace("shop").Create(t.Context(), g, metav1.CreateOptions{}); err != nil { // the stand-in guesses the plural "gatewaies"
			t.Fatal(err)
		}
	}
	w := newWriter(t, a)
	start(t, a, w)
	said := func(name string) status.Status {
		return status.Status{Object: status.Object{APIVersion: groupGateway + "/v1", Kind: "Gateway", Namespace: "shop", Name: name},
			Conditions: []status.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted"}}}
	}
	w.Set([]status.Status{said("ours"), said("theirs"), said("named")}, unknown)
	condition.Await(t, "that of a class without an object", func() bool { return slices.Equal(a.conditions(gateways, "shop", "named"), []string{"Accepted=True"}) })
	// What comes between a list and its watch, the stand-in loses.
	condition.Await(t, "a watch", func() bool {
		return slices.ContainsFunc(a.Actions(), func(action ktesting.Action) bool { return action.Matches("watch", "gatewayclasses") })
	})
	if _, err := a.Resource(classes).Create(t.Context(), class("mesh", ClassController), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	condition.Await(t, "ours", func() bool { return slices.Equal(a.conditions(gateways, "shop", "ours"), []string{"Accepted=True"}) })
	condition.Await(t, "the class", func() bool {
		return slices.Equal(a.conditions(classes, "", "mesh"), []string{"Accepted=True"})
	})
	if got := a.conditions(gateways, "shop", "theirs"); !slices.Equal(got, []string{"Accepted=Unknown"}) {
		t.Errorf("another's Gateway says %v", got)
	}
	if got := a.conditions(classes, "", "other"); len(got) > 0 {
		t.Errorf("another's class says %v", got)
	}
}
