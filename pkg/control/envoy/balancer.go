package envoy

import (
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	commontapv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingapi "istio.io/api/networking/v1alpha3"
)

// The defaults of consistent hashing and of warming up, as Istio's.
const (
	defaultRingSize      = 1024
	defaultWarmupPercent = 10
	slowStartRuntimeKey  = "upstream.slow_start_aggression"
)

// balance sets how a cluster chooses an endpoint: by the policy, else by the
// least requests.
func (g *generator) balance(c *clusterv3.Cluster, p *networkingapi.TrafficPolicy) {
	lb := p.GetLoadBalancer()
	c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	l := lb.GetLocalityLbSetting()
	if mesh := g.m.Objects.Mesh.GetLocalityLbSetting(); l == nil && len(mesh.GetDistribute()) > 0 {
		l = mesh
	}
	if l != nil && (l.Enabled == nil || l.Enabled.GetValue()) {
		c.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{}}
	}
	if hash := lb.GetConsistentHash(); hash != nil {
		hashed(c, hash)
		return
	}
	switch lb.GetSimple() {
	case networkingapi.LoadBalancerSettings_ROUND_ROBIN:
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
		if start := slowStart(lb); start != nil {
			c.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{SlowStartConfig: start}}
		}
	case networkingapi.LoadBalancerSettings_RANDOM:
		c.LbPolicy = clusterv3.Cluster_RANDOM
	case networkingapi.LoadBalancerSettings_PASSTHROUGH:
		c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	default:
		if start := slowStart(lb); start != nil {
			c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: start}}
		}
	}
}

func hashed(c *clusterv3.Cluster, hash *networkingapi.LoadBalancerSettings_ConsistentHashLB) {
	if maglev := hash.GetMaglev(); maglev != nil {
		c.LbPolicy = clusterv3.Cluster_MAGLEV
		config := &clusterv3.Cluster_MaglevLbConfig{}
		if maglev.TableSize > 0 {
			config.TableSize = wrapperspb.UInt64(maglev.TableSize)
		}
		c.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: config}
		return
	}
	size := uint64(defaultRingSize)
	//nolint:staticcheck // the old place of minimumRingSize still counts
	for _, n := range []uint64{hash.GetMinimumRingSize(), hash.GetRingHash().GetMinimumRingSize()} {
		if n > 0 {
			size = n
		}
	}
	c.LbPolicy = clusterv3.Cluster_RING_HASH
	c.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{MinimumRingSize: wrapperspb.UInt64(size)}}
}

// slowStart is what warms new endpoints up, nil for nothing.
func slowStart(lb *networkingapi.LoadBalancerSettings) *clusterv3.Cluster_SlowStartConfig {
	warmup := lb.GetWarmup()
	if warmup == nil {
		//nolint:staticcheck // the old field still counts
		if d := lb.GetWarmupDurationSecs(); d != nil {
			return &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: d}
		}
		return nil
	}
	start := &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: warmup.Duration, MinWeightPercent: &typev3.Percent{Value: defaultWarmupPercent}}
	if warmup.MinimumPercent != nil {
		start.MinWeightPercent.Value = warmup.MinimumPercent.GetValue()
	}
	if warmup.Aggression != nil {
		start.Aggression = &corev3.RuntimeDouble{DefaultValue: warmup.Aggression.GetValue(), RuntimeKey: slowStartRuntimeKey}
	}
	return start
}

// outlier sets when an endpoint is ejected. Ejection by success rate, which
// Envoy does unasked, is off.
func outlier(c *clusterv3.Cluster, o *networkingapi.OutlierDetection) {
	if o == nil {
		return
	}
	out := &clusterv3.OutlierDetection{EnforcingSuccessRate: u32(0)}
	enforce := func(n uint32) *wrapperspb.UInt32Value { return u32(min(n, 1) * 100) }
	if n := o.Consecutive_5XxErrors; n != nil {
		out.Consecutive_5Xx, out.EnforcingConsecutive_5Xx = u32(n.Value), enforce(n.Value)
	}
	if n := o.ConsecutiveGatewayErrors; n != nil {
		out.ConsecutiveGatewayFailure, out.EnforcingConsecutiveGatewayFailure = u32(n.Value), enforce(n.Value)
	}
	if o.SplitExternalLocalOriginErrors {
		out.SplitExternalLocalOriginErrors = true
		out.EnforcingLocalOriginSuccessRate = u32(0)
		if n := o.ConsecutiveLocalOriginFailures.GetValue(); n > 0 {
			out.ConsecutiveLocalOriginFailure, out.EnforcingConsecutiveLocalOriginFailure = u32(n), enforce(n)
		}
	}
	out.Interval, out.BaseEjectionTime = o.Interval, o.BaseEjectionTime
	if o.MaxEjectionPercent > 0 {
		out.MaxEjectionPercent = u32(uint32(o.MaxEjectionPercent))
	}
	c.OutlierDetection = out
	if o.MinHealthPercent > 0 && c.CommonLbConfig != nil {
		c.CommonLbConfig.HealthyPanicThreshold = &typev3.Percent{Value: float64(o.MinHealthPercent)}
	}
}

// errorCodes are the statuses that count as errors instead of 5xx, nil for those.
func errorCodes(o *networkingapi.OutlierDetection) *upstreamsv3.HttpProtocolOptions_OutlierDetection {
	var any []*commontapv3.MatchPredicate
	for _, code := range o.GetOutlierDetectionHttpErrorCodes() {
		any = append(any, &commontapv3.MatchPredicate{Rule: &commontapv3.MatchPredicate_HttpResponseHeadersMatch{HttpResponseHeadersMatch: &commontapv3.HttpHeadersMatch{
			Headers: []*routev3.HeaderMatcher{{Name: ":status", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{
				StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: strconv.FormatUint(uint64(code), 10)}}}}}}}})
	}
	switch len(any) {
	case 0:
		return nil
	case 1:
		return &upstreamsv3.HttpProtocolOptions_OutlierDetection{ErrorMatcher: any[0]}
	}
	return &upstreamsv3.HttpProtocolOptions_OutlierDetection{ErrorMatcher: &commontapv3.MatchPredicate{Rule: &commontapv3.MatchPredicate_OrMatch{OrMatch: &commontapv3.MatchPredicate_MatchSet{Rules: any}}}}
}
