package analyze

import (
	"fmt"
	"slices"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

// sidecars finds settings that workloads lose because their own Sidecar takes the place
// of their namespace's as a whole.
func (w *world) sidecars() {
	all := w.of(networking, "Sidecar")
	for _, d := range all {
		labels := texts(document.At(d.value, "spec", "workloadSelector", "labels"))
		if len(labels) == 0 {
			continue
		}
		for _, o := range all {
			wide := document.At(o.value, "spec", "workloadSelector") == nil
			if !wide || o.Ref.Namespace != d.Ref.Namespace || document.At(o.value, "spec", "outboundTrafficPolicy") == nil || document.At(d.value, "spec", "outboundTrafficPolicy") != nil {
				continue
			}
			w.reportAt(Info, SidecarDropsPolicy, d, "spec",
				"takes the place of Sidecar %s/%s as a whole for workloads with %s: its outboundTrafficPolicy %s no longer holds for them, the mesh's %s does",
				o.Ref.Namespace, o.Ref.Name, pairs(labels), document.Text(o.value, "spec", "outboundTrafficPolicy", "mode"), w.mesh.GetOutboundTrafficPolicy().GetMode())
		}
	}
}

// relative are operations whose outcome depends on what other filters did before.
var relative = []string{"INSERT_BEFORE", "INSERT_AFTER", "REPLACE", "MERGE", "REMOVE"}

func (w *world) envoyFilters() {
	for _, d := range w.of(networking, "EnvoyFilter") {
		priority := document.At(d.value, "spec", "priority") != nil
		for i, p := range document.List(d.value, "spec", "configPatches") {
			field := fmt.Sprintf("spec.configPatches[%d]", i)
			operation, applyTo := document.Text(p, "patch", "operation"), document.Text(p, "applyTo")
			if !priority && slices.Contains(relative, operation) && operation != "MERGE" && operation != "REMOVE" {
				w.reportAt(Warning, RelativeOperation, d, field+".patch.operation",
					"This EnvoyFilter does not have a priority and has a relative patch operation set which can cause the EnvoyFilter not to be applied. Using the INSERT_FIRST or ADD option or setting the priority may help in ensuring the EnvoyFilter is applied correctly.")
			}
			if operation == "REPLACE" && applyTo != "HTTP_FILTER" && applyTo != "NETWORK_FILTER" {
				w.reportAt(Error, ReplaceUsedWrongly, d, field+".patch.operation", "The REPLACE operation is only valid for HTTP_FILTER and NETWORK_FILTER.")
			}
			if version := document.Text(p, "match", "proxy", "proxyVersion"); version != "" {
				w.reportAt(Warning, ProxyVersionIgnored, d, field+".match.proxy.proxyVersion",
					"proxyVersion %s names releases of Istio's proxies: a proxy of another release is left out without a word, and the limit or change is gone after an upgrade", version)
			}
		}
	}
}
