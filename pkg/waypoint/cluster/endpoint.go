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

// maxHosts bounds the hosts of a cluster.
const maxHosts = 100_000

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
	_, err := probe.groupsLocked(s, load)
	return err
}

// groupsLocked are the hosts of an assignment by priority and locality. Hosts that
// the cluster has already are kept and take the assignment's facts over.
func (c *Cluster) groupsLocked(s *spec, load *endpointv3.ClusterLoadAssignment) ([][]group, error) {
	fail := func(l, e int, field string, err error) ([][]group, error) {
		return nil, &fieldError{c.name, fmt.Sprintf("endpoints[%d].lb_endpoints[%d].%s", l, e, field), err}
	}
	type update struct {
		host      *Host
		facts     *facts
		unhealthy bool
	}
	var out [][]group
	var updates []update
	seen := map[string]bool{}
	for li, l := range load.GetEndpoints() {
		p := int(l.GetPriority())
		if p > 128 {
			return nil, &fieldError{c.name, fmt.Sprintf("endpoints[%d].priority", li), errors.New("is at most 128")}
		}
		for len(out) <= p {
			out = append(out, nil)
		}
		name := Locality{l.GetLocality().GetRegion(), l.GetLocality().GetZone(), l.GetLocality().GetSubZone()}
		g := group{name: name, weight: l.GetLoadBalancingWeight().GetValue()}
		for ei, e := range l.GetLbEndpoints() {
			h, err := c.hostOf(e)
			if err != nil {
				return fail(li, ei, "endpoint.address", err)
			}
			if seen[h.Address] {
				continue // once is enough
			}
			if seen[h.Address] = true; len(seen) > maxHosts {
				return fail(li, ei, "endpoint", fmt.Errorf("a cluster has at most %d", maxHosts))
			}
			updates = append(updates, update{h, factsOf(e, p, name), unhealthy(e.GetHealthStatus())})
			g.hosts = append(g.hosts, h)
		}
		merged := false
		for i := range out[p] {
			if out[p][i].name == name {
				out[p][i].hosts = append(out[p][i].hosts, g.hosts...)
				merged = true
			}
		}
		if !merged {
			out[p] = append(out[p], g)
		}
	}
	for _, u := range updates {
		u.host.facts.Store(u.facts)
		u.host.unhealthy.Store(u.unhealthy)
	}
	return out, nil
}

func factsOf(e *endpointv3.LbEndpoint, priority int, name Locality) *facts {
	return &facts{
		weight: max(1, number(e.GetLoadBalancingWeight(), 1)), priority: priority, locality: name,
		metadata: metadataOf(e.GetMetadata()),
		hashKey:  e.GetMetadata().GetFilterMetadata()["envoy.lb"].GetFields()["hash_key"].GetStringValue(),
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
