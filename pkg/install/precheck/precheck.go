// Package precheck looks whether a cluster is fit for the mesh before anything is put into
// it: the API server, the rights of who asks, the nodes, the network and other meshes.
//
// For cmd/fairlead.
package precheck

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
)

// Level is what follows from a finding.
type Level string

const (
	// Missing keeps the mesh from working.
	Missing Level = "missing"
	// Warning is worth knowing.
	Warning Level = "warning"
)

// Finding is one thing that is not as it should be, and what to do about it.
type Finding struct {
	Level  Level
	What   string // a sentence
	Remedy string // a sentence
}

func (f Finding) String() string { return string(f.Level) + ": " + f.What + " " + f.Remedy }

// Versions of what the mesh needs.
const (
	leastKubernetes = "1.31.0"
	leastKernel     = "5.15.0"
)

// Look looks at a cluster. The error is that of an API server which does not answer.
func Look(ctx context.Context, c *kube.Client) ([]Finding, error) {
	server, err := c.ServerVersion()
	if err != nil {
		return nil, err
	}
	var out []Finding
	if older(server, leastKubernetes) {
		out = append(out, Finding{Missing, fmt.Sprintf("The API server is Kubernetes %s.", server), "Fairlead needs " + leastKubernetes + " or newer: upgrade the cluster."})
	}
	for _, look := range []func(context.Context, *kube.Client) ([]Finding, error){rights, nodes, network, meshes, definitions, namespace} {
		found, err := look(ctx, c)
		if apierrors.IsForbidden(err) {
			found, err = append(found, Finding{Missing, fmt.Sprintf("Something could not be looked at: %v.", err), "Look as a user who may."}), nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func older(have, least string) bool {
	v, err := version.ParseGeneric(have)
	return err == nil && v.LessThan(version.MustParseGeneric(least))
}

// rights are those that an installation needs.
func rights(ctx context.Context, c *kube.Client) ([]Finding, error) {
	var out []Finding
	for _, r := range []struct{ group, resource, namespace string }{
		{"", "namespaces", ""}, {"apiextensions.k8s.io", "customresourcedefinitions", ""}, {"rbac.authorization.k8s.io", "clusterroles", ""},
		{"rbac.authorization.k8s.io", "clusterrolebindings", ""}, {"admissionregistration.k8s.io", "validatingwebhookconfigurations", ""},
		{"admissionregistration.k8s.io", "validatingadmissionpolicies", ""}, {"admissionregistration.k8s.io", "validatingadmissionpolicybindings", ""},
		{"gateway.networking.k8s.io", "gatewayclasses", ""}, {"", "serviceaccounts", system}, {"", "configmaps", system}, {"", "services", system},
		{"apps", "deployments", system}, {"apps", "daemonsets", system}, {"rbac.authorization.k8s.io", "roles", system}, {"rbac.authorization.k8s.io", "rolebindings", system},
		{"autoscaling", "horizontalpodautoscalers", system}, {"policy", "poddisruptionbudgets", system},
	} {
		for _, verb := range []string{"create", "patch"} {
			may, err := allowed(ctx, c, verb, r.group, r.resource, r.namespace)
			if err != nil {
				return out, err
			}
			if !may {
				where := ""
				if r.namespace != "" {
					where = " in the namespace " + r.namespace
				}
				out = append(out, Finding{Missing, fmt.Sprintf("You may not %s %s%s.", verb, r.resource, where), "Install as a user with the ClusterRole cluster-admin."})
				break
			}
		}
	}
	return out, nil
}

var review = schema.GroupVersionKind{Group: "authorization.k8s.io", Version: "v1", Kind: "SelfSubjectAccessReview"}

func allowed(ctx context.Context, c *kube.Client, verb, group, resource, namespace string) (bool, error) {
	reviews, err := c.Resource(review, "")
	if err != nil {
		return false, fmt.Errorf("ask for rights: %w", err)
	}
	ask := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"resourceAttributes": map[string]any{
		"verb": verb, "group": group, "resource": resource, "namespace": namespace,
	}}}}
	ask.SetGroupVersionKind(review)
	answer, err := reviews.Create(ctx, ask, createOptions)
	if err != nil {
		return false, fmt.Errorf("ask for rights: %w", err)
	}
	may, _, _ := unstructured.NestedBool(answer.Object, "status", "allowed")
	return may, nil
}

// nodes are looked at as the API server knows them.
func nodes(ctx context.Context, c *kube.Client) ([]Finding, error) {
	all, err := c.List(ctx, schema.GroupKind{Kind: "Node"}, "", "kubernetes.io/os!=windows")
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return []Finding{{Warning, "The cluster has no Linux nodes.", "The control plane waits until there is one."}}, nil
	}
	var out []Finding
	for _, n := range all {
		info := func(key string) string {
			v, _, _ := unstructured.NestedString(n.Object, "status", "nodeInfo", key)
			return v
		}
		if kernel := info("kernelVersion"); older(kernel, leastKernel) {
			out = append(out, Finding{Missing, fmt.Sprintf("Node %s has Linux %s.", n.GetName(), kernel), "Fairlead needs Linux 5.15 or newer: upgrade the node, or keep the agent off it by nodeAgent.nodeSelector; pods there stay outside the mesh."})
		}
		if arch := info("architecture"); arch != "" && arch != "amd64" && arch != "arm64" {
			out = append(out, Finding{Missing, fmt.Sprintf("Node %s is of the architecture %s.", n.GetName(), arch), "There are images for amd64 and arm64: keep the agent off it by nodeAgent.nodeSelector."})
		}
	}
	return out, nil
}
