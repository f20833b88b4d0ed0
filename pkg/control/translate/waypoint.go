package translate

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// The labels that bind traffic to waypoints.
const (
	labelUseWaypoint          = "istio.io/use-waypoint"
	labelUseWaypointNamespace = "istio.io/use-waypoint-namespace"
	labelWaypointFor          = "istio.io/waypoint-for"
	labelIngressUseWaypoint   = "istio.io/ingress-use-waypoint"

	waypointNone    = "none"
	trafficService  = "service"
	trafficWorkload = "workload"
	trafficAll      = "all"

	protocolHBONE = "HBONE"
	classWaypoint = "istio-waypoint"
	hbonePort     = 15008
)

// waypoint is a Gateway that takes traffic of the mesh.
type waypoint struct {
	gateway *gatewayv1.Gateway
	address *workloadapi.GatewayAddress // nil: not ready
	traffic string
}

// where is the waypoint's address, nil for no waypoint.
func (p *waypoint) where() *workloadapi.GatewayAddress {
	if p == nil {
		return nil
	}
	return p.address
}

func findWaypoints(w *world) map[string]*waypoint {
	found := map[string]*waypoint{}
	for _, g := range w.Gateways {
		if !isWaypoint(g) {
			continue
		}
		traffic := g.Labels[labelWaypointFor]
		if traffic == "" {
			traffic = trafficService
		}
		p := &waypoint{gateway: g, address: w.gatewayAddress(g), traffic: traffic}
		found[g.Namespace+"/"+g.Name] = p
		w.gatewayStatus(p)
	}
	return found
}

func isWaypoint(g *gatewayv1.Gateway) bool {
	return g.Spec.GatewayClassName == classWaypoint || slices.ContainsFunc(g.Spec.Listeners, func(l gatewayv1.Listener) bool { return l.Protocol == protocolHBONE })
}

// gatewayAddress is where a waypoint is reached: the Service that carries its
// name, else what its status says. Without either it is not ready.
func (w *world) gatewayAddress(g *gatewayv1.Gateway) *workloadapi.GatewayAddress {
	if s := w.gatewayService(g); s != nil {
		return gatewayHostname(g.Namespace, w.kubeHostname(s))
	}
	for _, a := range g.Status.Addresses {
		if a.Type != nil && *a.Type == gatewayv1.HostnameAddressType {
			return gatewayHostname(g.Namespace, a.Value)
		}
	}
	for _, a := range g.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Value); err == nil {
			return &workloadapi.GatewayAddress{HboneMtlsPort: hbonePort, Destination: &workloadapi.GatewayAddress_Address{Address: w.networkAddress(ip)}}
		}
	}
	return nil
}

func gatewayHostname(namespace, hostname string) *workloadapi.GatewayAddress {
	return &workloadapi.GatewayAddress{HboneMtlsPort: hbonePort, Destination: &workloadapi.GatewayAddress_Hostname{
		Hostname: &workloadapi.NamespacedHostname{Namespace: namespace, Hostname: hostname}}}
}

// wanted is the waypoint that an object's labels name, or its namespace's.
func (w *world) wanted(meta metav1.ObjectMeta) (namespace, name string, own bool) {
	set := meta.Labels
	own = true
	if _, ok := set[labelUseWaypoint]; !ok {
		set, own = w.namespace(meta.Namespace).Labels, false
	}
	if name = set[labelUseWaypoint]; name == "" || name == waypointNone {
		return "", "", own
	}
	if namespace = set[labelUseWaypointNamespace]; namespace == "" {
		namespace = meta.Namespace
	}
	return namespace, name, own
}

// bind resolves an object's waypoint, and says on the object how that went. The
// waypoint is ready; nil is none.
func (w *world) bind(object status.Object, meta metav1.ObjectMeta, traffic string) *waypoint {
	namespace, name, own := w.wanted(meta)
	if name == "" {
		return nil
	}
	key := namespace + "/" + name
	refuse := func(reason, format string, args ...any) *waypoint {
		w.bound(object, "False", reason, fmt.Sprintf(format, args...))
		return nil
	}
	wp := w.waypoints[key]
	switch {
	case wp == nil || wp.address == nil:
		return refuse("WaypointIsNotReady", "waypoint %q is not ready", key)
	case !w.allows(wp.gateway, meta.Namespace):
		return refuse("AttachmentDenied", "waypoint %q does not allow namespace %q to attach: see its listeners' allowedRoutes", key, meta.Namespace)
	case wp.traffic != traffic && wp.traffic != trafficAll:
		if traffic == trafficWorkload && !own {
			return nil // the namespace's waypoint is simply not for workloads
		}
		return refuse("UnsupportedTrafficType", "attempting to bind to traffic type %q which the waypoint %q does not support", traffic, key)
	}
	message := "Successfully attached to waypoint " + key
	if traffic == trafficService && w.ingressUsesWaypoint(meta) {
		message += ". Ingress traffic will traverse the waypoint"
	}
	w.bound(object, "True", "WaypointAccepted", message)
	return wp
}

func (w *world) bound(object status.Object, state, reason, message string) {
	if object.Kind == "Pod" {
		return // too many and too short-lived to be told
	}
	w.condition(object, status.Condition{Type: status.WaypointBound, Status: state, Reason: reason, Message: message})
}

// allows tells whether a waypoint takes the traffic of a namespace, as its first
// listener for tunnels says: without a word, of its own. A selector must select the
// waypoint's own namespace, too.
func (w *world) allows(g *gatewayv1.Gateway, namespace string) bool {
	from, selected := gatewayv1.NamespacesFromSame, (*metav1.LabelSelector)(nil)
	for _, l := range g.Spec.Listeners {
		if l.Protocol != protocolHBONE {
			continue
		}
		if l.AllowedRoutes != nil && l.AllowedRoutes.Namespaces != nil && l.AllowedRoutes.Namespaces.From != nil {
			from, selected = *l.AllowedRoutes.Namespaces.From, l.AllowedRoutes.Namespaces.Selector
		}
		break
	}
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(selected)
		set := labels.Merge(labels.Set{corev1.LabelMetadataName: namespace}, w.namespace(namespace).Labels)
		return err == nil && selector.Matches(set)
	}
	return namespace == g.Namespace
}

func (w *world) ingressUsesWaypoint(meta metav1.ObjectMeta) bool {
	if v, ok := meta.Labels[labelIngressUseWaypoint]; ok {
		return v == "true"
	}
	return w.namespace(meta.Namespace).Labels[labelIngressUseWaypoint] == "true"
}
