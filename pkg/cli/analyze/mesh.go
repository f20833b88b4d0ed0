package analyze

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// meshConfig is the cluster's mesh configuration with what the installer's files say
// over it, the last file last, as one installation with all of them would.
func (w *world) meshConfig() *meshv1alpha1.MeshConfig {
	out := proto.Clone(w.objects.Mesh).(*meshv1alpha1.MeshConfig)
	for _, d := range w.operators {
		raw, err := json.Marshal(document.At(d.value, "spec", "meshConfig"))
		if err != nil {
			continue
		}
		one := &meshv1alpha1.MeshConfig{}
		// What is unknown in it is the installer's to say.
		if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, one) != nil {
			continue
		}
		proto.Merge(out, one)
	}
	return out
}

// namespaces looks at how namespaces are enrolled, and whether the control plane sees them.
func (w *world) namespaces() {
	hidden := w.undiscovered()
	for _, d := range w.of("", "Namespace") {
		has := texts(document.At(d.value, "metadata", "labels"))
		if has["istio-injection"] == "enabled" && has[dataplaneMode] == "" {
			w.reportAt(Info, InjectionLabel, d, "metadata.labels",
				"istio-injection=enabled enrols nothing: there are no sidecars here. Run 'kubectl label namespace %s %s=ambient' to put its pods into the mesh.", d.Ref.Name, dataplaneMode)
		}
		if !slices.Contains(hidden, d.Ref.Name) {
			continue
		}
		const text = "namespace %s is in the mesh but not discovered: it matches none of the mesh configuration's discoverySelectors"
		from := false
		for _, o := range w.operators {
			if document.At(o.value, "spec", "meshConfig", "discoverySelectors") != nil {
				from = true
				w.reportAt(Warning, NotDiscovered, o, "spec.meshConfig.discoverySelectors", text, d.Ref.Name)
			}
		}
		if !from {
			w.reportAt(Warning, NotDiscovered, d, "metadata.labels", text, d.Ref.Name)
		}
	}
}

const dataplaneMode = "istio.io/dataplane-mode"

// undiscovered are the namespaces that are in the mesh, by a label or because the
// mesh's objects lie in them, and that the control plane is told not to look at.
func (w *world) undiscovered() (out []string) {
	var selectors []labels.Selector
	for _, s := range w.mesh.GetDiscoverySelectors() {
		one := &metav1.LabelSelector{MatchLabels: s.GetMatchLabels()}
		for _, e := range s.GetMatchExpressions() {
			one.MatchExpressions = append(one.MatchExpressions, metav1.LabelSelectorRequirement{Key: e.GetKey(), Operator: metav1.LabelSelectorOperator(e.GetOperator()), Values: e.GetValues()})
		}
		if selector, err := metav1.LabelSelectorAsSelector(one); err == nil {
			selectors = append(selectors, selector)
		}
	}
	if len(selectors) == 0 {
		return nil
	}
	for _, d := range w.of("", "Namespace") {
		has := texts(document.At(d.value, "metadata", "labels"))
		seen := d.Ref.Name == w.objects.Mesh.GetRootNamespace() || slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(labels.Set(has)) })
		if !seen && (has[dataplaneMode] == "ambient" || has["istio-injection"] == "enabled" || w.holdsMeshObjects(d.Ref.Name)) {
			out = append(out, d.Ref.Name)
		}
	}
	return out
}

func (w *world) holdsMeshObjects(namespace string) bool {
	return slices.ContainsFunc(w.documents, func(d *manifest) bool {
		return d.Ref.Namespace == namespace && slices.Contains([]string{networking, security, telemetry}, d.Ref.Group)
	})
}

// stats looks at the statistics that the installer's files ask for beside the usual.
func (w *world) stats() {
	for _, o := range w.operators {
		path := []string{"spec", "meshConfig", "defaultConfig", "proxyStatsMatcher", "inclusionSuffixes"}
		for i, s := range document.List(o.value, path...) {
			suffix := document.Text(s)
			// Envoy's names go on after what they count: upstream_rq_total, _time, _2xx.
			if strings.HasSuffix(suffix, "_rq") || strings.HasSuffix(suffix, "_cx") {
				w.reportAt(Warning, StatsMatchNothing, o, fmt.Sprintf("%s[%d]", strings.Join(path, "."), i),
					"suffix %q matches nothing: statistics of Envoy go on after it; for example %q", suffix, suffix+"_total")
			}
		}
	}
}

// services looks at the names of ports, by which their protocol is known.
func (w *world) services() {
	for _, s := range w.objects.Services {
		// The mesh's own, of its control plane and of waypoints, are known by other means.
		if len(s.Spec.Selector) == 0 || s.Namespace == "kube-system" || s.Namespace == w.objects.Mesh.GetRootNamespace() || s.Labels["gateway.istio.io/managed"] != "" {
			continue
		}
		ref := source.Ref{Kind: "Service", Namespace: s.Namespace, Name: s.Name}
		for i, p := range s.Spec.Ports {
			protocol, _, _ := strings.Cut(strings.ToLower(p.Name), "-")
			if p.Protocol == "UDP" || p.AppProtocol != nil || slices.Contains(protocols, protocol) {
				continue
			}
			w.report(Info, PortName, ref, fmt.Sprintf("spec.ports[%d]", i), "Port name %s (port: %d, targetPort: %s) doesn't follow the naming convention of Istio port.", p.Name, p.Port, p.TargetPort.String())
		}
	}
	for _, e := range w.objects.ServiceEntries {
		if len(e.Spec.GetAddresses()) > 0 || w.objects.Settings.AutoAllocate.IPv4 != "" || w.objects.Settings.AutoAllocate.IPv6 != "" {
			continue
		}
		for i, p := range e.Spec.GetPorts() {
			if strings.EqualFold(p.GetProtocol(), "TCP") || p.GetProtocol() == "" {
				w.report(Warning, AddressesRequired, refOf("ServiceEntry", e), fmt.Sprintf("spec.ports[%d]", i), "ServiceEntry addresses are required for this protocol.")
			}
		}
	}
}

// protocols are what a port's name may begin with.
var protocols = []string{"http", "http2", "https", "tcp", "tls", "grpc", "grpc_web", "grpc-web", "mongo", "mysql", "redis", "udp", "hbone", "http_proxy"}

// annotations finds those of pods that are for sidecars.
func (w *world) annotations() {
	for _, kind := range []source.Ref{{Group: "apps", Kind: "Deployment"}, {Group: "apps", Kind: "StatefulSet"}, {Group: "apps", Kind: "DaemonSet"}} {
		for _, d := range w.of(kind.Group, kind.Kind) {
			all := texts(document.At(d.value, "spec", "template", "metadata", "annotations"))
			for name := range all {
				instead, ok := sidecarAnnotations[name]
				if !ok {
					continue
				}
				w.reportAt(Info, DeprecatedAnnotation, d, "spec.template.metadata.annotations["+name+"]",
					"Annotation %q has been deprecated: it is for sidecars, of which there are none here, and it has no effect. %s", name, instead)
			}
		}
	}
}

// sidecarAnnotations are those of pods, with where the setting lives now.
var sidecarAnnotations = map[string]string{
	"sidecar.istio.io/inject":                       "A pod is in the mesh by the label " + dataplaneMode + "=ambient, its own or its namespace's.",
	"sidecar.istio.io/proxyCPU":                     "CPU is the node agent's (the chart's nodeAgent.resources) and the waypoint's.",
	"sidecar.istio.io/proxyCPULimit":                "CPU is the node agent's (the chart's nodeAgent.resources) and the waypoint's.",
	"sidecar.istio.io/proxyMemory":                  "Memory is the node agent's (the chart's nodeAgent.resources) and the waypoint's.",
	"sidecar.istio.io/proxyMemoryLimit":             "Memory is the node agent's (the chart's nodeAgent.resources) and the waypoint's.",
	"sidecar.istio.io/proxyImage":                   "Pods have no proxy of their own.",
	"sidecar.istio.io/rewriteAppHTTPProbers":        "Probes of the kubelet pass in every mode of mutual TLS.",
	"traffic.sidecar.istio.io/excludeInboundPorts":  "Ports are not excluded: a PeerAuthentication's portLevelMtls says which take plaintext.",
	"traffic.sidecar.istio.io/excludeOutboundPorts": "What is outside the mesh passes unchanged.",
	"proxy.istio.io/config":                         "Proxies are configured by the mesh configuration and by the waypoint's Gateway.",
}
