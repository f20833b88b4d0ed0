package envoy

import (
	"slices"
	"strings"

	snidfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// byServerName looks up the name in a TLS hello, for a service whose hosts are looked up
// as they are called.
func (g *generator) byServerName(s *model.Service, p *model.Port) *snidfpv3.FilterConfig {
	port := p.Number
	if s.Entry != nil {
		for _, own := range s.Entry.Spec.Ports {
			if own.Number == p.Number && own.TargetPort != 0 {
				port = own.TargetPort
			}
		}
	}
	return &snidfpv3.FilterConfig{DnsCacheConfig: g.dnsCache(s), PortSpecifier: &snidfpv3.FilterConfig_PortValue{PortValue: port}}
}

// ownNames keeps the routes of such a service to its own hosts: it must not lead to any
// host that a client names.
func ownNames(s *model.Service, routes []Stream) (out []Stream) {
	own := func(name string) bool {
		return name == s.Hostname || strings.HasPrefix(s.Hostname, "*") && strings.HasSuffix(name, s.Hostname[1:])
	}
	for _, r := range routes {
		if len(r.ServerNames) == 0 {
			r.ServerNames = []string{s.Hostname}
		} else if r.ServerNames = slices.DeleteFunc(slices.Clone(r.ServerNames), func(name string) bool { return !own(name) }); len(r.ServerNames) == 0 {
			continue
		}
		out = append(out, r)
	}
	return out
}
