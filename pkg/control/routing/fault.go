package routing

import (
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	faultcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	networkingapi "istio.io/api/networking/v1alpha3"
)

// The filters that routes configure.
const (
	faultFilter = "envoy.filters.http.fault"
	corsFilter  = "envoy.filters.http.cors"
)

// allRequests is every request.
var allRequests = &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: 100}}

func fault(in *networkingapi.HTTPFaultInjection) *faultv3.HTTPFault {
	out := &faultv3.HTTPFault{}
	if d := in.GetDelay(); d != nil {
		share := d.GetPercentage()
		if old := d.GetPercent(); share == nil && old > 0 { //nolint:staticcheck // deprecated, and still served
			share = &networkingapi.Percent{Value: float64(old)}
		}
		out.Delay = &faultcommonv3.FaultDelay{Percentage: faultShare(share),
			FaultDelaySecifier: &faultcommonv3.FaultDelay_FixedDelay{FixedDelay: d.GetFixedDelay()}}
	}
	switch kind := in.GetAbort().GetErrorType().(type) {
	case *networkingapi.HTTPFaultInjection_Abort_HttpStatus:
		out.Abort = &faultv3.FaultAbort{Percentage: faultShare(in.GetAbort().GetPercentage()),
			ErrorType: &faultv3.FaultAbort_HttpStatus{HttpStatus: uint32(kind.HttpStatus)}}
	case *networkingapi.HTTPFaultInjection_Abort_GrpcStatus:
		code, _ := grpcStatus(kind.GrpcStatus)
		out.Abort = &faultv3.FaultAbort{Percentage: faultShare(in.GetAbort().GetPercentage()),
			ErrorType: &faultv3.FaultAbort_GrpcStatus{GrpcStatus: code}}
	}
	return out
}

// faultShare is all requests where nothing is said.
func faultShare(p *networkingapi.Percent) *typev3.FractionalPercent {
	if p == nil {
		return &typev3.FractionalPercent{Numerator: 100}
	}
	return millionths(percentage(p))
}

// grpcStatus reads a status by its name in gRPC's documents, or as a number.
func grpcStatus(name string) (uint32, bool) {
	var c codes.Code
	if err := c.UnmarshalJSON([]byte(strconv.Quote(strings.ToUpper(name)))); err == nil {
		return uint32(c), true
	}
	n, err := strconv.ParseUint(name, 10, 32)
	return uint32(n), err == nil && n <= uint64(codes.Unauthenticated)
}

func cors(in *networkingapi.CorsPolicy) *corsv3.CorsPolicy {
	out := &corsv3.CorsPolicy{
		AllowMethods: strings.Join(in.GetAllowMethods(), ","), AllowHeaders: strings.Join(in.GetAllowHeaders(), ","),
		ExposeHeaders: strings.Join(in.GetExposeHeaders(), ","), AllowCredentials: in.GetAllowCredentials(),
		FilterEnabled: allRequests, ForwardNotMatchingPreflights: yes,
	}
	if in.GetUnmatchedPreflights() == networkingapi.CorsPolicy_IGNORE {
		out.ForwardNotMatchingPreflights = no
	}
	if in.GetMaxAge() != nil {
		out.MaxAge = strconv.FormatInt(in.GetMaxAge().GetSeconds(), 10)
	}
	for _, o := range in.GetAllowOrigins() {
		if m := stringMatcher(o); m != nil {
			out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, m)
		}
	}
	for _, o := range in.GetAllowOrigin() { //nolint:staticcheck // deprecated, and still served
		m := exactMatcher(o)
		if o == "*" {
			m = regexMatcher(".*")
		}
		out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, m)
	}
	out.AllowOriginStringMatch = slices.CompactFunc(out.AllowOriginStringMatch, func(a, b *matcherv3.StringMatcher) bool { return a.String() == b.String() })
	return out
}
