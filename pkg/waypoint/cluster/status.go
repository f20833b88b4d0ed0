package cluster

import (
	"math"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Statuses are the clusters that are usable, as Envoy's admin page
// /clusters?format=json has them.
func (m *Manager) Statuses() *adminv3.Clusters {
	out := &adminv3.Clusters{}
	for _, name := range m.Names() {
		if c := m.Get(name); c != nil {
			out.ClusterStatuses = append(out.ClusterStatuses, c.status())
		}
	}
	return out
}

func (c *Cluster) status() *adminv3.ClusterStatus {
	s := c.snap.Load().spec
	out := &adminv3.ClusterStatus{Name: c.name, ObservabilityName: s.observed, AddedViaApi: true, CircuitBreakers: &clusterv3.CircuitBreakers{}}
	if s.discovery == eds {
		out.EdsServiceName = s.edsName
	}
	for p, priority := range []corev3.RoutingPriority{corev3.RoutingPriority_DEFAULT, corev3.RoutingPriority_HIGH} {
		out.CircuitBreakers.Thresholds = append(out.CircuitBreakers.Thresholds, s.limits[p].thresholds(priority))
	}
	for _, h := range c.Hosts() {
		out.HostStatuses = append(out.HostStatuses, h.status())
	}
	return out
}

func (l *limits) thresholds(p corev3.RoutingPriority) *clusterv3.CircuitBreakers_Thresholds {
	of := func(n int64) *wrapperspb.UInt32Value {
		return wrapperspb.UInt32(uint32(min(max(n, 0), math.MaxUint32)))
	} //nolint:gosec // it fits
	return &clusterv3.CircuitBreakers_Thresholds{
		Priority: p, MaxConnections: of(l.connections), MaxPendingRequests: of(l.pending), MaxRequests: of(l.requests), MaxRetries: of(l.retries),
	}
}

func (h *Host) status() *adminv3.HostStatus {
	f := h.facts.Load()
	out := &adminv3.HostStatus{
		Address: h.address(), Hostname: h.Hostname, Weight: f.weight, Priority: uint32(max(f.priority, 0)), //nolint:gosec // a small number
		Locality:     &corev3.Locality{Region: f.locality.Region, Zone: f.locality.Zone, SubZone: f.locality.SubZone},
		HealthStatus: &adminv3.HostHealthStatus{EdsHealthStatus: corev3.HealthStatus_HEALTHY, FailedOutlierCheck: h.ejected.Load()},
	}
	if h.unhealthy.Load() {
		out.HealthStatus.EdsHealthStatus = corev3.HealthStatus_UNHEALTHY
	}
	h.cluster.mu.Lock()
	if m := &h.health; !m.judged.IsZero() {
		out.SuccessRate, out.LocalOriginSuccessRate = &typev3.Percent{Value: m.externalRate}, &typev3.Percent{Value: m.localRate}
	}
	h.cluster.mu.Unlock()
	for _, n := range h.numbers() {
		kind := adminv3.SimpleMetric_COUNTER
		if n.gauge {
			kind = adminv3.SimpleMetric_GAUGE
		}
		out.Stats = append(out.Stats, &adminv3.SimpleMetric{Type: kind, Name: n.name, Value: uint64(max(n.value, 0))})
	}
	return out
}

// address is the socket's, or that of the internal listener by which the host is
// reached.
func (h *Host) address() *corev3.Address {
	if h.tunnel.listener != "" {
		return &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
			AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: h.tunnel.listener}, EndpointId: h.Dial.String(),
		}}}
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: h.Dial.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(h.Dial.Port())},
	}}}
}
