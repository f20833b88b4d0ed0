package analyze

import (
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
)

const clusterDomain = ".svc.cluster.local"

// fqdn is a host as an object of a namespace means it: a name without a dot is a
// service of that namespace.
func fqdn(host, namespace string) string {
	if strings.Contains(host, ".") || host == "*" {
		return host
	}
	return host + "." + namespace + clusterDomain
}

// service is the Kubernetes Service of a full host name, or nil.
func (w *world) service(host string) *corev1.Service {
	rest, ok := strings.CutSuffix(host, clusterDomain)
	if !ok {
		return nil
	}
	name, namespace, ok := strings.Cut(rest, ".")
	if !ok {
		return nil
	}
	for _, s := range w.objects.Services {
		if s.Name == name && s.Namespace == namespace {
			return s
		}
	}
	return nil
}

// entry is the ServiceEntry that has a host, or nil.
func (w *world) entry(host string) *networkingapi.ServiceEntry {
	for _, e := range w.objects.ServiceEntries {
		for _, h := range e.Spec.GetHosts() {
			if covers(h, host) {
				return &e.Spec
			}
		}
	}
	return nil
}

// covers tells whether a host, perhaps with a wildcard in front, is or holds another.
func covers(pattern, host string) bool {
	if pattern == "*" || pattern == host {
		return true
	}
	suffix, wild := strings.CutPrefix(pattern, "*")
	return wild && strings.HasSuffix(host, suffix)
}

// missing tells that a host is not there: sure for a cluster's service if all is known,
// or if something of its namespace's services is.
func (w *world) missing(host string) bool {
	if w.service(host) != nil || w.entry(host) != nil || strings.HasPrefix(host, "*") {
		return false
	}
	return w.Whole
}

// servicePorts are the numbers of a host's ports.
func (w *world) servicePorts(host string) (ports []uint32) {
	if s := w.service(host); s != nil {
		for _, p := range s.Spec.Ports {
			ports = append(ports, uint32(p.Port)) //nolint:gosec // a port
		}
		return ports
	}
	for _, p := range w.entry(host).GetPorts() {
		ports = append(ports, p.GetNumber())
	}
	return ports
}
