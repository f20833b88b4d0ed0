package route

import (
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const corsFilter = "envoy.filters.http.cors"

// legacyCORS makes the CORS filter's configuration of the field that came before
// typed_per_filter_config, unless the scope has one there.
func (c *compiler) legacyCORS(p *routev3.CorsPolicy, s *scope, where string) error {
	if _, ok := s.filters[corsFilter]; p == nil || ok {
		return nil
	}
	cfg, err := anypb.New(&corsv3.CorsPolicy{
		AllowOriginStringMatch: p.GetAllowOriginStringMatch(), AllowMethods: p.GetAllowMethods(), AllowHeaders: p.GetAllowHeaders(),
		ExposeHeaders: p.GetExposeHeaders(), MaxAge: p.GetMaxAge(), AllowCredentials: p.GetAllowCredentials(),
		FilterEnabled: p.GetFilterEnabled(), ShadowEnabled: p.GetShadowEnabled(),
		AllowPrivateNetworkAccess:    p.GetAllowPrivateNetworkAccess(),
		ForwardNotMatchingPreflights: p.GetForwardNotMatchingPreflights(),
	})
	if err != nil {
		return fmt.Errorf("cors: %w", err)
	}
	f, err := c.filter(corsFilter, cfg, where)
	if err != nil {
		return fmt.Errorf("cors: %w", err)
	}
	if s.filters == nil {
		s.filters = map[string]filterConfig{}
	}
	s.filters[corsFilter] = f
	return nil
}

// buffered is a virtual host or a route.
type buffered interface {
	GetRequestBodyBufferLimit() *wrapperspb.UInt64Value
	GetPerRequestBufferLimitBytes() *wrapperspb.UInt32Value
}

// bufferLimit is the limit by its new or its old field, or nil.
func bufferLimit(m buffered) *uint64 {
	if l := m.GetRequestBodyBufferLimit(); l != nil {
		return &l.Value
	}
	if l := m.GetPerRequestBufferLimitBytes(); l != nil {
		v := uint64(l.GetValue())
		return &v
	}
	return nil
}
