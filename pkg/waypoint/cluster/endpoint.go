package cluster

import (
	"errors"
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// Keys of host metadata.
const (
	onwardKey = "envoy.filters.listener.original_dst"
	matchKey  = "envoy.transport_socket_match"
)

// Bounds of an assignment.
const (
	maxHosts    = 100_000
	maxPriority = 128 // Envoy's
)

// onward is where an internal listener goes on to for an endpoint: "10.0.0.1:80", or
// "".
func onward(e *endpointv3.LbEndpoint) string {
	return e.GetMetadata().GetFilterMetadata()[onwardKey].GetFields()["local"].GetStringValue()
}

func metadataOf(m *corev3.Metadata) streaminfo.Metadata {
	if len(m.GetFilterMetadata()) == 0 {
		return nil
	}
	out := make(streaminfo.Metadata, len(m.GetFilterMetadata()))
	for name, value := range m.GetFilterMetadata() {
		out[name] = value.AsMap()
	}
	return out
}

// checkLoad tries an inline assignment.
func (m *Manager) checkLoad(s *spec, load *endpointv3.ClusterLoadAssignment) error {
	if s.discovery != static {
		return nil
	}
	probe := &Cluster{manager: m, name: s.name}
	_, err := probe.groupsLocked(load)
	return err
}

// maxErrors bounds what is said of one assignment.
const maxErrors = 5

// groupsLocked are the hosts of an assignment by priority and locality. Hosts that
// the cluster has already are kept and take the assignment's facts over. Endpoints
// that cannot be used are left out, and the error says which.
func (c *Cluster) groupsLocked(load *endpointv3.ClusterLoadAssignment) ([][]group, error) {
	var out [][]group
	var errs []error
	seen := map[string]bool{}
	fail := func(field string, err error) {
		if len(errs) < maxErrors {
			errs = append(errs, &fieldError{c.name, field, err})
		}
	}
	for li, l := range load.GetEndpoints() {
		p := int(l.GetPriority())
		if p > maxPriority {
			fail(fmt.Sprintf("endpoints[%d].priority", li), fmt.Errorf("is at most %d", maxPriority))
			continue
		}
		for len(out) <= p {
			out = append(out, nil)
		}
		name := Locality{l.GetLocality().GetRegion(), l.GetLocality().GetZone(), l.GetLocality().GetSubZone()}
		g := group{name: name, weight: l.GetLoadBalancingWeight().GetValue()}
		for ei, e := range l.GetLbEndpoints() {
			h, err := c.hostOf(e)
			if err == nil && len(seen) >= maxHosts {
				err = fmt.Errorf("a cluster has at most %d", maxHosts)
			}
			if err != nil {
				fail(fmt.Sprintf("endpoints[%d].lb_endpoints[%d].endpoint.address", li, ei), err)
				continue
			}
			if seen[h.Address] {
				continue // once is enough
			}
			seen[h.Address] = true
			h.facts.Store(factsOf(e, p, name))
			h.unhealthy.Store(unhealthy(e.GetHealthStatus()))
			g.hosts = append(g.hosts, h)
		}
		out[p] = merge(out[p], g)
	}
	return out, errors.Join(errs...)
}

// merge adds a group to a priority; a locality may come in parts.
func merge(groups []group, g group) []group {
	for i := range groups {
		if groups[i].name == g.name {
			groups[i].hosts = append(groups[i].hosts, g.hosts...)
			return groups
		}
	}
	return append(groups, g)
}

func factsOf(e *endpointv3.LbEndpoint, priority int, name Locality) *facts {
	metadata := metadataOf(e.GetMetadata())
	return &facts{
		weight: max(1, number(e.GetLoadBalancingWeight(), 1)), priority: priority, locality: name,
		metadata: metadata, workload: streaminfo.FromEndpoint(metadata),
		hashKey: e.GetMetadata().GetFilterMetadata()["envoy.lb"].GetFields()["hash_key"].GetStringValue(),
	}
}

// unhealthy: as Envoy, what drains is not chosen either. Degraded hosts count as
// healthy.
func unhealthy(s corev3.HealthStatus) bool {
	switch s {
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_DRAINING, corev3.HealthStatus_TIMEOUT:
		return true
	}
	return false
}

// hostOf finds or makes the host of an endpoint.
func (c *Cluster) hostOf(e *endpointv3.LbEndpoint) (*Host, error) {
	if e.GetEndpointName() != "" {
		return nil, errors.New("endpoint_name (LEDS) is not supported")
	}
	address := e.GetEndpoint().GetAddress()
	if internal := address.GetEnvoyInternalAddress(); internal != nil {
		return c.internalHost(e, internal)
	}
	to, err := socketAddress(address.GetSocketAddress())
	if err != nil {
		return nil, err
	}
	key := to.String()
	if h := c.hosts[key]; h != nil && h.tunnel.listener == "" && h.Hostname == e.GetEndpoint().GetHostname() {
		return h, nil
	}
	h := newHost(c, key)
	h.Dial, h.Hostname = to, e.GetEndpoint().GetHostname()
	return h, nil
}

func (c *Cluster) internalHost(e *endpointv3.LbEndpoint, a *corev3.EnvoyInternalAddress) (*Host, error) {
	listener := a.GetServerListenerName()
	key := "envoy://" + listener + "/" + a.GetEndpointId()
	local := onward(e)
	if local == "" {
		local = a.GetEndpointId()
	}
	to, err := netip.ParseAddrPort(local)
	if err != nil {
		return nil, fmt.Errorf("the internal address of %s has no destination: metadata %s/local: %q is not an address and port", listener, onwardKey, local)
	}
	t, err := c.manager.tunnelFor(listener, to, e.GetMetadata().GetFilterMetadata())
	if err != nil {
		return nil, err
	}
	if h := c.hosts[key]; h != nil && h.Dial == to && h.tunnel == t {
		return h, nil
	}
	h := newHost(c, key)
	h.Dial, h.tunnel = to, t
	return h, nil
}

func socketAddress(a *corev3.SocketAddress) (netip.AddrPort, error) {
	if a == nil {
		return netip.AddrPort{}, errors.New("neither a socket address nor an internal one")
	}
	if a.GetProtocol() != corev3.SocketAddress_TCP {
		return netip.AddrPort{}, fmt.Errorf("protocol %v is not supported", a.GetProtocol())
	}
	if a.GetNamedPort() != "" {
		return netip.AddrPort{}, errors.New("named ports are not supported")
	}
	ip, err := netip.ParseAddr(a.GetAddress())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not an IP address; a name needs a DNS cluster", a.GetAddress())
	}
	if a.GetPortValue() > 65535 {
		return netip.AddrPort{}, fmt.Errorf("port %d", a.GetPortValue())
	}
	return netip.AddrPortFrom(ip, uint16(a.GetPortValue())), nil
}

// tunnelTo is the tunnel of a host: through which listener, and the cluster that
// names who may answer.
type tunnelTo struct{ listener, originate string }

// tunnelFor takes the internal listener's place.
func (m *Manager) tunnelFor(listener string, to netip.AddrPort, metadata map[string]*structpb.Struct) (tunnelTo, error) {
	switch listener {
	case "connect_originate":
	case "inner_connect_originate", "outer_connect_originate":
		return tunnelTo{}, fmt.Errorf("%s is behind the listener %s: tunnels in tunnels, to other networks, are not supported", to, listener)
	default:
		return tunnelTo{}, fmt.Errorf("internal listener %q: only connect_originate leads to a destination", listener)
	}
	return tunnelTo{listener, metadata["mesh"].GetFields()["originate"].GetStringValue()}, nil
}
