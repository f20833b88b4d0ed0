package translate

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// service is a service with what finds its endpoints.
type service struct {
	wire     *workloadapi.Service
	key      string // "namespace/hostname"
	selector map[string]string
	waypoint *waypoint                   // or nil
	kube     *corev1.Service             // or nil
	entry    *networkingapi.ServiceEntry // or nil
	object   *networkingv1.ServiceEntry  // of entry
	ports    []model.Port                // as wire.Ports
}

// The annotations and labels that services are read for.
const (
	annotationTrafficDistribution = "networking.istio.io/traffic-distribution"
	labelManaged                  = "gateway.istio.io/managed"
	managedWaypoint               = "istio.io-mesh-controller"
	labelGatewayName              = "gateway.networking.k8s.io/gateway-name"
)

func kubeServices(w *world) []*service {
	var out []*service
	for _, s := range w.Services {
		if served(s) {
			out = append(out, w.kubeService(s))
		}
	}
	return out
}

// served tells whether a Service is one of the mesh: it is more than another name.
func served(s *corev1.Service) bool { return s.Spec.Type != corev1.ServiceTypeExternalName }

func (w *world) kubeHostname(s *corev1.Service) string {
	return s.Name + "." + s.Namespace + ".svc." + w.Settings.ClusterDomain
}

// kubeKey is the key of the service that a Service is.
func (w *world) kubeKey(s *corev1.Service) string { return s.Namespace + "/" + w.kubeHostname(s) }

func (w *world) kubeService(s *corev1.Service) *service {
	wire := &workloadapi.Service{
		Name: s.Name, Namespace: s.Namespace, Hostname: w.kubeHostname(s),
		IpFamilies: w.ipFamilies(s), Canonical: true,
		LoadBalancing: w.kubeLoadBalancing(s),
	}
	for _, text := range clusterIPs(s) {
		if a, err := netip.ParseAddr(text); err == nil {
			wire.Addresses = append(wire.Addresses, w.networkAddress(a))
		}
	}
	var ports []model.Port
	for _, p := range s.Spec.Ports {
		if carried(p.Protocol) {
			protocol := kubeProtocol(p)
			ports = append(ports, model.Port{Name: p.Name, Number: uint32(p.Port), Protocol: protocol})
			wire.Ports = append(wire.Ports, &workloadapi.Port{ServicePort: uint32(p.Port), TargetPort: numericTarget(p), AppProtocol: wireProtocol(protocol)})
		}
	}
	var bound *waypoint
	if s.Labels[labelManaged] != managedWaypoint {
		bound = w.bind(serviceObject(s), s.ObjectMeta, trafficService)
		wire.Waypoint = bound.where()
		wire.IngressUseWaypoint = wire.Waypoint != nil && w.ingressUsesWaypoint(s.ObjectMeta)
	}
	return &service{wire: wire, key: serviceName(wire), selector: s.Spec.Selector, waypoint: bound, kube: s, ports: ports}
}

// carried tells whether the mesh carries a port's protocol: TCP, also unsaid.
func carried(p corev1.Protocol) bool { return p == "" || p == corev1.ProtocolTCP }

// clusterIPs are a service's addresses; none for a headless one.
func clusterIPs(s *corev1.Service) []string {
	ips := s.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{s.Spec.ClusterIP}
	}
	return slices.DeleteFunc(slices.Clone(ips), func(ip string) bool { return ip == "" || ip == corev1.ClusterIPNone })
}

// numericTarget is zero for a named port, which each endpoint resolves itself.
func numericTarget(p corev1.ServicePort) uint32 {
	switch {
	case p.TargetPort.Type == intstr.String:
		return 0
	case p.TargetPort.IntVal == 0:
		return uint32(p.Port) // an API server fills this in, a directory does not
	}
	return uint32(p.TargetPort.IntVal)
}

func (w *world) ipFamilies(s *corev1.Service) workloadapi.IPFamilies {
	families := s.Spec.IPFamilies
	if len(families) == 0 {
		for _, ip := range clusterIPs(s) {
			if a, err := netip.ParseAddr(ip); err == nil {
				families = append(families, family(a))
			}
		}
	}
	if len(families) == 0 {
		families = w.families[:1]
		if p := s.Spec.IPFamilyPolicy; p != nil && *p != corev1.IPFamilyPolicySingleStack {
			families = w.families
		}
	}
	v4, v6 := slices.Contains(families, corev1.IPv4Protocol), slices.Contains(families, corev1.IPv6Protocol)
	switch {
	case v4 && v6:
		return workloadapi.IPFamilies_DUAL
	case v4:
		return workloadapi.IPFamilies_IPV4_ONLY
	case v6:
		return workloadapi.IPFamilies_IPV6_ONLY
	}
	return workloadapi.IPFamilies_AUTOMATIC
}

func (w *world) kubeLoadBalancing(s *corev1.Service) *workloadapi.LoadBalancing {
	var lb *workloadapi.LoadBalancing
	switch {
	case s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal:
		lb = &workloadapi.LoadBalancing{Mode: workloadapi.LoadBalancing_STRICT, RoutingPreference: []workloadapi.LoadBalancing_Scope{workloadapi.LoadBalancing_NODE}}
	case s.Labels[labelManaged] == managedWaypoint:
		lb = distribution(corev1.ServiceTrafficDistributionPreferClose)
	case s.Spec.TrafficDistribution != nil:
		lb = distribution(*s.Spec.TrafficDistribution)
	default:
		lb = w.annotatedDistribution(s.Namespace, s.Annotations)
	}
	if s.Spec.PublishNotReadyAddresses {
		if lb == nil {
			lb = &workloadapi.LoadBalancing{}
		}
		lb.HealthPolicy = workloadapi.LoadBalancing_ALLOW_ALL
	}
	return lb
}

// annotatedDistribution is what an annotation wants, or its namespace's.
func (w *world) annotatedDistribution(namespace string, annotations map[string]string) *workloadapi.LoadBalancing {
	if v, ok := annotations[annotationTrafficDistribution]; ok {
		return distribution(v)
	}
	return distribution(w.namespace(namespace).Annotations[annotationTrafficDistribution])
}

func distribution(name string) *workloadapi.LoadBalancing {
	scopes := []workloadapi.LoadBalancing_Scope{workloadapi.LoadBalancing_NETWORK, workloadapi.LoadBalancing_REGION, workloadapi.LoadBalancing_ZONE}
	switch strings.ToLower(name) {
	case "preferclose", "prefersamezone":
	case "prefersamenode":
		scopes = append(scopes, workloadapi.LoadBalancing_SUBZONE, workloadapi.LoadBalancing_NODE)
	default:
		return nil
	}
	return &workloadapi.LoadBalancing{Mode: workloadapi.LoadBalancing_FAILOVER, RoutingPreference: scopes}
}
