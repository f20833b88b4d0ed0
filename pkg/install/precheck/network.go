package precheck

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
	"github.com/fairlead-mesh/fairlead/pkg/install/plan"
)

const system = chart.Namespace

var createOptions = metav1.CreateOptions{}

var (
	configMap  = schema.GroupKind{Kind: "ConfigMap"}
	deployment = schema.GroupKind{Group: "apps", Kind: "Deployment"}
	daemonSet  = schema.GroupKind{Group: "apps", Kind: "DaemonSet"}
	mutating   = schema.GroupKind{Group: "admissionregistration.k8s.io", Kind: "MutatingWebhookConfiguration"}
	definition = schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
)

// network are settings of CNIs that take a connection before the mesh sees it.
func network(ctx context.Context, c *kube.Client) ([]Finding, error) {
	var out []Finding
	cilium, err := c.Get(ctx, configMap, "kube-system", "cilium-config")
	if err != nil {
		return nil, err
	}
	if cilium != nil {
		set, _, _ := unstructured.NestedStringMap(cilium.Object, "data")
		replaces := set["kube-proxy-replacement"] == "true" || set["kube-proxy-replacement"] == "strict"
		if (replaces || set["bpf-lb-sock"] == "true") && set["bpf-lb-sock-hostns-only"] != "true" {
			out = append(out, Finding{Missing, "Cilium chooses a service's endpoint at connect(), before the mesh sees the service.", "Set socketLB.hostNamespaceOnly=true in Cilium's values."})
		}
		if set["cni-exclusive"] == "true" {
			out = append(out, Finding{Missing, "Cilium takes other CNI plugins out of the nodes' configuration.", "Set cni.exclusive=false in Cilium's values."})
		}
	}
	felix, err := c.Get(ctx, schema.GroupKind{Group: "crd.projectcalico.org", Kind: "FelixConfiguration"}, "", "default")
	if err != nil {
		return nil, err
	}
	if felix != nil {
		bpf, _, _ := unstructured.NestedBool(felix.Object, "spec", "bpfEnabled")
		balances, _, _ := unstructured.NestedString(felix.Object, "spec", "bpfConnectTimeLoadBalancing")
		if bpf && balances != "Disabled" {
			out = append(out, Finding{Missing, "Calico's BPF data plane chooses a service's endpoint at connect(), before the mesh sees the service.", "Set bpfConnectTimeLoadBalancing: Disabled in the FelixConfiguration default."})
		}
	}
	return out, nil
}

// others are the meshes that are known by what they run.
var others = []struct {
	kind   schema.GroupKind
	labels string
	what   string
	remedy string
}{
	{deployment, "app=istiod", "Istio's control plane", "Take Istio away with `istioctl uninstall`; its objects serve here as they are."},
	{daemonSet, "k8s-app=istio-cni-node", "Istio's CNI agent, which captures pods as well", "Take it away with `istioctl uninstall`, or delete the DaemonSet: it restores the nodes' CNI configuration when it goes."},
	{daemonSet, "app=ztunnel", "Istio's ztunnel", "Take Istio away with `istioctl uninstall`."},
	{deployment, "linkerd.io/control-plane-component=destination", "Linkerd", "Namespaces may be in one mesh each: do not label those that Linkerd injects."},
	{deployment, "app.kubernetes.io/name=kuma", "Kuma", "Namespaces may be in one mesh each: do not label those that Kuma injects."},
	{deployment, "app=consul,component=connect-injector", "Consul", "Namespaces may be in one mesh each: do not label those that Consul injects."},
}

// meshes are other meshes in the cluster.
func meshes(ctx context.Context, c *kube.Client) ([]Finding, error) {
	var out []Finding
	for _, o := range others {
		found, err := c.List(ctx, o.kind, "", o.labels)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			if f.GetLabels()[plan.Label] != "" {
				continue // our own
			}
			level := Warning
			if strings.HasPrefix(o.what, "Istio") {
				level = Missing // it wants the same names
			}
			out = append(out, Finding{level, fmt.Sprintf("%s is %s.", plan.Name(f), o.what), o.remedy})
		}
	}
	hooks, err := c.List(ctx, mutating, "", "")
	if err != nil {
		return nil, err
	}
	for _, h := range hooks {
		if strings.HasPrefix(h.GetName(), "istio-sidecar-injector") || strings.HasPrefix(h.GetName(), "istio-revision-tag") {
			out = append(out, Finding{Warning, fmt.Sprintf("%s puts sidecars into new pods of labelled namespaces.", plan.Name(h)), "A pod with a sidecar is left alone: take the label istio-injection away where the mesh is to be, then the webhook."})
		}
	}
	return out, nil
}

// leastGateway is the first release of the Gateway API whose kinds are as they are served.
const leastGateway = "v1.1.0"

// definitions are those of the Gateway API that are there already and stay.
func definitions(ctx context.Context, c *kube.Client) ([]Finding, error) {
	all, err := c.List(ctx, definition, "", "")
	if err != nil {
		return nil, err
	}
	var old []string
	for _, d := range all {
		bundle := d.GetAnnotations()["gateway.networking.k8s.io/bundle-version"]
		if bundle != "" && d.GetLabels()[plan.Label] == "" && older(bundle, leastGateway) {
			old = append(old, d.GetName()+" "+bundle)
		}
	}
	if len(old) == 0 {
		return nil, nil
	}
	slices.Sort(old)
	return []Finding{{Missing, "Definitions of the Gateway API are of an old release: " + strings.Join(old, ", ") + ".", "Upgrade the Gateway API to " + leastGateway + " or newer; what is there is left to who installed it."}}, nil
}

// namespace is whether pods of the mesh may be what they have to be.
func namespace(ctx context.Context, c *kube.Client) ([]Finding, error) {
	ns, err := c.Get(ctx, schema.GroupKind{Kind: "Namespace"}, "", system)
	if err != nil || ns == nil {
		return nil, err
	}
	const enforce = "pod-security.kubernetes.io/enforce"
	if level := ns.GetLabels()[enforce]; level != "" && level != "privileged" {
		return []Finding{{Missing, fmt.Sprintf("The namespace %s is labelled %s=%s, and the node agent mounts directories of its node.", system, enforce, level),
			fmt.Sprintf("Label it privileged: kubectl label namespace %s %s=privileged --overwrite.", system, enforce)}}, nil
	}
	return nil, nil
}
