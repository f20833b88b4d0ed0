package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	commondfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// httpFilters are a chain's filters in istiod's order: authorization, what counts
// and changes requests, the router.
func (g *generator) httpFilters(s *model.Service, p *model.Port) []*hcmv3.HttpFilter {
	var filters []*hcmv3.HttpFilter
	if g.o.Parts.HTTPFilters != nil {
		more, err := g.o.Parts.HTTPFilters(s, p)
		g.fail(err)
		filters = more
	}
	filters = append(filters,
		g.fixedFilter("envoy.filters.http.grpc_stats", func() proto.Message {
			return &grpcstatsv3.FilterConfig{EmitFilterState: true,
				PerMethodStatSpecifier: &grpcstatsv3.FilterConfig_StatsForAllMethods{StatsForAllMethods: wrapperspb.Bool(false)}}
		}),
		g.fixedFilter("envoy.filters.http.fault", func() proto.Message { return &faultv3.HTTPFault{} }),
		g.fixedFilter("envoy.filters.http.cors", func() proto.Message { return &corsv3.Cors{} }))
	if s != nil && s.Resolution == networkingapi.ServiceEntry_DYNAMIC_DNS {
		filters = append(filters, g.httpFilter("envoy.filters.http.dynamic_forward_proxy", &dfpv3.FilterConfig{
			ImplementationSpecifier: &dfpv3.FilterConfig_DnsCacheConfig{DnsCacheConfig: g.dnsCache(s)}}))
	}
	filters = append(filters, g.istioHTTPFilters()...)
	return append(filters, g.fixedFilter(filterRouter, func() proto.Message { return &routerv3.Router{} }))
}

// fixedFilter is a filter that is the same in all chains.
func (g *generator) fixedFilter(name string, config func() proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: g.once(name, config)}}
}

func (g *generator) dnsCache(s *model.Service) *commondfpv3.DnsCacheConfig {
	return &commondfpv3.DnsCacheConfig{Name: s.Hostname + "_dfp_dns_cache", DnsLookupFamily: g.lookupFamily()}
}

// accessLogs are the logs that were asked for and, of a client without Istio's
// statistics filter, the mesh's metrics.
func (g *generator) accessLogs(s *model.Service, p *model.Port, kind Kind) []*accesslogv3.AccessLog {
	var out []*accesslogv3.AccessLog
	if g.o.Parts.AccessLogs != nil {
		more, err := g.o.Parts.AccessLogs(s, p)
		g.fail(err)
		out = more
	}
	if g.o.IstioExtensions {
		return out
	}
	return append(out, g.metrics(p, kind))
}
