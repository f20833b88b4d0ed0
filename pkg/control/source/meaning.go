package source

import (
	"fmt"
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// meaning checks what a schema cannot say.
func (c *checker) meaning(node *yaml.Node, value metav1.Object) {
	m := meaning{c, node}
	switch v := value.(type) {
	case *securityv1.AuthorizationPolicy:
		m.authorizationPolicy(v)
	case *securityv1.PeerAuthentication:
		m.peerAuthentication(v)
	case *telemetryv1.Telemetry:
		m.telemetry(v)
	case *networkingv1.ServiceEntry:
		m.serviceEntry(v)
	case *networkingv1.DestinationRule:
		m.destinationRule(v)
	case *networkingv1.VirtualService:
		m.virtualService(v)
	case *gatewayv1.HTTPRoute:
		m.httpRoute(v)
	case *gatewayv1.GRPCRoute:
		m.grpcRoute(v)
	case *gatewayv1.TCPRoute:
		var rules [][]gatewayv1.BackendRef
		for _, r := range v.Spec.Rules {
			rules = append(rules, r.BackendRefs)
		}
		m.connectionRoute(&v.Spec.CommonRouteSpec, rules)
	case *gatewayv1.TLSRoute:
		var rules [][]gatewayv1.BackendRef
		for _, r := range v.Spec.Rules {
			rules = append(rules, r.BackendRefs)
		}
		m.connectionRoute(&v.Spec.CommonRouteSpec, rules)
	case *gatewayv1.ReferenceGrant:
		m.referenceGrant(v)
	case *networkingv1.WorkloadEntry:
		m.workloadEntry("spec", &v.Spec)
	case *corev1.Service:
		m.service(v)
	case *corev1.Pod:
		m.pod(v)
	case *discoveryv1.EndpointSlice:
		m.endpointSlice(v)
	}
}

// meaning adds findings at paths of one object.
type meaning struct {
	c    *checker
	root *yaml.Node
}

// fail adds a finding at a path, and at the line where the path ends as far as
// it is there.
func (m meaning) fail(path, format string, args ...any) {
	m.c.findings = append(m.c.findings, finding{line: lineOfPath(m.root, path), field: path, message: fmt.Sprintf(format, args...)})
}

func (m meaning) warn(path, message string) {
	m.c.findings = append(m.c.findings, finding{line: lineOfPath(m.root, path), field: path, message: message, warning: true})
}

// lineOfPath is where "spec.rules[0].from" is written in a document, or as much of it
// as there is.
func lineOfPath(n *yaml.Node, path string) int {
	line := n.Line
	for _, step := range steps(path) {
		if n = child(n, step); n == nil {
			return line
		}
		line = n.Line
	}
	return line
}

// nodeOfPath is what is at a path, or nil.
func nodeOfPath(n *yaml.Node, path string) *yaml.Node {
	for _, step := range steps(path) {
		if n = child(n, step); n == nil {
			return nil
		}
	}
	return n
}

// child is a mapping's value or a list's element, or nil.
func child(n *yaml.Node, step string) *yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return field(n, step)
	}
	var i int
	if _, err := fmt.Sscanf(step, "%d", &i); err != nil || i < 0 || i >= len(n.Content) {
		return nil
	}
	return n.Content[i]
}

func steps(path string) []string {
	var out []string
	for path != "" {
		if path[0] == '[' {
			end := strings.IndexByte(path, ']')
			if end < 0 {
				return out
			}
			out, path = append(out, path[1:end]), strings.TrimPrefix(path[end+1:], ".")
			continue
		}
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			return append(out, path)
		}
		out = append(out, path[:end])
		if path = path[end:]; path[0] == '.' {
			path = path[1:]
		}
	}
	return out
}

func (m meaning) port(path string, port uint32) {
	if port == 0 || port > 65535 {
		m.fail(path, "port %d is not between 1 and 65535", port)
	}
}

func (m meaning) service(s *corev1.Service) {
	for i, ip := range s.Spec.ClusterIPs {
		m.clusterIP(fmt.Sprintf("spec.clusterIPs[%d]", i), ip)
	}
	m.clusterIP("spec.clusterIP", s.Spec.ClusterIP)
	for i, p := range s.Spec.Ports {
		at := fmt.Sprintf("spec.ports[%d]", i)
		m.port(at+".port", uint32(max(p.Port, 0)))
		if p.TargetPort.Type == intstr.Int && p.TargetPort.IntVal != 0 {
			m.port(at+".targetPort", uint32(max(p.TargetPort.IntVal, 0)))
		}
		if p.Name == "" && len(s.Spec.Ports) > 1 {
			m.fail(at+".name", "a port needs a name where there are several")
		}
	}
}

func (m meaning) pod(p *corev1.Pod) {
	for i, c := range p.Spec.Containers {
		for j, port := range c.Ports {
			m.port(fmt.Sprintf("spec.containers[%d].ports[%d].containerPort", i, j), uint32(max(port.ContainerPort, 0)))
		}
	}
	for i, ip := range p.Status.PodIPs {
		if _, err := netip.ParseAddr(ip.IP); err != nil {
			m.fail(fmt.Sprintf("status.podIPs[%d].ip", i), "%q is not an IP address", ip.IP)
		}
	}
}

func (m meaning) clusterIP(path, ip string) {
	if ip == "" || ip == corev1.ClusterIPNone {
		return
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		m.fail(path, "%q is neither an IP address nor None", ip)
	}
}

func (m meaning) endpointSlice(s *discoveryv1.EndpointSlice) {
	for i, p := range s.Ports {
		if p.Port != nil {
			m.port(fmt.Sprintf("ports[%d].port", i), uint32(max(*p.Port, 0)))
		}
	}
	for i, e := range s.Endpoints {
		for j, a := range e.Addresses {
			if _, err := netip.ParseAddr(a); err != nil && s.AddressType != discoveryv1.AddressTypeFQDN {
				m.fail(fmt.Sprintf("endpoints[%d].addresses[%d]", i, j), "%q is not an IP address", a)
			}
		}
	}
}
