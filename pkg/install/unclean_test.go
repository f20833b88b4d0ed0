package install

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// A node is unclean when it has a pod of the agent and none that is ready: also where the
// pod has found no place, and where two are there while one replaces the other.
func TestNodesWithoutAgent(t *testing.T) {
	var pods []*unstructured.Unstructured
	for _, text := range []string{
		"spec: {nodeName: up}\nstatus: {conditions: [{type: Ready, status: 'True'}]}",
		"spec: {nodeName: down}\nstatus: {conditions: [{type: Ready, status: 'False'}]}",
		"spec: {nodeName: changing}\nstatus: {conditions: [{type: Ready, status: 'False'}]}",
		"spec: {nodeName: changing}\nstatus: {conditions: [{type: Ready, status: 'True'}]}",
		"spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [crowded]}]}]}}}}",
		"spec: {}",
	} {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
			t.Fatal(err)
		}
		pods = append(pods, u)
	}
	got := unready(pods)
	if !slices.Equal(got, []string{"crowded", "down"}) {
		t.Errorf("%v", got)
	}
}
