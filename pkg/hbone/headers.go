package hbone

import (
	"net/netip"
	"net/url"
	"strings"
)

// Baggage describes the workload at the other end; Istio's members of the W3C
// header of that name. It proves nothing.
type Baggage struct {
	Cluster, Namespace, WorkloadType, WorkloadName string
	ServiceName, ServiceVersion, Region, Zone      string
}

// String is the header's value; members without a value are left out.
func (b Baggage) String() string {
	var out []string
	add := func(key, value string) {
		if value != "" {
			out = append(out, key+"="+url.QueryEscape(value))
		}
	}
	add("k8s.cluster.name", b.Cluster)
	add("k8s.namespace.name", b.Namespace)
	if b.WorkloadType != "" {
		add("k8s."+b.WorkloadType+".name", b.WorkloadName)
	}
	add("service.name", b.ServiceName)
	add("service.version", b.ServiceVersion)
	add("cloud.region", b.Region)
	add("cloud.availability_zone", b.Zone)
	return strings.Join(out, ",")
}

// maxForwarded bounds what is parsed, in bytes.
const maxForwarded = 8 << 10

// Forwarded is the header of RFC 7239 as Istio sends it: who calls, and the
// service that was asked for, if one was.
func Forwarded(source netip.AddrPort, host string) string {
	value := `for="` + source.String() + `"`
	if host != "" {
		value += ";host=" + host
	}
	return value
}

// ForwardedHost is the host= of a Forwarded header, or "". Only the first
// element counts.
func ForwardedHost(value string) string {
	if len(value) > maxForwarded {
		return ""
	}
	first, _, _ := strings.Cut(value, ",")
	for pair := range strings.SplitSeq(first, ";") {
		key, v, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if !strings.EqualFold(key, "host") {
			continue
		}
		v = strings.Trim(v, `"`)
		if validHost(v) {
			return v
		}
	}
	return ""
}
