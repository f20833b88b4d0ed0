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

// workloadTypes are the members k8s.<type>.name.
var workloadTypes = []string{"deployment", "cronjob", "pod", "job"}

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

// maxBaggage bounds what is parsed, in bytes.
const maxBaggage = 8 << 10

// ParseBaggage reads one or more header values; unknown members are ignored.
func ParseBaggage(values ...string) Baggage {
	var b Baggage
	for _, value := range values {
		if len(value) > maxBaggage {
			continue
		}
		for member := range strings.SplitSeq(value, ",") {
			member, _, _ = strings.Cut(member, ";") // properties
			key, v, _ := strings.Cut(strings.TrimSpace(member), "=")
			if unescaped, err := url.QueryUnescape(v); err == nil {
				v = unescaped
			}
			b.set(strings.TrimSpace(key), v)
		}
	}
	return b
}

func (b *Baggage) set(key, v string) {
	if v == "" {
		return
	}
	switch key {
	case "k8s.cluster.name":
		b.Cluster = v
	case "k8s.namespace.name":
		b.Namespace = v
	case "service.name":
		b.ServiceName = v
	case "service.version":
		b.ServiceVersion = v
	case "cloud.region":
		b.Region = v
	case "cloud.availability_zone":
		b.Zone = v
	default:
		for _, t := range workloadTypes {
			if key == "k8s."+t+".name" {
				b.WorkloadType, b.WorkloadName = t, v
			}
		}
	}
}

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
	if len(value) > maxBaggage {
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
