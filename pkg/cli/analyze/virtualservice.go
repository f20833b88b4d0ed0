package analyze

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

const meshGateway = "mesh"

func refOf(kind string, o interface {
	GetNamespace() string
	GetName() string
}) source.Ref {
	return source.Ref{Group: networking, Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}
}

func (w *world) virtualServices() {
	for _, v := range w.objects.VirtualServices {
		ref := refOf("VirtualService", v)
		w.destinationsOf(v, func(d destination) { w.destination(ref, v, d) })
		for i, h := range v.Spec.GetHttp() {
			field := fmt.Sprintf("spec.http[%d]", i)
			w.retriesFit(ref, field, h)
			for j, m := range h.GetMatch() {
				w.cookies(ref, fmt.Sprintf("%s.match[%d]", field, j), m)
			}
		}
		w.gatewaysOf(ref, v)
	}
	w.sameHosts()
	w.ingressMissesSubsets()
}

// destination is one place where a VirtualService sends to.
type destination struct {
	field string // of the destination
	to    *networkingapi.Destination
	// rule says who goes there, in words.
	rule string
}

func (w *world) destinationsOf(v *networkingv1.VirtualService, f func(destination)) {
	for i, h := range v.Spec.GetHttp() {
		rule := fmt.Sprintf("spec.http[%d]", i)
		for j, r := range h.GetRoute() {
			f(destination{fmt.Sprintf("%s.route[%d].destination", rule, j), r.GetDestination(), fmt.Sprintf("%s weight %d", inWords(rule, h.GetMatch()), weight(r.GetWeight(), len(h.GetRoute())))})
		}
		if h.GetMirror() != nil {
			f(destination{rule + ".mirror", h.GetMirror(), rule + " mirror"})
		}
		for j, m := range h.GetMirrors() {
			f(destination{fmt.Sprintf("%s.mirrors[%d].destination", rule, j), m.GetDestination(), rule + " mirror"})
		}
	}
	for i, t := range v.Spec.GetTcp() {
		for j, r := range t.GetRoute() {
			f(destination{fmt.Sprintf("spec.tcp[%d].route[%d].destination", i, j), r.GetDestination(), fmt.Sprintf("spec.tcp[%d] weight %d", i, weight(r.GetWeight(), len(t.GetRoute())))})
		}
	}
	for i, t := range v.Spec.GetTls() {
		for j, r := range t.GetRoute() {
			f(destination{fmt.Sprintf("spec.tls[%d].route[%d].destination", i, j), r.GetDestination(), fmt.Sprintf("spec.tls[%d] weight %d", i, weight(r.GetWeight(), len(t.GetRoute())))})
		}
	}
}

func weight(said int32, of int) int32 {
	if said == 0 && of == 1 {
		return 100
	}
	return said
}

// inWords is a rule with the first thing that it asks for.
func inWords(rule string, matches []*networkingapi.HTTPMatchRequest) string {
	for _, m := range matches {
		for _, name := range slices.Sorted(maps.Keys(m.GetHeaders())) {
			s := m.GetHeaders()[name]
			return rule + " (" + name + " " + cmp.Or(s.GetExact(), s.GetPrefix(), s.GetRegex()) + ")"
		}
	}
	return rule
}

func (w *world) destination(ref source.Ref, v *networkingv1.VirtualService, d destination) {
	host := fqdn(d.to.GetHost(), v.Namespace)
	if w.missing(host) {
		w.report(Error, ReferencedResourceNotFound, ref, d.field+".host", "Referenced host not found: %q", d.to.GetHost())
		return
	}
	ports := w.servicePorts(host)
	switch port := d.to.GetPort().GetNumber(); {
	case len(ports) == 0:
	case port != 0 && !slices.Contains(ports, port):
		w.report(Error, ReferencedResourceNotFound, ref, d.field+".host", "Referenced host:port not found: %q", fmt.Sprintf("%s:%d", d.to.GetHost(), port))
	case port == 0 && len(ports) > 1 && w.service(host) != nil:
		w.report(Error, PortSelectorRequired, ref, d.field, "This VirtualService routes to a service %q that exposes multiple ports %v. Specifying a port in the destination is required to disambiguate.", d.to.GetHost(), ports)
	}
	if subset := d.to.GetSubset(); subset != "" && !w.hasSubset(host, subset) {
		w.report(Error, ReferencedResourceNotFound, ref, d.field+".host",
			"Referenced host+subset in destinationrule not found: %q; add to a DestinationRule for host %s: subsets: [{name: %s, labels: {version: %s}}]",
			d.to.GetHost()+"+"+subset, host, subset, subset)
	}
}

func (w *world) hasSubset(host, subset string) bool {
	for _, r := range w.objects.DestinationRules {
		if !covers(fqdn(r.Spec.GetHost(), r.Namespace), host) {
			continue
		}
		if slices.ContainsFunc(r.Spec.GetSubsets(), func(s *networkingapi.Subset) bool { return s.GetName() == subset }) {
			return true
		}
	}
	return false
}

// retriesFit finds tries that the timeout of the whole cuts off.
func (w *world) retriesFit(ref source.Ref, field string, h *networkingapi.HTTPRoute) {
	r := h.GetRetries()
	tries, each, all := time.Duration(r.GetAttempts())+1, r.GetPerTryTimeout().AsDuration(), h.GetTimeout().AsDuration()
	if r.GetAttempts() > 0 && each > 0 && all > 0 && tries*each > all {
		w.report(Warning, AttemptsExceedTimeout, ref, field+".retries.attempts",
			"attempts do not fit in the timeout: %d tries of %s take %s, and the timeout is %s", tries, each, tries*each, all)
	}
}

// cookieSeparator is a regular expression's text around one cookie, without the space
// that browsers put after each semicolon.
var cookieSeparator = regexp.MustCompile(`;\)[?*]\(|;\)[?*][A-Za-z0-9_-]`)

func (w *world) cookies(ref source.Ref, field string, m *networkingapi.HTTPMatchRequest) {
	for name, s := range m.GetHeaders() {
		text := s.GetRegex()
		if !strings.EqualFold(name, "cookie") || !cookieSeparator.MatchString(text) {
			continue
		}
		w.report(Warning, CookieSpace, ref, field+".headers."+name+".regex",
			"regex on header cookie does not allow the space after ';' that browsers send: write %s", strings.Replace(text, ";)", `;\s*)`, 1))
	}
}

func (w *world) gatewaysOf(ref source.Ref, v *networkingv1.VirtualService) {
	for i, name := range v.Spec.GetGateways() {
		if name == meshGateway {
			continue
		}
		namespace, short, ok := strings.Cut(name, "/")
		if !ok {
			namespace, short = v.Namespace, name
		}
		field := fmt.Sprintf("spec.gateways[%d]", i)
		gateway := w.byRef[source.Ref{Group: networking, Kind: "Gateway", Namespace: namespace, Name: short}]
		if gateway == nil {
			if w.Whole || len(w.of(networking, "Gateway")) > 0 {
				w.report(Error, ReferencedResourceNotFound, ref, field, "Referenced gateway not found: %q", name)
			}
			continue
		}
		var served []string
		for _, s := range document.List(gateway.value, "spec", "servers") {
			for _, h := range document.List(s, "hosts") {
				_, host, scoped := strings.Cut(document.Text(h), "/")
				if !scoped {
					host = document.Text(h)
				}
				served = append(served, host)
			}
		}
		var lost []string
		for _, h := range v.Spec.GetHosts() {
			if !slices.ContainsFunc(served, func(s string) bool { return covers(s, h) || covers(h, s) }) {
				lost = append(lost, h)
			}
		}
		if len(lost) > 0 {
			w.report(Warning, HostNotInGateway, ref, "spec.hosts", "one or more host %v defined in VirtualService %s/%s not found in Gateway %s/%s.", lost, v.Namespace, v.Name, namespace, short)
		}
	}
}

func inMesh(v *networkingv1.VirtualService) bool {
	return len(v.Spec.GetGateways()) == 0 || slices.Contains(v.Spec.GetGateways(), meshGateway)
}

// sameHosts finds hosts for which several VirtualServices have rules.
func (w *world) sameHosts() {
	of := map[string][]*networkingv1.VirtualService{}
	for _, v := range w.objects.VirtualServices {
		if !inMesh(v) {
			continue
		}
		for _, h := range v.Spec.GetHosts() {
			host := fqdn(h, v.Namespace)
			of[host] = append(of[host], v)
		}
	}
	for _, host := range slices.Sorted(maps.Keys(of)) {
		all := of[host]
		if len(all) < 2 {
			continue
		}
		slices.SortFunc(all, func(a, b *networkingv1.VirtualService) int {
			return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
		var names []string
		for _, v := range all {
			names = append(names, v.Namespace+"/"+v.Name)
		}
		for _, v := range all {
			w.report(Error, ConflictingVirtualServices, refOf("VirtualService", v), "spec.hosts",
				"The VirtualServices %s associated with mesh gateway define the same host %s which can lead to undefined behavior. This can be fixed by merging the conflicting VirtualServices into a single resource. (Here the rules of %s decide first, as the oldest or else the first by name; after a rule of theirs without a match the others are not reached.)",
				strings.Join(names, ","), "*/"+host, names[0])
		}
	}
}

// ingressMissesSubsets finds services whose callers in the mesh are split by subsets,
// while those from an ingress gateway are not.
func (w *world) ingressMissesSubsets() {
	split := map[string]*networkingv1.VirtualService{}
	for _, v := range w.objects.VirtualServices {
		if inMesh(v) {
			w.destinationsOf(v, func(d destination) {
				if d.to.GetSubset() != "" {
					split[fqdn(d.to.GetHost(), v.Namespace)] = v
				}
			})
		}
	}
	for _, v := range w.objects.VirtualServices {
		if inMesh(v) {
			continue
		}
		w.destinationsOf(v, func(d destination) {
			other := split[fqdn(d.to.GetHost(), v.Namespace)]
			if d.to.GetSubset() != "" || other == nil || w.throughWaypoint(d, v.Namespace) {
				return
			}
			w.report(Warning, IngressRulesNotAffected, refOf("VirtualService", other), "spec.gateways",
				"Subset in virtual service %s/%s has no effect on ingress gateway %s requests (%s/%s sends them to %s without one); to send them through the service's waypoint: kubectl label service %s istio.io/ingress-use-waypoint=true",
				other.Namespace, other.Name, strings.Join(v.Spec.GetGateways(), ","), v.Namespace, v.Name, d.to.GetHost(), d.to.GetHost())
		})
	}
}

func (w *world) throughWaypoint(d destination, namespace string) bool {
	s := w.service(fqdn(d.to.GetHost(), namespace))
	if s == nil {
		return false
	}
	const label = "istio.io/ingress-use-waypoint"
	space := w.byRef[source.Ref{Kind: "Namespace", Name: s.Namespace}]
	return s.Labels[label] == "true" || space != nil && texts(document.At(space.value, "metadata", "labels"))[label] == "true"
}
