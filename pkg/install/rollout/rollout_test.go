package rollout

import (
	"context"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// fake is a cluster of the objects that it was given.
type fake []*unstructured.Unstructured

func (f fake) Get(_ context.Context, gk schema.GroupKind, namespace, name string) (*unstructured.Unstructured, error) {
	for _, o := range f {
		if o.GroupVersionKind().GroupKind() == gk && o.GetNamespace() == namespace && o.GetName() == name {
			return o, nil
		}
	}
	return nil, nil
}

func (f fake) List(_ context.Context, gk schema.GroupKind, namespace, _ string) (out []*unstructured.Unstructured, _ error) {
	for _, o := range f {
		if o.GroupVersionKind().GroupKind() == gk && o.GetNamespace() == namespace {
			out = append(out, o)
		}
	}
	return out, nil
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	return o
}

const deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: n, generation: 2}\nspec: {replicas: 2, selector: {matchLabels: {app: d}}}\n"
const daemonSet = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: d, namespace: n, generation: 2}\n"

// Something is ready when all of it is of the newest kind and answers.
func TestOf(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       State
	}{
		{"not yet seen by its controller", deployment + "status: {observedGeneration: 1, replicas: 2, updatedReplicas: 2, availableReplicas: 2}", State{false, "2 of 2 ready"}},
		{"half", deployment + "status: {observedGeneration: 2, replicas: 2, updatedReplicas: 1, availableReplicas: 2}", State{false, "1 of 2 ready"}},
		{"an old one still runs", deployment + "status: {observedGeneration: 2, replicas: 3, updatedReplicas: 2, availableReplicas: 2}", State{false, "2 of 2 ready"}},
		{"all", deployment + "status: {observedGeneration: 2, replicas: 2, updatedReplicas: 2, availableReplicas: 2}", State{true, "2 of 2 ready"}},
		{"one of two nodes", daemonSet + "status: {observedGeneration: 2, desiredNumberScheduled: 2, updatedNumberScheduled: 1, numberAvailable: 2}", State{false, "1 of 2 nodes ready"}},
		{"all nodes", daemonSet + "status: {observedGeneration: 2, desiredNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 2}", State{true, "2 of 2 nodes ready"}},
		{"no node", daemonSet + "status: {observedGeneration: 2}", State{false, "no node is chosen by its nodeSelector and tolerations"}},
		{"a definition", "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: c}\nstatus: {conditions: [{type: Established, status: \"True\"}]}", State{true, "established"}},
		{"what does not roll out", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}", State{true, "there"}},
	} {
		if got := Of(object(t, c.text)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// Who waits in vain is told why, by pod and node.
func TestLate(t *testing.T) {
	d := object(t, deployment+"status: {observedGeneration: 2, replicas: 1, updatedReplicas: 1}")
	c := fake{
		d,
		object(t, `{apiVersion: v1, kind: Pod, metadata: {name: d-1, namespace: n}, spec: {nodeName: n1}, status: {containerStatuses: [{ready: false, state: {waiting: {reason: ImagePullBackOff, message: no such image}}}]}}`),
		object(t, `{apiVersion: v1, kind: Pod, metadata: {name: d-2, namespace: n}, status: {conditions: [{type: PodScheduled, status: "False", message: 0/2 nodes are available}]}}`),
		object(t, `{apiVersion: v1, kind: Pod, metadata: {name: d-3, namespace: n}, spec: {nodeName: n2}, status: {containerStatuses: [{ready: false, state: {running: {}}}]}}`),
		object(t, `{apiVersion: v1, kind: Event, metadata: {name: e, namespace: n}, type: Warning, reason: FailedCreate, message: exceeded quota, involvedObject: {name: d-77}}`),
		object(t, `{apiVersion: v1, kind: Event, metadata: {name: f, namespace: n}, type: Warning, reason: Other, message: of another, involvedObject: {name: e}}`),
	}
	told := 0
	err := Wait(t.Context(), c, []*unstructured.Unstructured{d}, 10*time.Millisecond, func(*unstructured.Unstructured, State) { told++ })
	if err == nil || told != 1 {
		t.Fatalf("%v, told %d times", err, told)
	}
	for _, want := range []string{
		"not ready after 10ms:\n  Deployment d: 0 of 2 ready", "pod d-1 on n1: ImagePullBackOff: no such image", "pod d-2: 0/2 nodes are available",
		"pod d-3 on n2: runs, and is not ready", "d-77: FailedCreate: exceeded quota",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not said:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "of another") {
		t.Errorf("an event of another object is told:\n%v", err)
	}
}
