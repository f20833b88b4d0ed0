package routing

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// effect is where a VirtualService acts.
type effect struct {
	services []*model.Service
	// hosts are the hosts by which the services were found.
	hosts map[*model.Service]string
	// not are the reasons why it does not act for a host.
	reason string
	not    []string
}

// effect finds the services of a VirtualService's hosts. It acts for services of
// its own namespace alone: no namespace changes the traffic of another's services.
func (b *Builder) effect(v *networkingv1.VirtualService) *effect {
	e := &effect{hosts: map[*model.Service]string{}}
	if !meshGateway(v.Spec.Gateways) {
		return e.none("GatewaysOnly", "its gateways do not include %q, so it is meant for ingress gateways alone", meshName)
	}
	for _, h := range v.Spec.Hosts {
		host := b.fqdn(h, v.Namespace)
		found := b.matching(host, v.Namespace)
		if len(found) == 0 {
			b.noService(e, v, h, host)
			continue
		}
		for _, s := range found {
			e.claim(b, v, s, host)
		}
	}
	return e
}

func (e *effect) none(reason, format string, args ...any) *effect {
	if e.reason == "" {
		e.reason = reason
	}
	e.not = append(e.not, fmt.Sprintf(format, args...))
	return e
}

// matching are the services of a namespace that a host stands for.
func (b *Builder) matching(host, namespace string) (out []*model.Service) {
	if !wildcard(host) {
		for _, s := range b.hosts[host] {
			if s.Namespace == namespace {
				out = append(out, s)
			}
		}
		return out
	}
	for _, s := range b.model.Services {
		if s.Namespace == namespace && strings.HasSuffix(s.Hostname, host[1:]) {
			out = append(out, s)
		}
	}
	return out
}

// elsewhere is a service of another namespace that a host stands for, or nil.
func (b *Builder) elsewhere(host, from string) *model.Service {
	if !wildcard(host) {
		return b.service(host, from)
	}
	for _, s := range b.model.Services {
		if strings.HasSuffix(s.Hostname, host[1:]) {
			return s
		}
	}
	return nil
}

func (b *Builder) noService(e *effect, v *networkingv1.VirtualService, written, host string) {
	if other := b.elsewhere(host, v.Namespace); other != nil {
		e.none("OtherNamespace", "%s is a service of namespace %s, whose requests rules of namespace %s do not route, whatever exportTo says: move the VirtualService there, or write an HTTPRoute for callers of this namespace", other.Hostname, other.Namespace, v.Namespace)
		return
	}
	// "reviews.default" is taken for a full name, as Istio does.
	if name, namespace, two := strings.Cut(written, "."); two {
		namespace, _, _ = strings.Cut(namespace, ".")
		if s := b.kubernetes[model.Key{Namespace: namespace, Name: name}]; s != nil {
			e.none("NoService", "there is no service %q: write %q", written, s.Hostname)
			return
		}
	}
	e.none("NoService", "there is no service %q in namespace %s", host, v.Namespace)
}

func (e *effect) claim(b *Builder, v *networkingv1.VirtualService, s *model.Service, host string) {
	if before, twice := e.hosts[s]; twice {
		if wildcard(before) && (!wildcard(host) || len(host) > len(before)) {
			e.hosts[s] = host
		}
		return
	}
	switch {
	case s.Waypoint == nil:
		e.none("NoWaypoint", "service %s/%s has no waypoint, and rules act at waypoints alone: label the service or its namespace istio.io/use-waypoint", s.Namespace, s.Name)
	case !b.exported(v, s):
		e.none("NotExported", "exportTo keeps it from the waypoint %s/%s of %s", s.Waypoint.Key.Namespace, s.Waypoint.Key.Name, s.Hostname)
	default:
		e.services, e.hosts[s] = append(e.services, s), host
	}
}

// exported tells whether a service's waypoint may use the rules: the namespace of
// the service, which is the rules' own, or of the waypoint must be exported to.
func (b *Builder) exported(v *networkingv1.VirtualService, s *model.Service) bool {
	to := v.Spec.ExportTo
	if len(to) == 0 {
		to = b.model.Objects.Mesh.GetDefaultVirtualServiceExportTo()
	}
	return len(to) == 0 || slices.ContainsFunc(to, func(t string) bool {
		return t == "*" || t == "." || t == s.Namespace || t == s.Waypoint.Key.Namespace
	})
}

func (e *effect) condition() status.Condition {
	var hosts []string
	for _, s := range e.services {
		hosts = append(hosts, s.Hostname)
	}
	slices.Sort(hosts)
	at := "in effect at the waypoint for " + strings.Join(hosts, ", ")
	switch {
	case len(e.not) == 0:
		return status.Condition{Type: status.InEffect, Status: "True", Reason: "InEffect", Message: at}
	case len(hosts) == 0:
		return status.Condition{Type: status.InEffect, Status: "False", Reason: e.reason, Message: "not in effect: " + strings.Join(e.not, "; ")}
	}
	return status.Condition{Type: status.InEffect, Status: "False", Reason: "PartlyInEffect", Message: at + "; not in effect: " + strings.Join(e.not, "; ")}
}

// meshGateway tells whether rules are for callers in the mesh.
func meshGateway(gateways []string) bool {
	return len(gateways) == 0 || slices.Contains(gateways, meshName)
}
