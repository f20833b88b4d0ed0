package translate

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// gatewayService is the Service that carries a waypoint's name, or nil: there is none
// with an address.
func (w *world) gatewayService(g *gatewayv1.Gateway) *corev1.Service {
	for _, s := range w.Services {
		if s.Namespace == g.Namespace && s.Labels[labelGatewayName] == g.Name && len(clusterIPs(s)) > 0 {
			return s
		}
	}
	return nil
}

// GatewayObject names a Gateway in statuses.
func GatewayObject(namespace, name string) status.Object {
	return status.Object{APIVersion: gatewayv1.GroupVersion.String(), Kind: "Gateway", Namespace: namespace, Name: name}
}

// gatewayStatus says of a waypoint whether it can be reached, and where, in the words
// of the Gateway API and of istiod.
func (w *world) gatewayStatus(p *waypoint) {
	g := p.gateway
	s := w.status(GatewayObject(g.Namespace, g.Name))
	s.Set(status.Condition{Type: status.RouteAccepted, Status: "True", Reason: string(gatewayv1.GatewayReasonAccepted), Message: "Resource accepted"})
	s.Set(status.Condition{Type: status.RouteResolvedRefs, Status: "True", Reason: string(gatewayv1.ListenerReasonResolvedRefs), Message: "All references resolved"})
	programmed := status.Condition{
		Type: status.Programmed, Status: "False", Reason: string(gatewayv1.GatewayReasonAddressNotAssigned),
		Message: "No Service with an address has the label " + labelGatewayName + "=" + g.Name + ": traffic does not go through this waypoint yet",
	}
	if service := w.gatewayService(g); service != nil {
		host := w.kubeHostname(service)
		s.Addresses = []status.Address{{Type: string(gatewayv1.HostnameAddressType), Value: host}}
		for _, ip := range clusterIPs(service) {
			s.Addresses = append(s.Addresses, status.Address{Type: string(gatewayv1.IPAddressType), Value: ip})
		}
		programmed.Status, programmed.Reason = "True", string(gatewayv1.GatewayReasonProgrammed)
		programmed.Message = "Resource programmed, assigned to service(s) " + host + ":" + listenerPorts(g)
	} else if p.address != nil { // what the status said before is still where it is
		programmed.Status, programmed.Reason, programmed.Message = "True", string(gatewayv1.GatewayReasonProgrammed), "Resource programmed, at the addresses of its status"
	}
	s.Set(programmed)
	for _, l := range g.Spec.Listeners {
		s.Listeners = append(s.Listeners, listenerStatus(l))
	}
}

// listenerPorts are those of a waypoint's listeners.
func listenerPorts(g *gatewayv1.Gateway) string {
	var out []string
	for _, l := range g.Spec.Listeners {
		out = append(out, fmt.Sprint(l.Port))
	}
	return strings.Join(out, ",")
}

// listenerStatus is of one listener. Routes are attached to services, so none is to it.
func listenerStatus(l gatewayv1.Listener) status.Listener {
	out := status.Listener{Name: string(l.Name), SupportedKinds: []status.Kind{}}
	set := func(kind gatewayv1.ListenerConditionType, state, reason, message string) {
		out.Set(status.Condition{Type: string(kind), Status: state, Reason: reason, Message: message})
	}
	const fine = "No errors found"
	set(gatewayv1.ListenerConditionConflicted, "False", string(gatewayv1.ListenerReasonNoConflicts), fine)
	set(gatewayv1.ListenerConditionResolvedRefs, "True", string(gatewayv1.ListenerReasonResolvedRefs), fine)
	if l.Protocol != protocolHBONE {
		message := fmt.Sprintf("protocol %s: a waypoint takes %s alone", l.Protocol, protocolHBONE)
		set(gatewayv1.ListenerConditionAccepted, "False", string(gatewayv1.ListenerReasonUnsupportedProtocol), message)
		set(gatewayv1.ListenerConditionProgrammed, "False", string(gatewayv1.ListenerReasonInvalid), message)
		return out
	}
	set(gatewayv1.ListenerConditionAccepted, "True", string(gatewayv1.ListenerReasonAccepted), fine)
	set(gatewayv1.ListenerConditionProgrammed, "True", string(gatewayv1.ListenerReasonProgrammed), fine)
	return out
}
