package envoy

import (
	"math"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	meshapi "istio.io/api/mesh/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

const httpProtocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// unlimited are circuit breakers that never open, the mesh's default.
func unlimited() *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: u32(math.MaxUint32), MaxPendingRequests: u32(math.MaxUint32), MaxRequests: u32(math.MaxUint32), MaxRetries: u32(math.MaxUint32)}}}
}

// protocolOptions sets a cluster's HTTP options; nil leaves it HTTP/1.1 or TCP.
func (g *generator) protocolOptions(c *clusterv3.Cluster, o *upstreamsv3.HttpProtocolOptions) {
	if o != nil {
		c.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpProtocolOptions: g.pack(o)}
	}
}

// tunnelOptions are HTTP/2 that carries CONNECT.
func tunnelOptions(requests uint32) *upstreamsv3.HttpProtocolOptions {
	o := &upstreamsv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: seconds(3600)},
		UpstreamProtocolOptions:   explicit(&corev3.Http2ProtocolOptions{AllowConnect: true}),
	}
	if requests > 0 {
		o.CommonHttpProtocolOptions.MaxRequestsPerConnection = u32(requests)
	}
	return o
}

// sameProtocolOptions speak to the upstream what the client speaks.
func sameProtocolOptions(idle *durationpb.Duration) *upstreamsv3.HttpProtocolOptions {
	o := &upstreamsv3.HttpProtocolOptions{UpstreamProtocolOptions: &upstreamsv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
		UseDownstreamProtocolConfig: &upstreamsv3.HttpProtocolOptions_UseDownstreamHttpConfig{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}}}}
	if idle != nil {
		o.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{IdleTimeout: idle}
	}
	return o
}

// explicit is HTTP/2, or HTTP/1.1 for nil.
func explicit(h2 *corev3.Http2ProtocolOptions) *upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_ {
	e := &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig{}
	if h2 != nil {
		e.ProtocolConfig = &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: h2}
	} else {
		e.ProtocolConfig = &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}}
	}
	return &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: e}
}

// limits applies a policy's connectionPool and retryBudget to a cluster, apart
// from what stands in its HTTP options.
func (g *generator) limits(c *clusterv3.Cluster, p *networkingapi.TrafficPolicy) {
	c.CircuitBreakers = unlimited()
	t := c.CircuitBreakers.Thresholds[0]
	tcp, http := p.GetConnectionPool().GetTcp(), p.GetConnectionPool().GetHttp()
	limit := func(v int32, set func(uint32)) {
		if v > 0 {
			set(uint32(v))
		}
	}
	limit(tcp.GetMaxConnections(), func(v uint32) { t.MaxConnections = u32(v) })
	limit(http.GetHttp1MaxPendingRequests(), func(v uint32) { t.MaxPendingRequests = u32(v) })
	limit(http.GetHttp2MaxRequests(), func(v uint32) { t.MaxRequests = u32(v) })
	limit(http.GetMaxRetries(), func(v uint32) { t.MaxRetries = u32(v) })
	if b := p.GetRetryBudget(); b != nil {
		t.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{BudgetInterval: b.BudgetInterval}
		if b.Percent != nil {
			t.RetryBudget.BudgetPercent = &typev3.Percent{Value: b.Percent.GetValue()}
		}
		if b.MinRetryConcurrency > 0 {
			t.RetryBudget.MinRetryConcurrency = u32(b.MinRetryConcurrency)
		}
	}
	c.ConnectTimeout = seconds(10)
	mesh := g.m.Objects.Mesh
	for _, d := range []*durationpb.Duration{mesh.GetConnectTimeout(), tcp.GetConnectTimeout()} {
		if d != nil {
			c.ConnectTimeout = d
		}
	}
	for _, k := range []*networkingapi.ConnectionPoolSettings_TCPSettings_TcpKeepalive{mesh.GetTcpKeepalive(), tcp.GetTcpKeepalive()} {
		keepalive(c, k)
	}
}

func keepalive(c *clusterv3.Cluster, k *networkingapi.ConnectionPoolSettings_TCPSettings_TcpKeepalive) {
	if k == nil {
		return
	}
	if c.UpstreamConnectionOptions == nil {
		c.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{}}
	}
	out := c.UpstreamConnectionOptions.TcpKeepalive
	if k.Probes > 0 {
		out.KeepaliveProbes = u32(k.Probes)
	}
	if k.Time != nil {
		out.KeepaliveTime = u32(uint32(k.Time.GetSeconds()))
	}
	if k.Interval != nil {
		out.KeepaliveInterval = u32(uint32(k.Interval.GetSeconds()))
	}
}

// httpOptions are a cluster's HTTP options for a port's protocol and a policy,
// nil where the defaults do.
func (g *generator) httpOptions(kind Kind, protocol model.Protocol, p *networkingapi.TrafficPolicy) *upstreamsv3.HttpProtocolOptions {
	tcp, http := p.GetConnectionPool().GetTcp(), p.GetConnectionPool().GetHttp()
	o := &upstreamsv3.HttpProtocolOptions{}
	common := &corev3.HttpProtocolOptions{IdleTimeout: tcp.GetIdleTimeout(), MaxConnectionDuration: tcp.GetMaxConnectionDuration()}
	if http.GetIdleTimeout() != nil {
		common.IdleTimeout = http.IdleTimeout
	}
	if n := http.GetMaxRequestsPerConnection(); n > 0 {
		common.MaxRequestsPerConnection = u32(uint32(n))
	}
	limited := common.IdleTimeout != nil || common.MaxConnectionDuration != nil || common.MaxRequestsPerConnection != nil
	if limited {
		o.CommonHttpProtocolOptions = common
	}
	codes := errorCodes(p.GetOutlierDetection())
	if kind == HTTP && codes != nil {
		o.OutlierDetection = codes
	}
	h2 := &corev3.Http2ProtocolOptions{}
	if n := http.GetMaxConcurrentStreams(); n > 0 {
		h2.MaxConcurrentStreams = u32(uint32(n))
	}
	if k := http.GetHttp2KeepAlive(); k != nil {
		h2.ConnectionKeepalive = &corev3.KeepaliveSettings{Interval: k.Interval, Timeout: k.Timeout}
	}
	switch {
	case kind == TCP && protocol != model.Unsupported:
		if !limited {
			return nil
		}
		o.UpstreamProtocolOptions = explicit(nil)
	case http.GetUseClientProtocol(), protocol == model.Unsupported:
		o.UpstreamProtocolOptions = &upstreamsv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &upstreamsv3.HttpProtocolOptions_UseDownstreamHttpConfig{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: h2}}
	case protocol != model.HTTP, g.upgrades(http):
		o.UpstreamProtocolOptions = explicit(h2)
	case !limited && o.OutlierDetection == nil:
		return nil
	default:
		o.UpstreamProtocolOptions = explicit(nil)
	}
	return o
}

// upgrades tells whether requests go on as HTTP/2, by the policy or else the mesh.
func (g *generator) upgrades(http *networkingapi.ConnectionPoolSettings_HTTPSettings) bool {
	switch http.GetH2UpgradePolicy() {
	case networkingapi.ConnectionPoolSettings_HTTPSettings_UPGRADE:
		return true
	case networkingapi.ConnectionPoolSettings_HTTPSettings_DO_NOT_UPGRADE:
		return false
	}
	return g.m.Objects.Mesh.GetH2UpgradePolicy() == meshapi.MeshConfig_UPGRADE
}
