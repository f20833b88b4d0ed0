package source

import (
	"fmt"
	"net/netip"
)

// Settings is the key fairlead of the ConfigMap istio: what we offer beyond
// Istio's mesh configuration. Unknown keys are errors.
type Settings struct {
	// ClusterDomain ends the names of Kubernetes Services. Default cluster.local.
	ClusterDomain string `json:"clusterDomain,omitempty"`
	// AutoAllocate are the ranges that give virtual addresses to ServiceEntries
	// without one. Defaults 240.240.0.0/16 and 2001:2::/48, as Istio's.
	AutoAllocate AutoAllocate `json:"autoAllocate,omitzero"`
	// DryRun sends policies annotated istio.io/dry-run to the nodes, which then
	// report and do not enforce them. Default false: they are refused, because a
	// ztunnel older than 1.29 would enforce them.
	DryRun bool `json:"dryRun,omitempty"`
	// OtherProtocols is what befalls packets of the mesh's pods that are not TCP,
	// such as UDP, and so not carried in mutual TLS: allow or deny. Default allow.
	OtherProtocols string `json:"otherProtocols,omitempty"`
	// InjectionLabel takes istio-injection=enabled on a namespace as a wish to be in the
	// mesh, for those who come from sidecars. Default false: it enrols nothing.
	InjectionLabel bool `json:"injectionLabel,omitempty"`
}

// AutoAllocate are two address ranges.
type AutoAllocate struct {
	IPv4 string `json:"ipv4,omitempty"`
	IPv6 string `json:"ipv6,omitempty"`
}

// DefaultSettings is what holds where the key fairlead says nothing.
func DefaultSettings() Settings {
	return Settings{
		ClusterDomain:  "cluster.local",
		OtherProtocols: "allow",
		AutoAllocate:   AutoAllocate{IPv4: "240.240.0.0/16", IPv6: "2001:2::/48"},
	}
}

// Prefixes are the ranges, parsed.
func (a AutoAllocate) Prefixes() (v4, v6 netip.Prefix, err error) {
	if v4, err = netip.ParsePrefix(a.IPv4); err != nil || !v4.Addr().Is4() || v4.Bits() < 8 || v4.Bits() > 24 {
		return v4, v6, fmt.Errorf("autoAllocate.ipv4: %q is not an IPv4 range between /8 and /24", a.IPv4)
	}
	if v6, err = netip.ParsePrefix(a.IPv6); err != nil || !v6.Addr().Is6() || v6.Addr().Is4In6() || v6.Bits() > 96 {
		return v4, v6, fmt.Errorf("autoAllocate.ipv6: %q is not an IPv6 range of /96 or wider", a.IPv6)
	}
	return v4.Masked(), v6.Masked(), nil
}
