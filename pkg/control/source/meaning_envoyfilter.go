package source

import (
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoregistry"

	networkingapi "istio.io/api/networking/v1alpha3"

	// What filters people add by EnvoyFilter; the registry then knows their fields.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
)

func (m meaning) envoyFilter(f *networkingapi.EnvoyFilter) {
	for i, p := range f.GetConfigPatches() {
		at := fmt.Sprintf("spec.configPatches[%d]", i)
		removes := p.GetPatch().GetOperation() == networkingapi.EnvoyFilter_Patch_REMOVE
		switch {
		case p.GetApplyTo() == networkingapi.EnvoyFilter_INVALID:
			m.fail(at+".applyTo", "a patch needs what it applies to, such as HTTP_FILTER")
		case p.GetPatch() == nil || p.GetPatch().GetOperation() == networkingapi.EnvoyFilter_Patch_INVALID:
			m.fail(at+".patch.operation", "a patch needs an operation, such as INSERT_BEFORE")
		case !removes && p.GetPatch().GetValue() == nil:
			m.fail(at+".patch.value", "a patch that does not REMOVE needs a value")
		}
		if version := p.GetMatch().GetProxy().GetProxyVersion(); version != "" {
			if _, err := regexp.Compile(version); err != nil {
				m.fail(at+".match.proxy.proxyVersion", "%v", err)
			}
		}
		m.patchMatch(at, p)
		m.typedConfig(at + ".patch.value.typed_config")
	}
}

// patchMatch holds that a patch matches the kind of object that it applies to.
func (m meaning) patchMatch(at string, p *networkingapi.EnvoyFilter_EnvoyConfigObjectPatch) {
	match := p.GetMatch()
	if match.GetObjectTypes() == nil {
		return
	}
	of, want := "", true
	switch p.GetApplyTo() {
	case networkingapi.EnvoyFilter_LISTENER, networkingapi.EnvoyFilter_FILTER_CHAIN, networkingapi.EnvoyFilter_NETWORK_FILTER, networkingapi.EnvoyFilter_HTTP_FILTER:
		of, want = "listener", match.GetListener() != nil
	case networkingapi.EnvoyFilter_ROUTE_CONFIGURATION, networkingapi.EnvoyFilter_VIRTUAL_HOST, networkingapi.EnvoyFilter_HTTP_ROUTE:
		of, want = "routeConfiguration", match.GetRouteConfiguration() != nil
	case networkingapi.EnvoyFilter_CLUSTER:
		of, want = "cluster", match.GetCluster() != nil
	}
	if !want {
		m.fail(at+".match", "what applies to %s can match by %s alone", p.GetApplyTo(), of)
	}
}

// typedConfig looks into a filter's configuration where its type is known. What is
// wrong in a TypedStruct is a warning: Envoy takes it, with its zero value.
func (m meaning) typedConfig(at string) {
	node := nodeOfPath(m.root, at)
	url, hidden := text(field(node, "@type")), false
	if strings.HasSuffix(url, ".TypedStruct") { // udpa.type.v1 and xds.type.v3 hide the filter's own type
		url, hidden = text(field(node, "type_url")), true
		node, at = field(node, "value"), at+".value"
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	if err != nil || node == nil {
		return // not a filter that we know
	}
	before := len(m.c.findings)
	m.c.message(withoutType(node), kind.Descriptor(), at)
	for i := before; hidden && i < len(m.c.findings); i++ {
		m.c.findings[i].warning = true
		m.c.findings[i].unknown = false
		m.c.findings[i].message += " (Envoy takes it as the type's zero value)"
	}
}

// withoutType is a message as JSON has it in an Any, without the type's own key.
func withoutType(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return n
	}
	out := *n
	out.Content = nil
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != "@type" {
			out.Content = append(out.Content, n.Content[i], n.Content[i+1])
		}
	}
	return &out
}
