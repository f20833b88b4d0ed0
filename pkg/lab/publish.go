package lab

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/lab/dns"
	"github.com/fairlead-mesh/fairlead/pkg/lab/objects"
	"github.com/fairlead-mesh/fairlead/pkg/lab/proxy"
)

// publish hands what the state says to those outside: resolvers, service rules,
// the control plane.
func (l *Lab) publish() {
	pods := l.sortedPods()
	zone := dns.NewZone()
	perNode := map[*node][]proxy.Service{}
	for _, key := range sortedKeys(l.set.Services) {
		s := l.services[key]
		if s == nil {
			continue
		}
		ends := l.endpoints(s.complete, pods)
		names(zone, s.complete, ends)
		for _, n := range l.nodes {
			perNode[n] = append(perNode[n], rules(s.complete, ends, n)...)
		}
	}
	for _, p := range pods {
		for _, a := range p.addrs {
			zone.Address(strings.NewReplacer(".", "-", ":", "-").Replace(a.String())+"."+p.key.Namespace+".pod."+dns.Domain, a)
		}
	}
	for _, key := range sortedKeys(l.set.ServiceEntries) {
		hosts(zone, l.set.ServiceEntries[key])
	}
	for _, n := range l.nodes {
		n.resolver.Publish(zone)
		n.rules.put(proxy.Ruleset(perNode[n], localAddrs(n, pods), l.opts.Family.ServicePrefixes()))
		l.logIf(l.derived.Put("Node", objects.Key{Name: n.name}, n.derived()))
	}
	for _, p := range pods {
		l.writePod(p)
	}
}

// names are those of a service.
func names(zone *dns.Zone, s *corev1.Service, ends []endpoint) {
	name := s.Name + "." + s.Namespace + ".svc." + dns.Domain
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		zone.Alias(name, s.Spec.ExternalName)
		return
	}
	zone.Address(name)
	headless := s.Spec.ClusterIP == corev1.ClusterIPNone
	for _, ip := range s.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			zone.Address(name, a)
		}
	}
	for _, sp := range s.Spec.Ports {
		if sp.Name != "" && !headless {
			zone.Service(portName(sp, name), uint16(sp.Port), name)
		}
	}
	if !headless {
		return
	}
	for _, e := range ends {
		if !serves(s, e.addr) {
			continue
		}
		zone.Address(name, e.addr)
		host := strings.NewReplacer(".", "-", ":", "-").Replace(e.addr.String())
		if e.pod != nil && e.pod.spec.Hostname != "" && e.pod.spec.Subdomain == s.Name {
			host = e.pod.spec.Hostname
		}
		zone.Address(host+"."+name, e.addr)
		for _, sp := range s.Spec.Ports {
			if n, ok := e.ports[sp.Name]; ok && sp.Name != "" {
				zone.Service(portName(sp, name), n, host+"."+name)
			}
		}
	}
}

func portName(sp corev1.ServicePort, name string) string {
	protocol := "tcp"
	if sp.Protocol != "" {
		protocol = strings.ToLower(string(sp.Protocol))
	}
	return fmt.Sprintf("_%s._%s.%s", sp.Name, protocol, name)
}

// serves reports whether a service has the family of an address.
func serves(s *corev1.Service, a netip.Addr) bool {
	for _, f := range s.Spec.IPFamilies {
		if (f == corev1.IPv6Protocol) == a.Is6() {
			return true
		}
	}
	return false
}

// hosts are those of a ServiceEntry: at its own addresses, or those that were
// given to it, or, as the world's resolvers would have it, at its endpoints'.
func hosts(zone *dns.Zone, e *objects.ServiceEntry) {
	add := func(host, s string) bool {
		a, err := netip.ParseAddr(s)
		if err != nil {
			p, perr := netip.ParsePrefix(s)
			if perr != nil || !p.IsSingleIP() {
				return false
			}
			a = p.Addr()
		}
		zone.Address(host, a)
		return true
	}
	for _, host := range e.Spec.Hosts {
		zone.Address(host)
		found := false
		for _, s := range e.Spec.Addresses {
			found = add(host, s) || found
		}
		for _, s := range e.Status.Addresses {
			if !found || s.Host == host {
				found = (s.Host == "" || s.Host == host) && add(host, s.Value) || found
			}
		}
		for _, end := range e.Spec.Endpoints {
			if !found {
				add(host, end.Address)
			}
		}
	}
}

func localAddrs(n *node, pods []*pod) []netip.Addr {
	var out []netip.Addr
	for _, p := range pods {
		if p.node == n {
			out = append(out, p.addrs...)
		}
	}
	return out
}

// applyRules loads each new set of rules into the node.
func (l *Lab) applyRules(ctx context.Context, n *node) {
	applied := ""
	for {
		select {
		case <-ctx.Done():
			return
		case next := <-n.rules.slot:
			if next == applied {
				continue
			}
			if err := proxy.Apply(ctx, n.host.NS(), next); err != nil {
				if ctx.Err() == nil {
					l.log.Error("services are not reachable as they should", "node", n.name, "err", err)
				}
				continue
			}
			applied = next
		}
	}
}
