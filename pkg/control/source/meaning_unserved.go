package source

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	extensionsapi "istio.io/api/extensions/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"
	securityapi "istio.io/api/security/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// unservedMeaning checks the meaning of an object of a kind that is checked and not
// served: what is refused there on Istio is refused here.
func (c *checker) unservedMeaning(node *yaml.Node, spec protoreflect.MessageDescriptor) {
	m := meaning{c, node}
	body := field(node, "spec")
	if body == nil {
		return
	}
	message, err := decodeSpec(body, spec)
	if err != nil {
		m.fail("spec", "cannot be decoded: %v", err)
		return
	}
	switch s := message.(type) {
	case *networkingapi.Sidecar:
		m.sidecar(s)
	case *networkingapi.EnvoyFilter:
		m.envoyFilter(s)
	case *securityapi.RequestAuthentication:
		m.requestAuthentication(s)
	case *extensionsapi.WasmPlugin:
		m.wasmPlugin(s)
	}
}

func decodeSpec(body *yaml.Node, spec protoreflect.MessageDescriptor) (proto.Message, error) {
	raw, err := toJSON(body)
	if err != nil {
		return nil, err
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(spec.FullName())
	if err != nil {
		return nil, err
	}
	message := kind.New().Interface()
	return message, protojson.Unmarshal(raw, message)
}

func (m meaning) sidecar(s *networkingapi.Sidecar) {
	if len(s.GetEgress())+len(s.GetIngress()) == 0 && s.GetOutboundTrafficPolicy() == nil && s.GetInboundConnectionPool() == nil {
		m.fail("spec", "a Sidecar needs egress, ingress, outboundTrafficPolicy or inboundConnectionPool")
	}
	for i, e := range s.GetEgress() {
		at := fmt.Sprintf("spec.egress[%d]", i)
		if e.GetPort() == nil && i < len(s.GetEgress())-1 {
			m.fail(at, "a listener without a port takes what the others do not, so it must be the last")
		}
		if len(e.GetHosts()) == 0 {
			m.fail(at+".hosts", "a listener needs hosts, such as \"./*\"")
		}
		for j, h := range e.GetHosts() {
			m.scopedHost(fmt.Sprintf("%s.hosts[%d]", at, j), h)
		}
	}
}

// scopedHost is "namespace/dnsName" of a Sidecar, where the namespace may be *, ., or ~.
func (m meaning) scopedHost(at, scoped string) {
	namespace, host, ok := strings.Cut(scoped, "/")
	switch {
	case !ok:
		m.fail(at, `%q: want namespace/dnsName, such as "./%s" or "*/%s"`, scoped, scoped, scoped)
		return
	case namespace == "*" || namespace == "." || namespace == "~":
	case len(validation.IsDNS1123Label(namespace)) > 0:
		m.fail(at, "%q is not the name of a namespace", namespace)
	}
	switch {
	case host == "*":
	case host == "":
		m.fail(at, "%q: want a host after the namespace", scoped)
	case !strings.Contains(host, "."):
		where := namespace
		if where == "." || where == "*" {
			where = cmp.Or(text(field(field(m.root, "metadata"), "namespace")), metav1.NamespaceDefault)
		}
		m.fail(at, "%q is a short name. Write %q", host, fmt.Sprintf("%s/%s.%s.svc.cluster.local", namespace, host, where))
	default:
		if err := hostError(host); err != "" {
			m.fail(at, "%q: %s", host, err)
		}
	}
}

func (m meaning) requestAuthentication(r *securityapi.RequestAuthentication) {
	for i, rule := range r.GetJwtRules() {
		at := fmt.Sprintf("spec.jwtRules[%d]", i)
		if rule.GetIssuer() == "" {
			m.fail(at+".issuer", "a rule needs the issuer of its tokens")
		}
		if rule.GetJwks() != "" && rule.GetJwksUri() != "" {
			m.fail(at+".jwksUri", "cannot be set together with jwks")
		}
		if uri := rule.GetJwksUri(); uri != "" && !strings.HasPrefix(uri, "https://") && !strings.HasPrefix(uri, "http://") {
			m.fail(at+".jwksUri", "%q is not an http or https URL", uri)
		}
	}
}

var sha256Text = regexp.MustCompile(`^[a-f0-9]{64}$`)

func (m meaning) wasmPlugin(w *extensionsapi.WasmPlugin) {
	if w.GetUrl() == "" {
		m.fail("spec.url", "a plugin needs the url of its module")
	}
	if sum := w.GetSha256(); sum != "" && !sha256Text.MatchString(sum) {
		m.fail("spec.sha256", "%q is not 64 hexadecimal digits", sum)
	}
	for i, e := range w.GetVmConfig().GetEnv() {
		if e.GetValue() != "" && e.GetValueFrom() != extensionsapi.EnvValueSource_INLINE {
			m.fail(fmt.Sprintf("spec.vmConfig.env[%d].value", i), "may only be set when valueFrom is INLINE")
		}
	}
}
