package xds

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// FromWorkload turns the wire's workload into the mesh's. An error names the field.
func FromWorkload(w *workload.Workload) (*mesh.Workload, error) {
	if w.GetUid() == "" {
		return nil, errors.New("uid: is empty")
	}
	if err := knownValues(
		value{"network_mode", int32(w.NetworkMode), workload.NetworkMode_name}, value{"status", int32(w.Status), workload.WorkloadStatus_name},
		value{"application_tunnel.protocol", int32(w.GetApplicationTunnel().GetProtocol()), workload.ApplicationTunnel_Protocol_name},
	); err != nil {
		return nil, err
	}
	out := &mesh.Workload{
		UID: mesh.WorkloadID(w.Uid), Name: w.Name, Namespace: w.Namespace,
		TrustDomain: orDefault(w.TrustDomain, mesh.DefaultTrustDomain), ServiceAccount: orDefault(w.ServiceAccount, "default"),
		Hostname: w.Hostname, Network: w.Network, Cluster: w.ClusterId, Node: w.Node,
		Locality:     mesh.Locality{Region: w.GetLocality().GetRegion(), Zone: w.GetLocality().GetZone(), Subzone: w.GetLocality().GetSubzone()},
		HostNetwork:  w.NetworkMode == workload.NetworkMode_HOST_NETWORK,
		NativeTunnel: w.NativeTunnel, WorkloadName: w.WorkloadName,
		CanonicalName: w.CanonicalName, CanonicalRevision: w.CanonicalRevision,
		Healthy: w.Status == workload.WorkloadStatus_HEALTHY, Capacity: 1, Policies: w.AuthorizationPolicies,
	}
	for _, e := range w.Extensions {
		out.TCPOnly = out.TCPOnly || e.Name == mesh.ExtensionTCPOnly
		out.WaypointAuthorizes = out.WaypointAuthorizes || e.Name == mesh.ExtensionWaypointAuthorizes
	}
	switch w.TunnelProtocol {
	case workload.TunnelProtocol_NONE:
	case workload.TunnelProtocol_HBONE:
		out.Tunnel = mesh.TunnelHBONE
	default:
		return nil, fmt.Errorf("tunnel_protocol: %v is not supported", w.TunnelProtocol)
	}
	switch w.WorkloadType {
	case workload.WorkloadType_DEPLOYMENT:
		out.WorkloadType = "deployment"
	case workload.WorkloadType_CRONJOB:
		out.WorkloadType = "cronjob"
	case workload.WorkloadType_JOB:
		out.WorkloadType = "job"
	default: // a label of telemetry; refusing the workload for it would take it out of the mesh
		out.WorkloadType = "pod"
	}
	if c := w.GetCapacity(); c != nil {
		out.Capacity = max(c.GetValue(), 1)
	}
	for i, a := range w.Addresses {
		addr, err := fromBytes(a)
		if err != nil {
			return nil, fmt.Errorf("addresses[%d]: %w", i, err)
		}
		out.Addrs = append(out.Addrs, addr)
	}
	var err error
	if out.Waypoint, err = fromGateway(w.Waypoint); err != nil {
		return nil, fmt.Errorf("waypoint: %w", err)
	}
	if out.NetworkGateway, err = fromGateway(w.NetworkGateway); err != nil {
		return nil, fmt.Errorf("network_gateway: %w", err)
	}
	if t := w.ApplicationTunnel; t != nil {
		port, err := fromPort(t.Port)
		if err != nil {
			return nil, fmt.Errorf("application_tunnel.port: %w", err)
		}
		out.AppTunnel = &mesh.AppTunnel{Proxy: t.Protocol == workload.ApplicationTunnel_PROXY, Port: port}
	}
	for key, list := range w.Services {
		service, err := parseServiceKey(key)
		if err != nil {
			return nil, fmt.Errorf("services[%q]: %w", key, err)
		}
		ports, err := fromPorts(list.GetPorts())
		if err != nil {
			return nil, fmt.Errorf("services[%q]: %w", key, err)
		}
		if out.Services == nil {
			out.Services = make(map[mesh.ServiceKey][]mesh.Port, len(w.Services))
		}
		out.Services[service] = ports
	}
	return out, nil
}

// FromService turns the wire's service into the mesh's. An error names the field.
func FromService(s *workload.Service) (*mesh.Service, error) {
	if s.GetHostname() == "" || s.GetNamespace() == "" {
		return nil, errors.New("hostname, namespace: one is empty")
	}
	lb := s.GetLoadBalancing()
	if err := knownValues(
		value{"ip_families", int32(s.IpFamilies), workload.IPFamilies_name}, value{"visibility", int32(s.Visibility), workload.Service_Visibility_name},
		value{"load_balancing.mode", int32(lb.GetMode()), workload.LoadBalancing_Mode_name},
		value{"load_balancing.health_policy", int32(lb.GetHealthPolicy()), workload.LoadBalancing_HealthPolicy_name},
	); err != nil {
		return nil, err
	}
	out := &mesh.Service{
		Key: mesh.ServiceKey{Namespace: s.Namespace, Hostname: s.Hostname}, Name: s.Name, SubjectAltNames: s.SubjectAltNames,
		IngressUseWaypoint: s.IngressUseWaypoint, Canonical: s.Canonical,
		IPFamilies: uint8(s.IpFamilies), Visibility: mesh.Visibility(s.Visibility),
	}
	for i, a := range s.Addresses {
		addr, err := fromBytes(a.GetAddress())
		if err != nil {
			return nil, fmt.Errorf("addresses[%d]: %w", i, err)
		}
		if a.Length == nil || int(*a.Length) == addr.BitLen() {
			out.VIPs = append(out.VIPs, mesh.NewNetworkAddr(a.Network, addr))
			continue
		}
		prefix, err := addr.Prefix(int(*a.Length))
		if err != nil {
			return nil, fmt.Errorf("addresses[%d].length: %w", i, err)
		}
		out.Prefixes = append(out.Prefixes, mesh.NetworkPrefix{Network: a.Network, Prefix: prefix})
	}
	var err error
	if out.Ports, err = fromPorts(s.Ports); err != nil {
		return nil, err
	}
	if out.Waypoint, err = fromGateway(s.Waypoint); err != nil {
		return nil, fmt.Errorf("waypoint: %w", err)
	}
	for i, w := range s.WeightedWaypoints {
		g, err := fromGateway(w.GetDestination())
		if err != nil || g == nil {
			return nil, fmt.Errorf("weighted_waypoints[%d]: %w", i, errors.Join(err, errNoDestination))
		}
		out.WeightedWaypoints = append(out.WeightedWaypoints, mesh.WeightedWaypoint{Waypoint: *g, Weight: w.Weight})
	}
	if lb == nil {
		return out, nil
	}
	out.Balancing.Mode = mesh.BalanceMode(lb.Mode)
	out.Balancing.AllowUnhealthy = lb.HealthPolicy == workload.LoadBalancing_ALLOW_ALL
	for i, scope := range lb.RoutingPreference {
		if _, known := workload.LoadBalancing_Scope_name[int32(scope)]; !known {
			return nil, fmt.Errorf("load_balancing.routing_preference[%d]: %d is unknown", i, scope)
		}
		out.Balancing.Scopes = append(out.Balancing.Scopes, mesh.Scope(scope))
	}
	return out, nil
}

// value is an enum's number and the names it may have.
type value struct {
	field  string
	number int32
	names  map[int32]string
}

// knownValues refuses numbers that this build does not know: which of the known
// ones such a number is nearest to cannot be guessed.
func knownValues(values ...value) error {
	for _, v := range values {
		if _, known := v.names[v.number]; !known {
			return fmt.Errorf("%s: %d is unknown", v.field, v.number)
		}
	}
	return nil
}

var errNoDestination = errors.New("no destination")

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func fromBytes(b []byte) (netip.Addr, error) {
	addr, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Addr{}, fmt.Errorf("%d bytes, want 4 or 16", len(b))
	}
	return addr.Unmap(), nil
}

func fromPort(p uint32) (uint16, error) {
	if p > 65535 {
		return 0, fmt.Errorf("%d is no port", p)
	}
	return uint16(p), nil
}

func fromPorts(ports []*workload.Port) ([]mesh.Port, error) {
	out := make([]mesh.Port, 0, len(ports))
	for i, p := range ports {
		service, err := fromPort(p.GetServicePort())
		if err != nil {
			return nil, fmt.Errorf("ports[%d].service_port: %w", i, err)
		}
		target, err := fromPort(p.GetTargetPort())
		if err != nil {
			return nil, fmt.Errorf("ports[%d].target_port: %w", i, err)
		}
		protocol := mesh.AppProtocol(p.GetAppProtocol())
		if _, known := workload.AppProtocol_name[int32(p.GetAppProtocol())]; !known {
			protocol = mesh.AppUnknown
		}
		out = append(out, mesh.Port{Service: service, Target: target, Protocol: protocol})
	}
	return out, nil
}

func fromGateway(g *workload.GatewayAddress) (*mesh.GatewayAddr, error) {
	if g == nil {
		return nil, nil
	}
	port, err := fromPort(g.HboneMtlsPort)
	if err != nil {
		return nil, fmt.Errorf("hbone_mtls_port: %w", err)
	}
	switch d := g.Destination.(type) {
	case *workload.GatewayAddress_Hostname:
		return &mesh.GatewayAddr{Service: mesh.ServiceKey{Namespace: d.Hostname.GetNamespace(), Hostname: d.Hostname.GetHostname()}, Port: port}, nil
	case *workload.GatewayAddress_Address:
		addr, err := fromBytes(d.Address.GetAddress())
		if err != nil {
			return nil, fmt.Errorf("address: %w", err)
		}
		return &mesh.GatewayAddr{Addr: mesh.NewNetworkAddr(d.Address.GetNetwork(), addr), Port: port}, nil
	}
	return nil, errNoDestination
}
