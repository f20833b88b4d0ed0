package install

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
	"github.com/fairlead-mesh/fairlead/pkg/install/operator"
	"github.com/fairlead-mesh/fairlead/pkg/install/plan"
)

// recordName is the ConfigMap that remembers what was asked for.
const recordName = "fairlead-install"

var configMap = schema.GroupKind{Kind: "ConfigMap"}

// record remembers a request, so that an upgrade asks for the same and verify-install
// knows what should be there.
func record(profile string, values map[string]any, version string) (*unstructured.Unstructured, error) {
	text, err := yaml.Marshal(values)
	if err != nil {
		return nil, err
	}
	o := object("v1", "ConfigMap", chart.Namespace, recordName)
	label(o, "base")
	o.Object["data"] = map[string]any{"profile": profile, "version": version, "values": string(text)}
	return o, nil
}

// Recorded is what was asked for when the cluster's mesh was installed, and the version;
// nil where fairlead installed none.
func Recorded(ctx context.Context, c *kube.Client) (*operator.Request, string, error) {
	o, err := c.Get(ctx, configMap, chart.Namespace, recordName)
	if err != nil || o == nil {
		return nil, "", err
	}
	data, _, _ := unstructured.NestedStringMap(o.Object, "data")
	r := &operator.Request{Profile: data["profile"], Values: map[string]any{}}
	text, err := yaml.YAMLToJSON([]byte(data["values"]))
	if err == nil {
		err = json.Unmarshal(text, &r.Values) // whole numbers stay whole
	}
	if err != nil {
		return nil, "", fmt.Errorf("ConfigMap %s/%s, which remembers the installation: %w", chart.Namespace, recordName, err)
	}
	return r, data["version"], nil
}

// kinds are all kinds that an installation may consist of.
var kinds = []schema.GroupKind{
	configMap, {Kind: "ServiceAccount"}, {Kind: "Service"}, {Kind: "Namespace"}, {Group: "apps", Kind: "Deployment"}, {Group: "apps", Kind: "DaemonSet"},
	{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}, {Group: "policy", Kind: "PodDisruptionBudget"}, {Group: "discovery.k8s.io", Kind: "EndpointSlice"},
	{Group: "networking.k8s.io", Kind: "NetworkPolicy"},
	{Group: "rbac.authorization.k8s.io", Kind: "Role"}, {Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"},
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"}, {Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"},
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingWebhookConfiguration"},
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicy"}, {Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicyBinding"},
	{Group: "gateway.networking.k8s.io", Kind: "GatewayClass"},
	{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"},
}

// Installed is what the cluster has of an installation.
func Installed(ctx context.Context, c *kube.Client) ([]*unstructured.Unstructured, error) {
	return labelled(ctx, c, kinds, plan.Label)
}

func labelled(ctx context.Context, c *kube.Client, kinds []schema.GroupKind, labels string) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, gk := range kinds {
		objects, err := c.List(ctx, gk, "", labels)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			// The slices that Kubernetes makes for a Service carry its labels.
			if gk.Kind == "EndpointSlice" && o.GetLabels()["endpointslice.kubernetes.io/managed-by"] != "fairlead" {
				continue
			}
			out = append(out, o)
		}
	}
	return out, nil
}
