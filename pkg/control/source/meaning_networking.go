package source

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-mesh/fairlead/pkg/suggest"
)

// protocols are what a ServiceEntry's port may say it speaks.
var protocols = []string{"HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "HTTP_PROXY", "MONGO", "MYSQL", "REDIS", "TCP", "TLS", "UDP", "HBONE", "DOUBLE_HBONE", "SSH"}

func (m meaning) serviceEntry(e *networkingv1.ServiceEntry) {
	s := &e.Spec
	if len(s.Hosts) == 0 {
		m.fail("spec.hosts", "a ServiceEntry needs at least one host")
	}
	for i, h := range s.Hosts {
		if err := hostError(h); err != "" {
			m.fail(fmt.Sprintf("spec.hosts[%d]", i), "%q: %s", h, err)
		}
	}
	if len(s.Ports) == 0 {
		m.fail("spec.ports", "a ServiceEntry needs at least one port")
	}
	names, numbers := map[string]bool{}, map[uint32]bool{}
	for i, p := range s.Ports {
		at := fmt.Sprintf("spec.ports[%d]", i)
		m.port(at+".number", p.GetNumber())
		if p.GetTargetPort() != 0 {
			m.port(at+".targetPort", p.GetTargetPort())
		}
		if p.GetName() == "" {
			m.fail(at+".name", "a port needs a name")
		}
		if names[p.GetName()] || numbers[p.GetNumber()] {
			m.fail(at, "a port with the same name or number stands before")
		}
		names[p.GetName()], numbers[p.GetNumber()] = true, true
		if p.GetProtocol() != "" && !slices.Contains(protocols, strings.ToUpper(p.GetProtocol())) {
			m.fail(at+".protocol", "%q is not one of %s%s", p.GetProtocol(), strings.Join(protocols, ", "), suggest.DidYouMean(p.GetProtocol(), protocols))
		}
	}
	for i, a := range s.Addresses {
		if _, err := ParseBlock(a); err != nil {
			m.fail(fmt.Sprintf("spec.addresses[%d]", i), "%v", err)
		}
	}
	m.endpoints(s, names)
	if len(s.ExportTo) > 0 && !slices.Equal(s.ExportTo, []string{"*"}) {
		m.warn("spec.exportTo", "has no effect on the nodes: the host is visible to every namespace, as with istiod")
	}
}

func (m meaning) endpoints(s *networkingapi.ServiceEntry, ports map[string]bool) {
	if s.WorkloadSelector != nil && len(s.Endpoints) > 0 {
		m.fail("spec.workloadSelector", "only one of workloadSelector and endpoints can be set")
	}
	switch s.Resolution {
	case networkingapi.ServiceEntry_NONE:
		if len(s.Endpoints) > 0 {
			m.fail("spec.endpoints", "resolution NONE takes no endpoints: the address called is the address used")
		}
	case networkingapi.ServiceEntry_DNS, networkingapi.ServiceEntry_DNS_ROUND_ROBIN:
		for i, h := range s.Hosts {
			if strings.Contains(h, "*") && len(s.Endpoints) == 0 {
				m.fail(fmt.Sprintf("spec.hosts[%d]", i), "%q cannot be looked up: give endpoints, or use resolution NONE or DYNAMIC_DNS", h)
			}
		}
		if s.Resolution == networkingapi.ServiceEntry_DNS_ROUND_ROBIN && len(s.Endpoints) > 1 {
			m.fail("spec.endpoints", "resolution DNS_ROUND_ROBIN takes at most one endpoint")
		}
	}
	for i, e := range s.Endpoints {
		at := fmt.Sprintf("spec.endpoints[%d]", i)
		m.workloadEntry(at, e)
		for name := range e.GetPorts() {
			if !ports[name] {
				m.fail(at+".ports", "port %q is not a port of this ServiceEntry", name)
			}
		}
		if _, err := netip.ParseAddr(e.GetAddress()); err != nil && s.Resolution == networkingapi.ServiceEntry_STATIC && !strings.HasPrefix(e.GetAddress(), "unix://") {
			m.fail(at+".address", "%q is not an IP address, which resolution STATIC wants", e.GetAddress())
		}
	}
}

func (m meaning) workloadEntry(at string, e *networkingapi.WorkloadEntry) {
	switch {
	case e.GetAddress() == "" && e.GetNetwork() == "":
		m.fail(at+".address", "an address is needed")
	case e.GetAddress() == "" || strings.HasPrefix(e.GetAddress(), "unix:///"):
	default:
		if _, err := netip.ParseAddr(e.GetAddress()); err != nil {
			if msg := hostError(e.GetAddress()); msg != "" || strings.Contains(e.GetAddress(), "*") {
				m.fail(at+".address", "%q is neither an IP address nor a host name", e.GetAddress())
			}
		}
	}
	for name, port := range e.GetPorts() {
		m.port(fmt.Sprintf("%s.ports.%s", at, name), port)
	}
	for key := range e.GetLabels() {
		if errs := validation.IsQualifiedName(key); len(errs) > 0 {
			m.fail(at+".labels", "%q: %s", key, errs[0])
		}
	}
}

// hostError says what is wrong with a host name, whose first label may be *.
func hostError(h string) string {
	if h == "*" {
		return "a host of * alone is not allowed"
	}
	name := strings.TrimPrefix(h, "*.")
	if len(h) > 253 || name == "" {
		return "not a host name"
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if errs := validation.IsDNS1123Label(strings.ToLower(label)); len(errs) > 0 {
			return fmt.Sprintf("label %q: %s", label, errs[0])
		}
	}
	return ""
}
