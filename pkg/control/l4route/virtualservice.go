package l4route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/destination"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// meshGateway stands for the callers in the mesh.
const meshGateway = "mesh"

// virtual tells a VirtualService what becomes of one of its rules.
type virtual struct {
	b      *Builder
	object status.Object
	at     string // the rule's path
	exact  bool   // it names the service exactly
}

func (v *virtual) missing(_, message string) { v.hidden(message) }

func (v *virtual) hidden(message string) {
	note := v.at + ": " + message
	if !slices.Contains(v.b.notes[v.object], note) {
		v.b.notes[v.object] = append(v.b.notes[v.object], note)
	}
}

func (v *virtual) String() string {
	return v.object.Kind + " " + v.object.Namespace + "/" + v.object.Name
}

// virtualService adds the tcp and tls rules of v for the services that it names
// exactly, or by a wildcard. Like its HTTP rules they act for services of its own
// namespace alone.
func (b *Builder) virtualService(v *networkingv1.VirtualService, exact bool) {
	if len(v.Spec.Tcp)+len(v.Spec.Tls) == 0 {
		return
	}
	object := status.Object{APIVersion: "networking.istio.io/v1", Kind: "VirtualService", Namespace: v.Namespace, Name: v.Name}
	b.inEffect[object] = true
	if !inMesh(v.Spec.Gateways) {
		return
	}
	for _, s := range b.m.Services {
		if s.Namespace != v.Namespace || s.Waypoint == nil || !b.exported(v, s) || !b.names(v, s, exact) {
			continue
		}
		for i, r := range v.Spec.Tls {
			for j, m := range r.Match {
				at := fmt.Sprintf("spec.tls[%d].match[%d]", i, j)
				match := &l4match{m.Port, m.DestinationSubnets, m.SourceLabels, m.SourceNamespace, "", m.Gateways}
				b.add(b.tls, s, v, &virtual{b: b, object: object, at: at, exact: exact}, match, m.SniHosts, r.Route)
			}
		}
		for i, r := range v.Spec.Tcp {
			if len(r.Match) == 0 {
				b.add(b.tcp, s, v, &virtual{b: b, object: object, at: fmt.Sprintf("spec.tcp[%d]", i), exact: exact}, &l4match{}, nil, r.Route)
			}
			for j, m := range r.Match {
				at := fmt.Sprintf("spec.tcp[%d].match[%d]", i, j)
				match := &l4match{m.Port, m.DestinationSubnets, m.SourceLabels, m.SourceNamespace, m.SourceSubnet, m.Gateways}
				b.add(b.tcp, s, v, &virtual{b: b, object: object, at: at, exact: exact}, match, nil, r.Route)
			}
		}
	}
}

func inMesh(gateways []string) bool {
	return len(gateways) == 0 || slices.Contains(gateways, meshGateway)
}

// names tells whether v is for s, by its exact name or else by a wildcard.
func (b *Builder) names(v *networkingv1.VirtualService, s *model.Service, exact bool) bool {
	isExact, isWild := false, false
	for _, h := range v.Spec.Hosts {
		h = destination.Hostname(h, v.Namespace, b.m.ClusterDomain)
		isExact = isExact || h == s.Hostname
		isWild = isWild || strings.HasPrefix(h, "*") && strings.HasSuffix(s.Hostname, h[1:])
	}
	return isExact && exact || isWild && !isExact && !exact
}

func (b *Builder) exported(v *networkingv1.VirtualService, s *model.Service) bool {
	to := v.Spec.ExportTo
	if len(to) == 0 {
		to = b.m.Objects.Mesh.GetDefaultVirtualServiceExportTo()
	}
	return len(to) == 0 || slices.ContainsFunc(to, func(t string) bool {
		return t == "*" || t == "." || t == s.Namespace || t == s.Waypoint.Key.Namespace
	})
}

// l4match is what tcp and tls matches have in common.
type l4match struct {
	port            uint32
	subnets         []string
	sourceLabels    map[string]string
	sourceNamespace string
	sourceSubnet    string
	gateways        []string
}

// add adds a rule, unless it cannot be decided at a waypoint or is not for s.
func (b *Builder) add(rules map[*model.Service][]*rule, s *model.Service, v *networkingv1.VirtualService, say *virtual, m *l4match, names []string, to []*networkingapi.RouteDestination) {
	if !slices.ContainsFunc(s.Ports, func(p model.Port) bool {
		return (m.port == 0 || m.port == p.Number) && carriesTLS(&p) == (len(names) > 0) && !p.Protocol.IsHTTP()
	}) {
		if say.exact {
			say.hidden("no port of " + s.Hostname + " that it matches carries such connections: name or declare the port so")
		}
		return
	}
	switch {
	case !inMesh(m.gateways):
		return
	}
	r := &rule{port: m.port, say: say}
	if err := b.restrict(r, m); err != nil {
		say.hidden("the rule is left out: " + err.Error())
		return
	}
	inside, outside := within(s, m.subnets)
	switch {
	case inside && outside:
		say.hidden("destinationSubnets hold some addresses of " + s.Hostname + " and not others: the rule is left out")
		return
	case outside:
		return
	}
	for _, n := range names {
		if n == "*" {
			r.names = nil
			break
		}
		r.names = append(r.names, strings.ToLower(n))
	}
	for i, d := range to {
		host := destination.Hostname(d.GetDestination().GetHost(), v.Namespace, b.m.ClusterDomain)
		one := backend{
			service: b.m.ServiceByHost(host, v.Namespace), port: d.GetDestination().GetPort().GetNumber(),
			subset: d.GetDestination().GetSubset(), weight: uint32(max(d.GetWeight(), 0)),
		}
		if len(to) == 1 && one.weight == 0 {
			one.weight = 1
		}
		if one.service == nil {
			say.hidden(fmt.Sprintf("route[%d]: there is no service %q: connections to it are closed", i, host))
		}
		r.backends = append(r.backends, one)
	}
	rules[s] = append(rules[s], r)
}

// restrict makes a rule one for the callers of a match.
func (b *Builder) restrict(r *rule, m *l4match) error {
	var namespaces []string
	if m.sourceNamespace != "" {
		namespaces = []string{m.sourceNamespace}
		r.callers = append(r.callers, b.callers.Namespace(m.sourceNamespace))
	}
	if len(m.sourceLabels) > 0 {
		b.pods = true
		callers, err := b.callers.Labels(m.sourceLabels, namespaces)
		if err != nil {
			return err
		}
		r.callers = append(r.callers, callers)
	}
	if m.sourceSubnet != "" {
		block, err := source.ParseBlock(m.sourceSubnet)
		if err != nil {
			return fmt.Errorf("sourceSubnet: %w", err)
		}
		r.sources = []netip.Prefix{block}
	}
	return nil
}

// within tells whether there are addresses of s in the subnets, and outside. With
// no subnets all is inside, as is a service without addresses.
func within(s *model.Service, subnets []string) (inside, outside bool) {
	if len(subnets) == 0 || len(s.Addresses) == 0 {
		return true, false
	}
	for _, a := range s.Addresses {
		in := slices.ContainsFunc(subnets, func(n string) bool {
			block, err := source.ParseBlock(n)
			return err == nil && block.Bits() <= a.Bits() && block.Contains(a.Addr().Unmap())
		})
		inside, outside = inside || in, outside || !in
	}
	return inside, outside
}
