package analyze

import (
	"fmt"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

func (w *world) destinationRules() {
	for _, r := range w.objects.DestinationRules {
		ref := refOf("DestinationRule", r)
		host := fqdn(r.Spec.GetHost(), r.Namespace)
		if w.missing(host) {
			w.report(Warning, UnknownDestinationHost, ref, "", "The host %s defined in the DestinationRule does not match any services in the mesh.", host)
		}
		for i, s := range r.Spec.GetSubsets() {
			w.subset(ref, r, host, s, fmt.Sprintf("spec.subsets[%d]", i))
		}
		w.trafficPolicy(ref, r, r.Spec.GetTrafficPolicy(), "spec.trafficPolicy")
		for i, s := range r.Spec.GetSubsets() {
			w.trafficPolicy(ref, r, s.GetTrafficPolicy(), fmt.Sprintf("spec.subsets[%d].trafficPolicy", i))
		}
	}
}

// subset finds one that selects none of its service's workloads, though there are some.
func (w *world) subset(ref source.Ref, r *networkingv1.DestinationRule, host string, s *networkingapi.Subset, field string) {
	service := w.service(host)
	if service == nil || len(service.Spec.Selector) == 0 {
		return
	}
	all := w.selected(service.Namespace, service.Spec.Selector)
	if len(all) == 0 && !w.Whole {
		return // they are somewhere else
	}
	for _, x := range all {
		if matches(s.GetLabels(), x.labels) {
			return
		}
	}
	var users []string
	for _, v := range w.objects.VirtualServices {
		w.destinationsOf(v, func(d destination) {
			if d.to.GetSubset() == s.GetName() && fqdn(d.to.GetHost(), v.Namespace) == host {
				users = append(users, fmt.Sprintf("VirtualService %s/%s %s", v.Namespace, v.Name, d.rule))
			}
		})
	}
	text := fmt.Sprintf("The Subset %s defined in the DestinationRule does not select any pods. Which may lead to 503 UH (NoHealthyUpstream).", s.GetName())
	if len(users) > 0 {
		text += " It is used by " + strings.Join(users, ", ") + "."
	}
	w.report(Error, SubsetSelectsNoPods, ref, field, "%s", text)
}

// defaultEjected is Envoy's max_ejection_percent.
const defaultEjected = 10

func (w *world) trafficPolicy(ref source.Ref, r *networkingv1.DestinationRule, p *networkingapi.TrafficPolicy, field string) {
	if p == nil {
		return
	}
	w.outliers(ref, p.GetOutlierDetection(), field+".outlierDetection")
	if unverified(p.GetTls()) {
		w.report(Warning, NoServerVerification, ref, field+".tls",
			"DestinationRule %s/%s in namespace %s has TLS mode set to %s but no caCertificates are set to validate server identity for host: %s", r.Namespace, r.Name, r.Namespace, p.GetTls().GetMode(), r.Spec.GetHost())
	}
	for i, port := range p.GetPortLevelSettings() {
		at := fmt.Sprintf("%s.portLevelSettings[%d]", field, i)
		w.outliers(ref, port.GetOutlierDetection(), at+".outlierDetection")
		if unverified(port.GetTls()) {
			w.report(Warning, NoServerVerificationForPort, ref, at+".tls",
				"DestinationRule %s/%s in namespace %s has TLS mode set to %s but no caCertificates are set to validate server identity for host: %s at port number:%d",
				r.Namespace, r.Name, r.Namespace, port.GetTls().GetMode(), r.Spec.GetHost(), port.GetPort().GetNumber())
		}
	}
}

func unverified(t *networkingapi.ClientTLSSettings) bool {
	switch t.GetMode() {
	case networkingapi.ClientTLSSettings_SIMPLE, networkingapi.ClientTLSSettings_MUTUAL:
		return t.GetCaCertificates() == "" && t.GetCredentialName() == "" && !t.GetInsecureSkipVerify().GetValue()
	}
	return false
}

// outliers finds a share of healthy endpoints under which ejection would end, and
// which ejection can never bring about.
func (w *world) outliers(ref source.Ref, o *networkingapi.OutlierDetection, field string) {
	ejected := o.GetMaxEjectionPercent()
	if ejected == 0 {
		ejected = defaultEjected
	}
	if least := o.GetMinHealthPercent(); least > 0 && least <= 100-ejected {
		w.report(Warning, MinHealthWithoutEffect, ref, field+".minHealthPercent",
			"minHealthPercent %d has no effect: at most %d %% can be ejected, so at least %d %% stay", least, ejected, 100-ejected)
	}
}
