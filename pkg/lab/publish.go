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
	views := &dns.Views{Plain: dns.NewZone(), Mesh: dns.NewZone(), Inside: map[netip.Addr]bool{}}
	perNode := map[*node][]proxy.Service{}
	for _, key := range sortedKeys(l.set.Services) {
		s := l.services[key]
		if s == nil {
			continue
		}
		ends := l.endpoints(s.complete, pods)
		names(views.Plain, s.complete, ends)
		names(views.Mesh, s.complete, ends)
		for _, n := range l.nodes {
			perNode[n] = append(perNode[n], rules(s.complete, ends, n)...)
		}
	}
	for _, p := range pods {
		for _, a := range p.addrs {
			name := strings.NewReplacer(".", "-", ":", "-").Replace(a.String()) + "." + p.key.Namespace + ".pod." + dns.Domain
			views.Plain.Address(name, a)
			views.Mesh.Address(name, a)
			if p.enrolled {
				views.Inside[a] = true
			}
		}
	}
	for _, key := range sortedKeys(l.set.ServiceEntries) {
		e := l.set.ServiceEntries[key]
		hosts(views.Plain, e, nil)
		hosts(views.Mesh, e, l.given.ServiceEntries[key])
	}
	for _, n := range l.nodes {
		n.resolver.Publish(views)
		if r := proxy.Ruleset(perNode[n], localAddrs(n, pods), l.opts.Family.ServicePrefixes()); r != n.rulesWanted {
			n.rulesWanted = r
			n.rules.put(r)
		}
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

// hosts are those of a ServiceEntry: at its own addresses; or at those that the
// control plane has given it (nil for none); or, as the world's resolvers would
// have it, at its endpoints'.
func hosts(zone *dns.Zone, e, given *objects.ServiceEntry) {
	for _, host := range e.Spec.Hosts {
		zone.Address(host)
		var addrs []netip.Addr
		for _, s := range e.Spec.Addresses {
			addrs = appendAddr(addrs, s)
		}
		if given != nil && len(addrs) == 0 {
			for _, s := range given.Status.Addresses {
				if s.Host == host || s.Host == "" {
					addrs = appendAddr(addrs, s.Value)
				}
			}
		}
		if len(addrs) == 0 {
			for _, end := range e.Spec.Endpoints {
				addrs = appendAddr(addrs, end.Address)
			}
		}
		zone.Address(host, addrs...)
	}
}

// appendAddr appends what is one address, and nothing for a range or a name.
func appendAddr(list []netip.Addr, s string) []netip.Addr {
	if a, err := netip.ParseAddr(s); err == nil {
		return append(list, a)
	}
	if p, err := netip.ParsePrefix(s); err == nil && p.IsSingleIP() {
		return append(list, p.Addr())
	}
	return list
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
	for {
		select {
		case <-ctx.Done():
			return
		case next := <-n.rules.slot:
			if err := proxy.Apply(ctx, n.host.NS(), next); err != nil {
				if ctx.Err() == nil {
					l.log.Error("services are not reachable as they should", "node", n.name, "err", err)
				}
				continue
			}
			l.do(func() { n.rulesApplied = next })
		}
	}
}
