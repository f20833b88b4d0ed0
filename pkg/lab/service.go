package lab

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-mesh/fairlead/pkg/lab/objects"
	"github.com/fairlead-mesh/fairlead/pkg/lab/proxy"
)

// service is a Service with the addresses that the lab gave it. Owned by the loop.
type service struct {
	object   *corev1.Service // as in the directory
	complete *corev1.Service // with its addresses
}

// reconcileServices gives services their addresses and takes them back.
func (l *Lab) reconcileServices() {
	for key, s := range l.services {
		if l.set.Services[key] == nil {
			l.releaseService(s)
			delete(l.services, key)
			l.logIf(l.derived.Delete("Service", key))
		}
	}
	for _, key := range sortedKeys(l.set.Services) {
		object := l.set.Services[key]
		s := l.services[key]
		if s != nil && s.object == object {
			continue
		}
		var before []string
		if s != nil {
			before = s.complete.Spec.ClusterIPs
			l.releaseService(s)
		}
		complete, err := l.completeService(object, before)
		if err != nil {
			l.log.Error("a service has no address", "service", key, "err", err)
			delete(l.services, key)
			continue
		}
		l.services[key] = &service{object: object, complete: complete}
		l.logIf(l.derived.Put("Service", key, complete))
	}
}

func (l *Lab) logIf(err error) {
	if err != nil {
		l.log.Error(err.Error())
	}
}

func (l *Lab) releaseService(s *service) {
	for _, ip := range s.complete.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			for _, pool := range l.pools {
				pool.Give(a)
			}
		}
	}
}

// completeService fills in what an API server would: families and addresses.
// Those of before are kept.
func (l *Lab) completeService(object *corev1.Service, before []string) (*corev1.Service, error) {
	s := object.DeepCopy()
	s.APIVersion, s.Kind = "v1", "Service"
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return s, nil
	}
	families := l.familiesOf(s)
	if len(families) == 0 {
		return nil, fmt.Errorf("it asks for families that this lab (%s) does not have", l.opts.Family)
	}
	policy := corev1.IPFamilyPolicySingleStack
	if s.Spec.IPFamilyPolicy != nil {
		policy = *s.Spec.IPFamilyPolicy
	}
	s.Spec.IPFamilies, s.Spec.IPFamilyPolicy = families, &policy
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		s.Spec.ClusterIPs = []string{corev1.ClusterIPNone}
		return s, nil
	}
	asked := s.Spec.ClusterIPs
	if len(asked) == 0 && s.Spec.ClusterIP != "" {
		asked = []string{s.Spec.ClusterIP}
	}
	s.Spec.ClusterIPs = nil
	for _, f := range families {
		a, err := l.serviceAddr(objects.KeyOf(object), f == corev1.IPv6Protocol, asked, before)
		if err != nil {
			return nil, err
		}
		s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, a.String())
	}
	s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	return s, nil
}

func (l *Lab) serviceAddr(key objects.Key, v6 bool, asked, before []string) (netip.Addr, error) {
	var pool interface {
		Reserve(netip.Addr) bool
		ByName(string) (netip.Addr, error)
	}
	for i, p := range l.opts.Family.ServicePrefixes() {
		if p.Addr().Is6() == v6 {
			pool = l.pools[i]
		}
	}
	for _, s := range asked {
		if a, err := netip.ParseAddr(s); err == nil && a.Is6() == v6 {
			pool.Reserve(a) // one outside the range is the user's own business
			return a, nil
		}
	}
	for _, s := range before {
		if a, err := netip.ParseAddr(s); err == nil && a.Is6() == v6 && pool.Reserve(a) {
			return a, nil
		}
	}
	return pool.ByName(key.String())
}

// familiesOf are a service's families, as Kubernetes chooses them.
func (l *Lab) familiesOf(s *corev1.Service) []corev1.IPFamily {
	var have []corev1.IPFamily
	for _, p := range l.opts.Family.ServicePrefixes() {
		f := corev1.IPv4Protocol
		if p.Addr().Is6() {
			f = corev1.IPv6Protocol
		}
		have = append(have, f)
	}
	var out []corev1.IPFamily
	for _, f := range s.Spec.IPFamilies {
		if slices.Contains(have, f) {
			out = append(out, f)
		}
	}
	if len(s.Spec.IPFamilies) == 0 {
		out = have[:1]
	}
	if s.Spec.IPFamilyPolicy != nil && *s.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
		for _, f := range have {
			if !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
	}
	return out
}

// endpoint is one that answers for a service.
type endpoint struct {
	addr netip.Addr
	node *node // or nil: not a pod of the lab
	pod  *pod  // or nil
	// ports by the name of the service's port.
	ports map[string]uint16
}

// endpoints are the ready ones of a service.
func (l *Lab) endpoints(s *corev1.Service, pods []*pod) []endpoint {
	if len(s.Spec.Selector) == 0 {
		return l.slices(objects.KeyOf(s))
	}
	selector := labels.SelectorFromSet(s.Spec.Selector)
	var out []endpoint
	for _, p := range pods {
		if p.key.Namespace != s.Namespace || p.deleting || p.done() || p.netns == "" || !selector.Matches(labels.Set(p.nowLabels)) {
			continue
		}
		if !p.ready && !s.Spec.PublishNotReadyAddresses {
			continue
		}
		ports := map[string]uint16{}
		for _, sp := range s.Spec.Ports {
			if n, ok := targetPort(&p.spec, sp); ok {
				ports[sp.Name] = n
			}
		}
		for _, a := range p.addrs {
			out = append(out, endpoint{addr: a, node: p.node, pod: p, ports: ports})
		}
	}
	return out
}

// slices are the endpoints that EndpointSlices of the directory give a service.
func (l *Lab) slices(key objects.Key) []endpoint {
	var out []endpoint
	for _, k := range sortedKeys(l.set.EndpointSlices) {
		slice := l.set.EndpointSlices[k]
		if k.Namespace != key.Namespace || slice.Labels[discoveryv1.LabelServiceName] != key.Name {
			continue
		}
		ports := map[string]uint16{}
		for _, p := range slice.Ports {
			if p.Port != nil {
				name := ""
				if p.Name != nil {
					name = *p.Name
				}
				ports[name] = uint16(*p.Port)
			}
		}
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, s := range e.Addresses {
				if a, err := netip.ParseAddr(s); err == nil {
					out = append(out, endpoint{addr: a, ports: ports})
				}
			}
		}
	}
	return out
}

// targetPort is the pod's port behind a service's.
func targetPort(spec *corev1.PodSpec, sp corev1.ServicePort) (uint16, bool) {
	if sp.TargetPort.Type == intstr.Int {
		if sp.TargetPort.IntVal == 0 {
			return uint16(sp.Port), true
		}
		return uint16(sp.TargetPort.IntVal), true
	}
	for _, c := range spec.Containers {
		for _, p := range c.Ports {
			if p.Name == sp.TargetPort.StrVal {
				return uint16(p.ContainerPort), true
			}
		}
	}
	return 0, false
}

// rules are what a node's nftables do for a service.
func rules(s *corev1.Service, ends []endpoint, n *node) []proxy.Service {
	var out []proxy.Service
	for _, ip := range s.Spec.ClusterIPs {
		vip, err := netip.ParseAddr(ip)
		if err != nil {
			continue // headless
		}
		for _, sp := range s.Spec.Ports {
			r := proxy.Service{
				Name: fmt.Sprintf("%s/%s:%d", s.Namespace, s.Name, sp.Port), Protocol: proxy.TCP,
				Address: netip.AddrPortFrom(vip, uint16(sp.Port)), Sticky: s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP,
			}
			switch sp.Protocol {
			case corev1.ProtocolUDP:
				r.Protocol = proxy.UDP
			case corev1.ProtocolTCP, "":
			default:
				continue
			}
			for _, e := range ends {
				port, ok := e.ports[sp.Name]
				local := s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
				if ok && e.addr.Is6() == vip.Is6() && (!local || e.node == n) {
					r.Endpoints = append(r.Endpoints, netip.AddrPortFrom(e.addr, port))
				}
			}
			out = append(out, r)
		}
	}
	return out
}
